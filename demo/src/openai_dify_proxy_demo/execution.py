"""Runs of each app mode: which events they emit, and in which order."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from openai_dify_proxy_demo.dialects import Mode
from openai_dify_proxy_demo.events import ToolCall, Usage, citations, provider_error
from openai_dify_proxy_demo.graphs import run_graph
from openai_dify_proxy_demo.output_files import OutputFiles
from openai_dify_proxy_demo.runs import Mark, ModelFailedError, Run, StoppedByUserError, StreamBreaksError, new_id
from openai_dify_proxy_demo.script import HUMAN_INPUT_QUESTION, PRESET_ANSWER, pieces_of


async def execute(run: Run, rest: Awaitable[None] | None = None) -> None:
    """Execute a run, or the rest of a paused one. The last item of its queue is always Mark.END or Mark.CUT."""
    mark = Mark.END
    try:
        if rest is not None:
            await rest
        else:
            await run.delay_first_event()
            await _RUNNERS[run.app.mode](run)
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
        run.end_streams(mark)


def _end_failed(run: Run, failure: ModelFailedError) -> None:
    """Emit the `error` event of a chat, completion or agent run."""
    code, status, message = provider_error(failure.kind)
    if failure.kind == "rate" and run.dialect.rate_limit_code:
        code, status = "rate_limit_error", 429
    run.emit(run.envelope.error(code, status, message))
    run.finish("failed", answer="", status="error", error=message)


async def _run_chat(run: Run) -> None:
    """Run a chat or completion app: `message` events, the last one empty, then `message_end`."""
    envelope, script = run.envelope, run.script
    if "annotation" in script.effects:
        _send_annotation(run)
        return
    async for piece in run.stream_pieces(script.pieces_with_thought()):
        run.emit(envelope.text(piece))
    drawn = await _send_files(run, script.drawn)
    run.emit(envelope.text(""))
    made = await _send_files(run, script.made)
    if "moderate" in script.effects:
        run.emit(envelope.replace(PRESET_ANSWER))
    _end(run, answer=PRESET_ANSWER if "moderate" in script.effects else None, files=drawn + made)


async def _send_files(run: Run, all_words: tuple[tuple[str, ...], ...]) -> list[dict[str, Any]]:
    """Emit a `message_file` event for each file, and return the entries of `message_end`, which has them since 1.16."""
    output, entries = OutputFiles(run), []
    for made in await output.draw(all_words):
        event = output.message_file(made)
        run.emit(event)
        entries.append(output.end_item(event, made))
    return entries if run.dialect.empty_lists else []


async def _run_agent(run: Run) -> None:
    """Run a function-calling agent: each step is an `agent_thought` that is sent again as it grows."""
    envelope, script = run.envelope, run.script
    step, position = new_id(), 1
    entries: list[dict[str, Any]] = []
    first = True
    async for piece in run.stream_pieces(script.pieces_with_thought() or ("",)):
        if first:
            run.emit_thought(step, position)
            if script.drawn or script.effects & {"tool", "file"}:
                step, position, entries = await _call_tool(run, step)
            first = False
        run.emit(envelope.text(piece))
    run.emit(envelope.text(""))
    run.emit_thought(step, position, run.text)
    _end(run, files=entries)


async def _call_tool(run: Run, step: str) -> tuple[str, int, list[dict[str, Any]]]:
    """Call the tool that makes files, or the clock. Return the next step, its position, and the files."""
    envelope, makes_picture = run.envelope, bool(run.script.drawn or run.script.made)
    name, label = ("draw", "Draw") if makes_picture else ("current_time", "Current Time")
    call = ToolCall(name, label, json.dumps({name: {"prompt": "a red dot"} if makes_picture else {}}))
    result = "image has been created" if makes_picture else "2026-01-02 03:04:05"
    completed_call = ToolCall(name, label, call.input, json.dumps({name: result}))
    for _ in range(3):
        run.emit(envelope.text(""))
    run.emit_thought(step, 1, tool=call)
    entries = await _send_files(run, run.script.drawn + run.script.made)
    run.emit_thought(step, 1, tool=completed_call, files=tuple(entry["related_id"] for entry in entries))
    if run.message:
        run.message.tool_messages = (("assistant", ""), ("tool", result))
    next_step = new_id()
    run.emit_thought(next_step, 2)
    return next_step, 2, entries


async def _run_new_agent(run: Run) -> None:
    """Run a New Agent: a thought before every delta, then one `message` that repeats the whole answer."""
    envelope, script = run.envelope, run.script
    if run.conversation and run.conversation.awaits_human_input:
        raise ModelFailedError("unanswered")
    step, position = new_id(), 1
    if "tool" in script.effects:
        step, position = _call_shell(run, step), 2
    thought = ""
    async for piece in run.stream_pieces(pieces_of(script.thought), interruptible=False):
        thought += piece
        run.emit_thought(step, position, thought, answer="")
    run.text = ""
    if thought:
        step, position = new_id(), position + 1
    if "pause" in script.effects:
        _ask_human(run, step, position)
        return
    async for piece in run.stream_pieces(script.pieces):
        run.emit_thought(step, position, answer=run.text)
        run.emit(envelope.text(piece))
    entries = await _send_files(run, script.drawn + script.made)
    run.emit(envelope.message(run.text))
    _end(run, files=entries)


def _call_shell(run: Run, step: str) -> str:
    call = ToolCall("shell_run", "shell_run", '{"script":"date"}')
    run.emit_thought(step, 1, tool=call)
    run.emit_thought(step, 1, tool=call)
    run.emit_thought(step, 1, tool=ToolCall(call.name, call.label, call.input, "Fri Jan 2 03:04:05 2026\n"))
    return new_id()


def _ask_human(run: Run, step: str, position: int) -> None:
    call = ToolCall("ask_human", "ask_human", json.dumps({"question": HUMAN_INPUT_QUESTION}))
    run.emit_thought(step, position, tool=call)
    run.emit_thought(step, position, tool=call)
    run.text = HUMAN_INPUT_QUESTION
    run.emit(run.envelope.message(run.text))
    run.emit(run.envelope.end(Usage(), resources=[], files=[]))
    if run.conversation:
        run.conversation.awaits_human_input = True
    run.finish("finished")


def _send_annotation(run: Run) -> None:
    for character in run.script.answer:
        run.text += character
        run.emit(run.envelope.text(character))
    annotation = {"id": new_id(), "account": {"id": new_id(), "name": "admin"}}
    run.emit(run.envelope.end(Usage(), resources=[], files=[], annotation=annotation))
    run.finish("finished")


def _end(run: Run, *, answer: str | None = None, files: Sequence[dict[str, Any]] = ()) -> None:
    cited = citations(source="api", dialect=run.dialect) if "cite" in run.script.effects else []
    usage = run.usage()
    run.emit(run.envelope.end(usage, resources=cited, files=list(files)))
    run.finish("finished", answer=answer, usage=usage)


def _end_stopped(run: Run) -> None:
    if not run.is_graph:
        run.emit(run.envelope.end(Usage(timed=not run.dialect.empty_lists), resources=[], files=[]))
    run.finish("stopped")


_RUNNERS: dict[Mode, Callable[[Run], Awaitable[None]]] = {
    "chat": _run_chat,
    "completion": _run_chat,
    "agent-chat": _run_agent,
    "agent": _run_new_agent,
    "advanced-chat": run_graph,
    "workflow": run_graph,
}
