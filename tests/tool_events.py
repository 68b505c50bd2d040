"""Events of turns in which the model calls the client's tools."""

from __future__ import annotations

from openai_dify_proxy.events import Event, ToolCallDelta, ToolCallFinished, ToolCallStarted
from openai_dify_proxy.translate.turn_request import ToolCall

WEATHER = ToolCall("call_a", "get_weather", '{"city": "Paris"}')
TIME = ToolCall("call_b", "get_time", "{}")
PATCH = ToolCall("call_c", "apply_patch", '*** Begin\n+"x" %d', custom=True)


def events_of_call(call: ToolCall, index: int = 0, *, size: int = 5) -> list[Event]:
    """Return the events of a call, with ``size`` characters of its arguments in each delta."""
    portions = [call.arguments[at : at + size] for at in range(0, len(call.arguments), size)]
    return [
        ToolCallStarted(index, call.id, call.name, call.custom),
        *(ToolCallDelta(index, portion) for portion in portions),
        ToolCallFinished(index),
    ]


def events_of_calls(*calls: ToolCall) -> list[Event]:
    return [event for index, call in enumerate(calls) for event in events_of_call(call, index)]
