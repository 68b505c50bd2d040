"""Decodes Dify's event streams: bytes in, turn events out.

A decoder reads the stream of one turn. Its parts hold the state: the phase (``phase``), the ids (``ids``), the text
without repetitions (``answer_text``, ``dedupe``), token counts (``usage``), files and citations (``attachments``),
progress (``steps``), and whether the app has a memory (``memory``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from msgspec import ValidationError

from openai_dify_proxy.errors import ProxyError, StreamCut, UpstreamFailed
from openai_dify_proxy.events import (
    DELTAS,
    Event,
    FinishReason,
    TurnFailed,
    TurnFinished,
    Usage,
    merge_deltas,
)
from openai_dify_proxy.translate.dify.answer_text import AnswerText, ResumedText, WaitingText
from openai_dify_proxy.translate.dify.attachments import Attachments
from openai_dify_proxy.translate.dify.errors import translate_error, translate_failure
from openai_dify_proxy.translate.dify.forms import FormStyle
from openai_dify_proxy.translate.dify.ids import add_ids
from openai_dify_proxy.translate.dify.memory import NO_MEMORY, MemoryDetector
from openai_dify_proxy.translate.dify.outputs import answer_of_outputs
from openai_dify_proxy.translate.dify.pauses import NOT_PAUSED, PausedAt, PauseReader
from openai_dify_proxy.translate.dify.phase import TRANSITIONS, Phase, Signal
from openai_dify_proxy.translate.dify.sse import FrameSplitter
from openai_dify_proxy.translate.dify.steps import NO_STEPS, StepReporter
from openai_dify_proxy.translate.dify.usage import UsageCounter
from openai_dify_proxy.wire import dify
from openai_dify_proxy.wire.complexity import check_complexity
from openai_dify_proxy.wire.dify import DifyEvent, Mode, TextEvent
from openai_dify_proxy.wire.reading import UNREADABLE

MAX_EVENT_BYTES = 32 * 1024 * 1024
"""Much larger than the largest event of a real Dify (a node's inputs and outputs), and harmless to memory."""

MAX_ANSWER_CHARACTERS = 16 * 1024 * 1024
"""Characters of text and reasoning in one turn, which all stay in memory until its end."""

_UNCHECKED_EVENT_BYTES = 64 * 1024
"""Smaller events are cheap to decode, however many values they hold."""


class DifyEventDecoder:
    """Decodes the stream of one turn.

    ``mode`` is the app's mode. ``origin`` (scheme and host of Dify) completes relative links of files. ``own_key`` says
    whether the Dify key is the server's, for errors. ``progress`` enables ``StepChanged`` events. ``output_variable``
    names the workflow output with the answer; no text is emitted before that output. ``asked_before`` is an earlier
    question of the conversation, for the detection of ``remembers``. ``emulating`` enables ``FixedTextDelta``,
    ``AgentThoughtDelta``, and the outputs of a workflow in ``TurnFinished``. ``forms`` says how the form of a paused
    run reaches the client. ``paused`` is for the rest of a run that has paused.

    ``ids`` are Dify's ids so far. ``frames`` is the number of frames of the current stream, pings included;
    ``started`` is true once an event of it arrived, which pings are not. ``ending`` means that the answer is complete:
    unless the turn has ``ended``, which its last event does, a sibling event may follow shortly. ``concluded`` means
    that Dify has reported the end of the turn, or that the run is not the turn's to stop.
    """

    __slots__ = (
        "_attachments",
        "_awaits_ids",
        "_characters",
        "_emulating",
        "_finish_reason",
        "_forms",
        "_max_event_bytes",
        "_memory",
        "_mode",
        "_origin",
        "_output_variable",
        "_outputs",
        "_own_key",
        "_pause",
        "_paused",
        "_phase",
        "_resumed",
        "_splitter",
        "_steps",
        "_text",
        "_usage",
        "concluded",
        "ended",
        "ending",
        "frames",
        "ids",
        "started",
    )

    def __init__(
        self,
        mode: Mode,
        *,
        origin: str = "",
        own_key: bool = True,
        progress: bool = False,
        output_variable: str | None = None,
        asked_before: str | None = None,
        emulating: bool = False,
        forms: FormStyle = "text",
        paused: PausedAt = NOT_PAUSED,
        max_event_bytes: int = MAX_EVENT_BYTES,
    ) -> None:
        self._mode = mode
        self._origin = origin
        self._own_key = own_key
        self._output_variable = output_variable
        self._emulating = emulating
        self._forms = forms
        self._paused = paused
        self._max_event_bytes = max_event_bytes
        self._characters = 0
        self._outputs: dict[str, Any] | None = None
        self._finish_reason: FinishReason = "stop"
        self._resumed = False
        self._text = (AnswerText if paused is NOT_PAUSED else WaitingText)(separate_fixed=emulating)
        self._usage = UsageCounter(paused.usage)
        self._attachments: Attachments | None = None
        self._pause: PauseReader | None = None
        self._steps = StepReporter(enabled=True) if progress else NO_STEPS
        self._memory = NO_MEMORY if asked_before is None else MemoryDetector(asked_before)
        self.ids = paused.ids
        self._begin_stream()

    def _begin_stream(self) -> None:
        """Expect the first event of a stream."""
        self._splitter = FrameSplitter(self._max_event_bytes)
        self._awaits_ids = True  # all events are read until the last id of the app's mode is known
        self.frames = 0
        self._phase = Phase.RUNNING
        self.started = self.ending = self.ended = False
        self.concluded = self._paused.shows_form

    @property
    def usage(self) -> Usage | None:
        """Dify's token counts so far; None if it has sent none."""
        return None if self._paused.shows_form else self._usage.total  # a snapshot repeats what is counted

    @property
    def run_usage(self) -> Usage | None:
        """Dify's token counts of the whole run so far, with those before a pause."""
        return self._usage.run_total

    @property
    def remembers(self) -> bool | None:
        """Whether a model of a chatflow was shown ``asked_before``; None until one has answered."""
        return self._memory.remembers

    def feed(self, data: bytes) -> list[Event]:
        """Return the events that ``data`` completes; the last one of a turn is ``TurnFinished`` or ``TurnFailed``.

        Adjacent deltas of the same kind are merged: a client that reads late gets few chunks instead of many.
        """
        out: list[Event] = []
        if not self.ended:
            try:
                payloads = self._splitter.feed(data)
                self.frames = self._splitter.frames
                self._read_payloads(payloads, out)
                if self._splitter.too_large and not self.ended:
                    self._end_unreadable("Dify sent an event that is too large.", out)
            except UNREADABLE:
                self._end_unreadable("Dify sent an event that cannot be read.", out)
        deltas = 0
        for event in out:
            if isinstance(event, DELTAS):
                self._characters += len(event.text)
                deltas += 1
        if deltas > 1:
            out = merge_deltas(out)
        if self._characters > MAX_ANSWER_CHARACTERS and not self.ended:
            self._end_unreadable(f"Dify's answer is longer than {MAX_ANSWER_CHARACTERS} characters.", out)
        return out

    def finish(self) -> list[Event]:
        """Return the last events after the end of the stream, or after the wait for the sibling event."""
        out: list[Event] = []
        if not self.ended:
            self._advance("stream_end", out, _broken_off())
        return out

    @property
    def resumable(self) -> bool:
        """Whether another stream of the same run can complete the text."""
        return self.ids.workflow_run_id is not None and not self._text.lost

    def resume(self) -> None:
        """Read on in another stream of the same run, after the first one broke off.

        It begins with a snapshot of the run. The rest of the text is that of the run's outputs. The turn fails if they
        do not continue the text so far.
        """
        self._begin_stream()
        if not self._paused.shows_form:  # else the snapshot has all that the turn shows
            self._resumed = True
            self._text = ResumedText.after(self._text)

    def _end_unreadable(self, message: str, out: list[Event]) -> None:
        self._advance("stream_end", out, UpstreamFailed(message, started=True))

    def _read_payloads(self, payloads: Sequence[bytes], out: list[Event]) -> None:
        """Decode events up to the end of the turn. This is the hot loop; rare events have handlers."""
        events = _decode_many(payloads) if len(payloads) > 1 else None
        if events is not None:
            self._read_many(events, payloads, out)
            return
        for payload in payloads:
            if payload and not self.ended:
                try:
                    event: TextEvent = dify.TEXT_EVENT.decode(payload)
                except ValidationError as error:
                    event = _without_fields(payload, error)
                self._read_event(event, payload, out)

    def _read_many(self, events: Sequence[TextEvent], payloads: Sequence[bytes], out: list[Event]) -> None:
        """Read ``events``. Consecutive pieces of text from the same variable are read as one."""
        texts: list[str] = []
        selector: Sequence[str] | None = None
        joins = self._text.joins and not self._awaits_ids
        for event, payload in zip(events, payloads, strict=True):
            joined = joins and event.event == "message" and event.answer is not None
            if texts and not (joined and event.from_variable_selector == selector):
                self._text.add(selector, "".join(texts), out)
                texts = []
            if joined:
                selector = event.from_variable_selector
                if event.answer:
                    texts.append(event.answer)
                continue
            self._read_event(event, payload, out)
            if self.ended:
                return
            joins = self._text.joins and not self._awaits_ids
        if texts:
            self._text.add(selector, "".join(texts), out)

    def _read_event(self, event: TextEvent, payload: bytes, out: list[Event]) -> None:
        name, answer = event.event, event.answer
        if self._awaits_ids:
            self._read_ids(_decode(payload))
            if name == "workflow_started" and not self._paused.shows_form:
                self._begin_rest()
        if answer is not None and name in _TEXT_EVENTS:
            text = self._text
            if name != "message" or text.agent_streams:
                answer = text.missing_from_agent(name, answer)
            if answer:
                text.add(event.from_variable_selector, answer, out)
        elif (handler := _HANDLERS.get(name)) is not None:
            handler(self, _decode(payload), out)

    def _read_ids(self, event: DifyEvent) -> None:
        self.ids = ids = add_ids(self.ids, event)
        self.started = True
        self._awaits_ids = (ids.workflow_run_id if self._mode == "workflow" else ids.message_id) is None

    def _begin_rest(self) -> AnswerText:
        """Return the text of a run whose events all follow, from its first one on."""
        if isinstance(self._text, WaitingText):
            self._text = AnswerText(separate_fixed=self._emulating)
        return self._text

    # Text

    def _on_message_replace(self, event: DifyEvent, out: list[Event]) -> None:
        """Apply a replacement. Old versions of Dify give no reason; in these, only moderation replaces text."""
        self._text.replace(event.answer or "", event.reason != "", out)

    def _on_text_chunk(self, event: DifyEvent, out: list[Event]) -> None:
        chunk = dify.TEXT_CHUNK.decode(event.data)
        if (text := chunk.text) and self._output_variable is None:
            self._text.add(chunk.from_variable_selector, text, out)

    def _on_reasoning_chunk(self, event: DifyEvent, out: list[Event]) -> None:
        self._text.add_reasoning(dify.REASONING_CHUNK.decode(event.data).reasoning or "", out)

    def _on_agent_thought(self, event: DifyEvent, out: list[Event]) -> None:
        """Omit the thoughts of ``agent-chat`` apps, which repeat the text; those of ``agent`` apps are reasoning."""
        self._text.add_thought(event.id or "", event.thought or "", self._mode == "agent", out)
        self._steps.read_thought(event, out)

    # Files and nodes

    def _attached(self) -> Attachments:
        """Return the files and passages, which few turns have."""
        if self._attachments is None:
            self._attachments = Attachments(self._origin)
        return self._attachments

    def _on_message_file(self, event: DifyEvent, _out: list[Event]) -> None:
        if event.url and event.belongs_to != "user":
            self._attached().add_file(dify.FileData(url=event.url, type=event.type))

    def _on_agent_log(self, event: DifyEvent, out: list[Event]) -> None:
        self._steps.read_log(event, out)

    def _on_node_started(self, event: DifyEvent, out: list[Event]) -> None:
        if self._steps.enabled:
            self._steps.read_node(event.event, dify.NODE.decode(event.data), out)

    def _on_node_retry(self, event: DifyEvent, out: list[Event]) -> None:
        node = dify.NODE.decode(event.data)
        self._text.begin_retry(node.node_id or "")
        self._steps.read_node(event.event, node, out)

    def _on_node_finished(self, event: DifyEvent, out: list[Event]) -> None:
        node = dify.NODE.decode(event.data)
        self._text.end_attempt(node.node_id or "")
        if node.files:
            with suppress(ValidationError):  # they only add details to links in the text
                self._attached().add_files_of_node(dify.FILES.decode(node.files))
        if node.outputs and node.node_type == "llm":
            self._read_llm_node(node)
        elif node.outputs and node.node_type == "knowledge-retrieval":
            retrieved = dify.RETRIEVAL_OUTPUTS.decode(node.outputs) or dify.RetrievalOutputs()
            self._attached().add_retrieved(retrieved.result or [])
        if self._steps.enabled:
            self._steps.read_node(event.event, node, out)

    def _read_llm_node(self, node: dify.NodeData) -> None:
        if node.process_data:
            self._memory.read(node)
        outputs = dify.LLM_OUTPUTS.decode(node.outputs) or dify.LlmOutputs()
        if outputs.usage is not None:
            self._usage.add_node(outputs.usage)
        self._finish_reason = "length" if outputs.finish_reason == "length" else "stop"

    # Ends

    def _on_message_end(self, event: DifyEvent, out: list[Event]) -> None:
        if event.metadata:
            metadata = dify.MESSAGE_END_METADATA.decode(event.metadata) or dify.MessageEndMetadata()
            if metadata.usage is not None:
                self._usage.read_message_end(metadata.usage)
            if metadata.retriever_resources:
                self._attached().cite(metadata.retriever_resources, out)
        if event.files and (files := dify.FILES.decode(event.files)):
            self._attached().add_files(files)
        if not self._resumed:  # else the text comes with ``workflow_finished``
            self._advance("message_end", out)

    def _on_workflow_finished(self, event: DifyEvent, out: list[Event]) -> None:
        self._read_ids(event)
        run = dify.WORKFLOW_FINISHED.decode(event.data)
        if run.status in _SUCCEEDED:
            self._read_outputs(run, out)
            self._succeed("run_succeeded", out)
        else:
            self._advance("run_failed", out, translate_failure(run.error or ""))

    def _read_outputs(self, run: dify.WorkflowFinishedData, out: list[Event]) -> None:
        self._usage.read_run_total(run.total_tokens, complete=run.status != "stopped")
        is_chatflow = self._mode == "advanced-chat"
        if self._emulating and not is_chatflow:
            self._outputs = run.outputs
        answer = answer_of_outputs(run.outputs or {}, "answer" if is_chatflow else self._output_variable)
        before = self._paused.characters if is_chatflow else 0
        self._text.settle(answer[before:], out, is_whole=is_chatflow)
        if run.files:
            self._attached().add_files(run.files)

    def _on_workflow_paused(self, event: DifyEvent, out: list[Event]) -> None:
        self._pause = PauseReader(self._forms, self._paused)
        if self._resumed:
            answer = self._pause.answer(event)
            if answer is None:  # the event is live: only a snapshot, and no event of a workflow, has the text before it
                self._text.lost = self._mode == "workflow"
                self._advance("stream_end", out, _broken_off())
                return
            self._text.settle(answer, out, is_whole=True)
        self._pause.read(event, self._begin_rest(), out)
        self._succeed("run_paused", out)

    def _succeed(self, signal: Signal, out: list[Event]) -> None:
        if self._text.lost:
            self._advance("stream_end", out, _broken_off())
        else:
            self._advance(signal, out)

    def _on_error(self, event: DifyEvent, out: list[Event]) -> None:
        code = event.code if isinstance(event.code, str) else None
        status = event.status if isinstance(event.status, int) else 500
        error = translate_error(code, status, event.message or "", own_key=self._own_key, started=True)
        self._advance("error", out, error)

    def _advance(self, signal: Signal, out: list[Event], error: ProxyError | None = None) -> None:
        """Enter the next phase. At the end emit the turn's last event, with ``error`` if the turn failed."""
        self._phase = phase = TRANSITIONS[self._mode][self._phase][signal]
        self.ending, self.ended = phase.ending, phase.ended
        self.concluded = phase.concluded or self._paused.shows_form
        if phase is Phase.FINISHED:
            text, attachments = self._text, self._attachments
            text.close(out)
            if attachments is not None:
                attachments.finish(str(text) if attachments.has_files else "", out)
            reason: FinishReason = "content_filter" if text.moderated else self._finish_reason
            form = None
            if self._pause is not None:
                reason, form = self._pause.finish(reason, out), self._pause.form
            out.append(TurnFinished(reason, self.usage, text.final, outputs=self._outputs, human_input=form))
        elif error is not None and phase.ended:
            self._text.close(out)
            out.append(TurnFailed(error))


def _broken_off() -> StreamCut:
    return StreamCut("Dify's stream broke off before the answer was complete.", started=True)


_TEXT_EVENTS = frozenset({"message", "agent_message", "message_file"})
"""``message_file`` carries the answer's text in 1.11 whenever the user's message has a file."""

_SUCCEEDED = frozenset({"succeeded", "partial-succeeded", "stopped"})

_Handler = Callable[[DifyEventDecoder, DifyEvent, list[Event]], None]

_HANDLERS: dict[str, _Handler] = {
    "message_replace": DifyEventDecoder._on_message_replace,
    "message_file": DifyEventDecoder._on_message_file,
    "message_end": DifyEventDecoder._on_message_end,
    "text_chunk": DifyEventDecoder._on_text_chunk,
    "reasoning_chunk": DifyEventDecoder._on_reasoning_chunk,
    "agent_thought": DifyEventDecoder._on_agent_thought,
    "agent_log": DifyEventDecoder._on_agent_log,
    "node_started": DifyEventDecoder._on_node_started,
    "node_finished": DifyEventDecoder._on_node_finished,
    "node_retry": DifyEventDecoder._on_node_retry,
    "workflow_finished": DifyEventDecoder._on_workflow_finished,
    "workflow_paused": DifyEventDecoder._on_workflow_paused,
    "error": DifyEventDecoder._on_error,
}
"""Handlers of the non-text events that matter to a client. All others, such as those of later versions, are ignored."""


def _decode_many(payloads: Sequence[bytes]) -> list[TextEvent] | None:
    """Decode all payloads at once, which takes half the time; None if they have to be decoded one by one."""
    try:
        events = dify.TEXT_EVENTS.decode(b"[%b]" % b",".join(payloads))
    except UNREADABLE:
        return None
    return events if len(events) == len(payloads) else None


def _decode(payload: bytes) -> DifyEvent:
    """Decode an event with all its fields. Raises ``UNREADABLE``."""
    if len(payload) > _UNCHECKED_EVENT_BYTES:
        check_complexity(payload)
    try:
        return dify.EVENT.decode(payload)
    except ValidationError as error:
        return _without_fields(payload, error)


def _without_fields(payload: bytes, error: ValidationError) -> DifyEvent:
    """Return an event with a field of an unexpected type, which only ignored events may have. Raises ``UNREADABLE``."""
    name = dify.EVENT_NAME.decode(payload).event
    if name in _HANDLERS or name in _TEXT_EVENTS:
        raise error
    return DifyEvent(name)
