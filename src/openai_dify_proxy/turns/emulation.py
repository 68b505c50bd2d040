"""Emulates the client's tools and schemas on Dify apps, which have neither."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from functools import lru_cache, partial
from hashlib import sha256
from secrets import token_hex

from msgspec import Struct, structs

from openai_dify_proxy.errors import InvalidRequest
from openai_dify_proxy.settings import Settings
from openai_dify_proxy.tools.instructions import demand, full_instructions, reminder
from openai_dify_proxy.tools.output_checks import check_output_request
from openai_dify_proxy.tools.output_reader import OutputReader
from openai_dify_proxy.translate.dify.app_profile import AppProfile
from openai_dify_proxy.translate.dify.instructions import Instructions
from openai_dify_proxy.translate.turn_request import AnswerFormat, OutputRequest, ToolChoice, TurnRequest
from openai_dify_proxy.turns.apps import App

MAX_CACHED_SIZE = 32 * 1024
"""Bytes of descriptions and schemas whose instructions are cached, since writing them takes longer than the turn."""

MAX_FITTING = 1000
"""Workflows and schemas that are remembered to fit."""


class Emulation(Struct, frozen=True):
    """The emulated tools and format of one turn. ``instructions`` is None if the model need not be told."""

    reader: OutputReader
    instructions: Instructions | None


class Emulator:
    """Decides for each turn whether its tools and its format are emulated."""

    def __init__(self, settings: Settings) -> None:
        self.remind_after = settings.tools_reminder
        self._max_repairs = settings.tools_max_repairs
        self._template = settings.tools_template
        self._fitting: OrderedDict[tuple[str, str, bytes], None] = OrderedDict()

    def emulate(self, app: App, profile: AppProfile, request: TurnRequest, *, streamed: bool) -> Emulation | None:
        """Return the emulation of the request's tools and format; None if it has none, or if the app ignores them.

        ``streamed`` says whether the client receives events before the end. Raises InvalidRequest for invalid tools and
        schemas, for those that the app rejects, and for a required tool that the app ignores.
        """
        output = request.output
        if output is None:
            return None
        if app.tools == "reject":
            raise _rejected(output)
        if app.tools == "ignore" or not _takes_text(app, profile):
            if output.choice.mode == "required":
                raise _never_called(output.choice.param)
            return None
        check_output_request(output)
        reader = OutputReader(
            output,
            streamed=streamed,
            new_id=_new_call_id,
            max_repairs=self._max_repairs,
            on_fitting_outputs=partial(self._remember_outputs, _fitting_key(app, output)),
        )
        return Emulation(reader, self._instructions(app, profile, output))

    def ignored(self, app: App, profile: AppProfile | None, output: OutputRequest | None) -> Sequence[str]:
        """Return the parameters of ``output`` that have no effect; ``profile`` is None if it is not known yet."""
        if output is None or not (app.tools == "ignore" or (profile is not None and not _takes_text(app, profile))):
            return ()
        names = ["functions" if output.legacy else "tools"] if output.tools else []
        if output.answer_format is not None:
            names.append(_format_param(output.answer_format))
        return names

    def _remember_outputs(self, key: tuple[str, str, bytes]) -> None:
        """Remember that the outputs of a workflow fit the schema: its model need not be told about it."""
        self._fitting[key] = None
        if len(self._fitting) > MAX_FITTING:
            self._fitting.popitem(last=False)

    def _take_fitting(self, key: tuple[str, str, bytes]) -> bool:
        """Return whether the outputs fitted last time. Only a turn whose outputs fit again is remembered again."""
        known = key in self._fitting
        self._fitting.pop(key, None)
        return known

    def _instructions(self, app: App, profile: AppProfile, output: OutputRequest) -> Instructions | None:
        if profile.mode == "workflow" and not output.tools and self._take_fitting(_fitting_key(app, output)):
            return None
        write = _write_instructions if output_size(output) <= MAX_CACHED_SIZE else _write_instructions.__wrapped__
        return write(output, self._template)


@lru_cache(maxsize=128)
def _write_instructions(output: OutputRequest, template: str) -> Instructions:
    plain = structs.replace(output, choice=ToolChoice(param=output.choice.param), parallel=True)
    full = full_instructions(output, template)
    identity = full if plain == output else full_instructions(plain, template)
    return Instructions(full, reminder(output), demand(output), identity)


def output_size(output: OutputRequest) -> int:
    """Return the number of bytes of the descriptions and schemas."""
    schema = output.answer_format.schema if output.answer_format is not None else None
    return len(schema or b"") + sum(len(tool.description) + len(tool.parameters or b"") for tool in output.tools)


def _takes_text(app: App, profile: AppProfile) -> bool:
    """Return whether a text of the client reaches the model: a workflow may have no input for it."""
    return profile.mode != "workflow" or profile.question_input(app.rules.input_variable) is not None


def _fitting_key(app: App, output: OutputRequest) -> tuple[str, str, bytes]:
    """Return the app and a hash of the schema, which may be large."""
    schema = output.answer_format.schema if output.answer_format is not None else None
    return app.dify.url, app.dify.key, sha256(schema or b"").digest()


def _new_call_id() -> str:
    return f"call_{token_hex(12)}"


def _rejected(output: OutputRequest) -> InvalidRequest:
    param = "tools" if output.answer_format is None else _format_param(output.answer_format)
    return InvalidRequest(
        f"Unsupported parameter: '{param}'. This model takes no tools and no response formats. Omit '{param}', or "
        "choose another model.",
        param=param,
        code="unsupported_parameter",
    )


def _format_param(answer_format: AnswerFormat) -> str:
    """Return the field that holds the format: ``response_format`` in chats, ``text.format`` in responses."""
    return "response_format" if answer_format.param.startswith("response_format") else "text.format"


def _never_called(param: str) -> InvalidRequest:
    return InvalidRequest(
        f"Unsupported value: '{param}' requires a tool call, and this model calls no tools. Omit '{param}', or set it "
        "to 'auto' or 'none'.",
        param=param,
        code="unsupported_parameter",
    )
