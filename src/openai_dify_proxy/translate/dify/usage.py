"""Token counts, from ``message_end``, from the outputs of LLM nodes, or from the total of ``workflow_finished``."""

from __future__ import annotations

from openai_dify_proxy.entity import Entity
from openai_dify_proxy.events import Usage
from openai_dify_proxy.translate.prices import add_prices, subtract_prices
from openai_dify_proxy.wire.dify import UsageData


class UsageCounter(Entity):
    """Counts a turn's tokens from the most precise source in its stream.

    ``before`` is what earlier turns of the same run have counted: after a pause, the totals of the run include it, and
    the outputs of its nodes do not.
    """

    before: Usage | None = None
    _message: Usage | None = None
    _nodes: Usage | None = None
    _run: Usage | None = None

    def read_message_end(self, data: UsageData) -> None:
        usage = read_usage(data)
        self._message = usage if self.before is None else subtract_usage(usage, self.before)

    def add_node(self, data: UsageData) -> None:
        usage = read_usage(data)
        self._nodes = usage if self._nodes is None else add_usage(self._nodes, usage)

    def read_run_total(self, tokens: int | None, *, complete: bool) -> None:
        """Use the run's total if there is no finer count. It does not separate prompt and completion tokens.

        Zero is a count only in a ``complete`` run: a stopped one reports it too, whatever its model has used.
        """
        if tokens and self._message is None and self._nodes is None:
            self._nodes = self._rest_of_tokens(tokens)
        elif tokens == 0 and complete:
            self._run = Usage()

    def _rest_of_tokens(self, whole: int) -> Usage:
        before = 0 if self.before is None else self.before.total_tokens
        tokens = whole - before if whole >= before else whole
        return Usage(completion_tokens=tokens, total_tokens=tokens)

    @property
    def run_total(self) -> Usage | None:
        """The count of the whole run so far, with earlier turns."""
        return sum_usage(self.before, self.total)

    @property
    def total(self) -> Usage | None:
        """The count of ``message_end``, or that of the nodes if it is missing or zero; None if Dify counted nothing."""
        if self._nodes is not None and (self._message is None or not self._message.total_tokens):
            return self._nodes
        return self._message or self._run


def read_usage(data: UsageData) -> Usage:
    """Return Dify's counts. Prices are decimal strings, or numbers in some versions."""
    prompt, completion = data.prompt_tokens or 0, data.completion_tokens or 0
    price = None if data.total_price is None else str(data.total_price)
    return Usage(prompt, completion, data.total_tokens or prompt + completion, price, data.currency, data.latency)


def add_usage(known: Usage, more: Usage) -> Usage:
    """Return the sum of the tokens, and that of the prices in each currency, exactly."""
    prices: dict[str, str] = {}
    for currency, price in (*known.costs, *more.costs):
        prices[currency] = add_prices(prices[currency], price) if currency in prices else price
    only = next(iter(prices.items())) if len(prices) == 1 else (None, None)
    return Usage(
        known.prompt_tokens + more.prompt_tokens,
        known.completion_tokens + more.completion_tokens,
        known.total_tokens + more.total_tokens,
        only[1],
        only[0],
        prices=tuple(prices.items()) if len(prices) > 1 else (),
    )


def sum_usage(known: Usage | None, more: Usage | None) -> Usage | None:
    """Return the sum of two counts, of which either may be missing."""
    return more if known is None else known if more is None else add_usage(known, more)


def subtract_usage(whole: Usage, part: Usage) -> Usage:
    """Return what ``whole`` has more than ``part``; ``whole`` itself if that cannot include ``part``."""
    prices: dict[str, str] = dict(whole.costs)
    for currency, price in part.costs:
        rest = subtract_prices(prices.get(currency, "0"), price)
        if rest is None:
            return whole
        prices[currency] = rest
    prompt, completion = whole.prompt_tokens - part.prompt_tokens, whole.completion_tokens - part.completion_tokens
    total = whole.total_tokens - part.total_tokens
    if min(prompt, completion, total) < 0:
        return whole
    only = next(iter(prices.items())) if len(prices) == 1 else (None, None)
    several = tuple(prices.items()) if len(prices) > 1 else ()
    return Usage(prompt, completion, total, only[1], only[0], whole.latency, several)
