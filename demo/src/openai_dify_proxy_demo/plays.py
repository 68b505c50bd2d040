"""The order of each mode's events, in each version's dialect."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable

from openai_dify_proxy_demo.dialects import Mode
from openai_dify_proxy_demo.events import ToolCall, Usage, citations, provider_error
from openai_dify_proxy_demo.graphs import play_graph
from openai_dify_proxy_demo.produced import PRESET, QUESTION_TO_HUMAN, message_file
from openai_dify_proxy_demo.runs import Mark, ModelFailedError, Run, StoppedByUserError, StreamBreaksError, new_id
from openai_dify_proxy_demo.script import pieces_of


async def perform(run: Run) -> None:
    """Play a run to its end. Whatever happens, its reader finds an end mark."""
    mark = Mark.END
    try:
        await run.overture()
        await _PLAYS[run.app.mode](run)
    except ModelFailedError as failure:
        _end_failed(run, failure)
    except StoppedByUserError:
        _end_stopped(run)
    except StreamBreaksError as broken:
        mark = Mark.CUT if broken.cut else Mark.END
        run.finish("dropped")
    finally:
        if run.record.state == "running":
            run.finish("dropped")
            mark = Mark.CUT
        run.frames.put_nowait(mark)


def _end_failed(run: Run, failure: ModelFailedError) -> None:
    """The `error` event of a chat, completion or agent stream."""
    code, status, message = provider_error(failure.kind)
    if failure.kind == "rate" and run.dialect.rate_limit_code:
        code, status = "rate_limit_error", 429
    run.emit(run.envelope.error(code, status, message))
    run.finish("failed", answer="", status="error", error=message)


async def play_chat(run: Run) -> None:
    """Chat and completion: messages, the last one empty, and their end."""
    envelope, script = run.envelope, run.script
    if "annotation" in script.effects:
        _play_annotation(run)
        return
    async for piece in run.speak(script.pieces_with_thought()):
        run.emit(envelope.text(piece))
    run.emit(envelope.text(""))
    if "file" in script.effects:
        run.emit(message_file(run))
    if "moderate" in script.effects:
        run.emit(envelope.replace(PRESET))
    _end(run, answer=PRESET if "moderate" in script.effects else None)


async def play_agent(run: Run) -> None:
    """Agent with function calling: each step is a thought that is sent again as it grows."""
    envelope, script = run.envelope, run.script
    step, position = new_id(), 1
    files: tuple[str, ...] = ()
    first = True
    async for piece in run.speak(script.pieces_with_thought() or ("",)):
        if first:
            run.think(step, position)
            if script.effects & {"tool", "file"}:
                step, position, files = _use_tool(run, step)
            first = False
        run.emit(envelope.text(piece))
    run.emit(envelope.text(""))
    run.think(step, position, run.said, files=files)
    _end(run)


def _use_tool(run: Run, step: str) -> tuple[str, int, tuple[str, ...]]:
    envelope, draws = run.envelope, "file" in run.script.effects
    name, label = ("draw", "Draw") if draws else ("current_time", "Current Time")
    asked = ToolCall(name, label, json.dumps({name: {"prompt": "a red dot"} if draws else {}}))
    result = "image has been created" if draws else "2026-01-02 03:04:05"
    answered = ToolCall(name, label, asked.input, json.dumps({name: result}))
    for _ in range(3):
        run.emit(envelope.text(""))
    run.think(step, 1, tool=asked)
    files: tuple[str, ...] = ()
    if draws:
        file_event = message_file(run)
        run.emit(file_event)
        files = (file_event["id"],)
    run.think(step, 1, tool=answered, files=files)
    if run.message:
        run.message.used = (("assistant", ""), ("tool", result))
    second = new_id()
    run.think(second, 2)
    return second, 2, ()


async def play_new_agent(run: Run) -> None:
    """New Agent: a thought before every delta, then one message that repeats the whole answer."""
    envelope, script = run.envelope, run.script
    if run.conversation and run.conversation.waits_for_human:
        raise ModelFailedError("unanswered")
    step, position = new_id(), 1
    if "tool" in script.effects:
        step, position = _use_shell(run, step), 2
    thought = ""
    async for piece in run.speak(pieces_of(script.thought), troubled=False):
        thought += piece
        run.think(step, position, thought, answer="")
    run.said = ""
    if thought:
        step, position = new_id(), position + 1
    if "pause" in script.effects:
        _ask_human(run, step, position)
        return
    async for piece in run.speak(script.pieces):
        run.think(step, position, answer=run.said)
        run.emit(envelope.text(piece))
    if "file" in script.effects:
        run.emit(message_file(run))
    run.emit(envelope.message(run.said))
    _end(run)


def _use_shell(run: Run, step: str) -> str:
    asked = ToolCall("shell_run", "shell_run", '{"script":"date"}')
    run.think(step, 1, tool=asked)
    run.think(step, 1, tool=asked)
    run.think(step, 1, tool=ToolCall(asked.name, asked.label, asked.input, "Fri Jan 2 03:04:05 2026\n"))
    return new_id()


def _ask_human(run: Run, step: str, position: int) -> None:
    asked = ToolCall("ask_human", "ask_human", json.dumps({"question": QUESTION_TO_HUMAN}))
    run.think(step, position, tool=asked)
    run.think(step, position, tool=asked)
    run.said = QUESTION_TO_HUMAN
    run.emit(run.envelope.message(run.said))
    run.emit(run.envelope.end(Usage(), resources=[], files=[]))
    if run.conversation:
        run.conversation.waits_for_human = True
    run.finish("finished")


def _play_annotation(run: Run) -> None:
    for character in run.script.answer:
        run.said += character
        run.emit(run.envelope.text(character))
    annotation = {"id": new_id(), "account": {"id": new_id(), "name": "admin"}}
    run.emit(run.envelope.end(Usage(), resources=[], files=[], annotation=annotation))
    run.finish("finished")


def _end(run: Run, *, answer: str | None = None) -> None:
    cited = citations(source="api", dialect=run.dialect) if "cite" in run.script.effects else []
    usage = run.usage()
    run.emit(run.envelope.end(usage, resources=cited, files=[]))
    run.finish("finished", answer=answer, usage=usage)


def _end_stopped(run: Run) -> None:
    if not run.is_graph:
        run.emit(run.envelope.end(Usage(timed=not run.dialect.empty_lists), resources=[], files=[]))
    run.finish("stopped")


_PLAYS: dict[Mode, Callable[[Run], Awaitable[None]]] = {
    "chat": play_chat,
    "completion": play_chat,
    "agent-chat": play_agent,
    "agent": play_new_agent,
    "advanced-chat": play_graph,
    "workflow": play_graph,
}
