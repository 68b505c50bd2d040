"""Dify's failures as the proxy's errors.

Dify says much of what matters only in words: provider failures all arrive as 400 ``completion_request_error``,
concurrency limits as 400 ``invalid_param``, workflow failures as a sentence in an event. So a code is looked up
first and its words are read second.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from openai_dify_proxy.errors import (
    AppUnavailable,
    AuthenticationFailed,
    BodyTooLarge,
    ContextTooLong,
    ConversationNotFound,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    ProxyError,
    QuotaExceeded,
    RateLimited,
    UnsupportedMediaType,
    UpstreamFailed,
    UpstreamMisconfigured,
    UpstreamTimeout,
    UpstreamUnreachable,
    mask_keys,
)
from openai_dify_proxy.wire.dify import ERROR_BODY
from openai_dify_proxy.wire.reading import UNREADABLE

CONCURRENCY_RETRY_AFTER = 2.0
"""Seconds; Dify names none, and its slots are freed as soon as a stream ends."""

WRONG_ROUTE_CODES = frozenset({"not_chat_app", "not_completion_app", "not_workflow_app", "app_unavailable"})
"""What Dify answers when an app of another mode is asked by this route."""

MAX_WORDS = 1000
"""Characters of Dify's words that are given on; some repeat the request, whole files included."""

_WERKZEUG_HINT = re.compile(r"\s*You have requested this URI \[.*", re.DOTALL)
_REQUIRED_INPUT = re.compile(r"^(?:Run failed: )?(?P<name>\S+) is required in input form")
_BAD_INPUT = re.compile(r"^(?:Run failed: )?(?:\(type '[^']*'\) )?(?P<name>\S+) in input form must\b")
_BAD_FILE = re.compile(r"^(Run failed: )?(Invalid upload file|File validation failed|Number of \w* ?files exceeds)")
_CONTEXT = re.compile(
    r"context.{0,20}(length|window)|maximum context|prompt is too long|too many (input )?tokens", re.IGNORECASE
)
_RATE = re.compile(r"rate.?limit|too many requests|\b429\b|overloaded_error", re.IGNORECASE)
_QUOTA = re.compile(r"insufficient_quota|exceeded your current quota|quota exceeded", re.IGNORECASE)
_PROVIDER_AUTH = re.compile(
    r"incorrect api key|invalid api key|invalid_api_key|InvokeAuthorizationError|unauthorized", re.IGNORECASE
)
_NO_PROVIDER = re.compile(r"^(Provider|Model) \S+ (does )?not exist")


def translate_refusal(
    status: int, content_type: str, body: bytes, *, own_key: bool, location: str | None = None
) -> ProxyError:
    """An answer of Dify, or of a balancer before it, whose status is not 2xx.

    ``own_key`` tells that the Dify key is the server's, whose faults are not the client's. ``location`` is where a
    redirection points: it is not followed, since that would turn a POST into a GET or send a key elsewhere.
    """
    if 300 <= status < 400:
        return UpstreamMisconfigured(
            "There is no Dify API where this server looks for it. Tell its operator.",
            log=f"The Dify URL redirects to {location}: set that URL instead (often https in place of http).",
        )
    try:
        error = ERROR_BODY.decode(body)
    except UNREADABLE:
        return _translate_balancer(status, content_type)
    if not isinstance(error.code, str):  # Dify's own errors have one
        return _translate_balancer(status, content_type)
    return translate_error(error.code, status, error.message or "", own_key=own_key)


def translate_error(code: str | None, status: int, message: str, *, own_key: bool, started: bool = False) -> ProxyError:
    """A ``{"code", "message", "status"}`` body or an ``error`` event, by its code, then its words, then its status."""
    message = clean(message)
    if message.startswith("Too many requests") or code == "too_many_requests":
        return RateLimited(
            "This Dify app is serving as many requests as it may at once. Try again in a moment.",
            retry_after=CONCURRENCY_RETRY_AFTER,
            started=started,
        )
    if status == 401 or code == "unauthorized":
        return _translate_auth(message, own_key)
    rule = _BY_CODE.get(code or "")
    if rule is not None:
        return rule(message, code, started)
    return _translate_status(code, status, message, started)


def translate_failure(message: str) -> ProxyError:
    """The words of a failed run (``workflow_finished.data.error``), which are all that Dify tells of it."""
    return _translate_words(clean(message), None, True)


def clean(message: str) -> str:
    """Dify's words without key-like strings and without werkzeug's guesses at other URLs, and not too many of them."""
    words = mask_keys(_WERKZEUG_HINT.sub("", message)).strip()
    return words if len(words) <= MAX_WORDS else f"{words[:MAX_WORDS]}…"


def _translate_auth(message: str, own_key: bool) -> ProxyError:
    if own_key:
        return UpstreamMisconfigured(
            "Dify refused the credentials that this server holds for the model. Tell its operator.",
            log=f"Dify refused the app's key: {message} Set a valid key for this app (it begins with app-).",
        )
    return AuthenticationFailed(f"Dify refused the Dify key of this request: {message or 'unauthorized'}")


def _translate_words(message: str, code: str | None, started: bool) -> ProxyError:
    """What a provider or a run complained of."""
    if named := _REQUIRED_INPUT.match(message) or _BAD_INPUT.match(message):
        return InvalidRequest(
            f"Dify refused an input of the app: {message}", param=f"inputs.{named['name']}", code=code, started=started
        )
    for pattern, rule in _BY_WORDS:
        if pattern.search(message):
            return rule(message, code, started)
    return UpstreamFailed(f"The run failed in Dify: {message or 'no reason given'}", code=code, started=started)


def _translate_model_failure(message: str, code: str | None, _started: bool) -> ProxyError:
    """The model behind Dify was asked already, however early this comes: trying again may be billed again."""
    return _translate_words(message, code, True)


def _context_too_long(message: str, _code: str | None, started: bool) -> ProxyError:
    return ContextTooLong(f"The conversation is longer than the app's model takes: {message}", started=started)


def _bad_file(message: str, code: str | None, started: bool) -> ProxyError:
    return InvalidRequest(f"Dify refused a file: {message}", code=code, started=started)


def _out_of_quota(message: str, _code: str | None, started: bool) -> ProxyError:
    return QuotaExceeded(f"The model provider behind Dify is out of quota: {message}", started=started)


def _provider_limit(message: str, _code: str | None, started: bool) -> ProxyError:
    return RateLimited(f"The model provider behind Dify limits requests: {message}", started=started)


def _rate_limit_error(message: str, code: str | None, started: bool) -> ProxyError:
    """In a stream the model provider's limit; before it the quota of runs that Dify's cloud sells."""
    return _provider_limit(message, code, True) if started else _out_of_quota(message, code, started)


def _provider_auth(message: str, _code: str | None, started: bool) -> ProxyError:
    return UpstreamMisconfigured(
        "The model provider behind Dify refused Dify's credentials. Tell the operator of that Dify.",
        log="A model provider refused the credentials that Dify holds for it.",
        started=started,
    )


def _translate_param(message: str, code: str | None, started: bool) -> ProxyError:
    if _NO_PROVIDER.match(message):
        return _unavailable(message, code, started)
    if started or message.startswith("Run failed:"):
        return _translate_words(message, code, True)
    if named := _REQUIRED_INPUT.match(message) or _BAD_INPUT.match(message):
        return InvalidRequest(
            f"Dify refused an input of the app: {message}", param=f"inputs.{named['name']}", code=code
        )
    return InvalidRequest(f"Dify refused the request: {message}", code=code, started=started)


def _unavailable(message: str, code: str | None, started: bool) -> ProxyError:
    return AppUnavailable(
        "The Dify app behind this model is not ready to run. Tell its operator.",
        code=code,
        log=f"Dify cannot run the app: {message} ({code})",
        started=started,
    )


def _wrong_route(message: str, code: str | None, started: bool) -> ProxyError:
    return AppUnavailable(
        "The Dify app behind this model is not published, or is of another mode than configured. Tell its operator.",
        code=code,
        log=f"Dify refused the route: {message} ({code}). Publish the app; if settings name its mode, correct it.",
        started=started,
    )


def _not_found(message: str, code: str | None, started: bool) -> ProxyError:
    if message.startswith("Conversation Not Exists"):
        return ConversationNotFound(
            "Dify knows no such conversation for this user. Leave the id out to begin a new one.",
            param="conversation_id",
        )
    return NotFound(f"Dify found no such thing: {message}", code=code)


def _translate_status(code: str | None, status: int, message: str, started: bool) -> ProxyError:
    if status == 404:
        return _not_found(message, code, started)
    if status == 413:
        return BodyTooLarge("Dify refuses a request or file of this size.", code=code)
    if status == 415:
        return UnsupportedMediaType(f"Dify refused the type of a file: {message}", code=code)
    if status == 429:
        return RateLimited(f"Dify limits requests: {message}", code=code, started=started)
    if 400 <= status < 500:
        return _translate_param(message, code, started)
    return UpstreamFailed(f"Dify failed: {message or 'no reason given'}", code=code, started=started)


def _translate_balancer(status: int, content_type: str) -> ProxyError:
    """Something before Dify answered: HTML, or nothing at all. The run may go on behind it."""
    told = f"HTTP {status} ({content_type or 'no content type'})"
    if status in (503, 520, 521, 522, 523):
        return UpstreamUnreachable(f"Dify cannot be reached: {told}.", started=True)
    if status in (504, 524):
        return UpstreamTimeout(f"Dify did not answer in time: {told}.", started=True)
    if status == 413:
        return BodyTooLarge("A server before Dify refuses a request of this size.")
    if status == 429:
        return RateLimited("A server before Dify limits requests.")
    if status == 404:
        return UpstreamMisconfigured(
            "There is no Dify API where this server looks for it. Tell its operator.",
            log=f"The Dify URL answered {told}: is it right, and is it the API's URL?",
        )
    return UpstreamFailed(f"What stands before Dify answered {told}.", started=status >= 500)


_Rule = Callable[[str, str | None, bool], ProxyError]

_BY_WORDS: tuple[tuple[re.Pattern[str], _Rule], ...] = (
    (_BAD_FILE, _bad_file),
    (_CONTEXT, _context_too_long),
    (_QUOTA, _out_of_quota),
    (_RATE, _provider_limit),
    (_PROVIDER_AUTH, _provider_auth),
)

_BY_CODE: dict[str, _Rule] = {
    "invalid_param": _translate_param,
    "completion_request_error": _translate_model_failure,
    "rate_limit_error": _rate_limit_error,
    "provider_quota_exceeded": _out_of_quota,
    "provider_not_initialize": _unavailable,
    "model_currently_not_support": _unavailable,
    "agent_not_published": _unavailable,
    "forbidden": lambda message, code, _started: PermissionDenied(
        "Dify does not let this app be used by API. Tell its operator.", code=code, log=f"Dify answered 403: {message}"
    ),
    "not_found": _not_found,
    **dict.fromkeys(WRONG_ROUTE_CODES, _wrong_route),
}
