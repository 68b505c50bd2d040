"""Dify's event streams, decoded: bytes in, turn events out.

One decoder reads the stream of one turn. It holds what a stream cannot be understood without: which text was said
already (Dify repeats it after a node's retry and at the end of an agent's turn), which terminal events came
(``message_end`` and ``workflow_finished`` in either order, one of them sometimes never), and the tokens that nodes
told one by one. After the first terminal event ``ending`` is true and the caller waits only a little for its
sibling; ``ended`` is true once the last event was given. At the stream's end, or when waiting is over, ``finish``
gives the last event.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import Raw, ValidationError

from openai_dify_proxy.errors import StreamCut, UpstreamFailed
from openai_dify_proxy.events import (
    Citations,
    Event,
    FileProduced,
    FinishReason,
    StepChanged,
    TextDelta,
    TextReplaced,
    TurnFailed,
    TurnFinished,
    TurnIds,
    Usage,
)
from openai_dify_proxy.translate.dify.dedupe import Said
from openai_dify_proxy.translate.dify.errors import translate_error, translate_failure
from openai_dify_proxy.translate.dify.outputs import answer_of_outputs
from openai_dify_proxy.translate.dify.parts import (
    add_usage,
    form_text,
    path_of,
    read_citation,
    read_passage,
    read_usage,
)
from openai_dify_proxy.translate.dify.sse import FrameSplitter
from openai_dify_proxy.translate.history import fold_text
from openai_dify_proxy.translate.think import ThinkSplitter, without_thinking
from openai_dify_proxy.wire import dify
from openai_dify_proxy.wire.dify import DifyEvent, Mode, TextEvent
from openai_dify_proxy.wire.reading import UNREADABLE

MAX_EVENT_BYTES = 32 * 1024 * 1024
"""Far above the largest event of a real Dify (a node's inputs and outputs), far below what would hurt."""


class DifyEventDecoder:
    """Decodes one turn's stream.

    ``mode`` is the app's. ``origin`` (scheme and host of Dify) completes the relative links of files. ``own_key``
    tells whose Dify key was used, for errors. ``progress`` asks for ``StepChanged`` events. ``output_variable`` names
    the output of a workflow that is its answer: then nothing is said until that output is there. ``asked_before`` is
    an earlier question of the same conversation: ``remembers`` then tells whether any model of a chatflow was shown
    it, and stays None until one has answered.
    """

    def __init__(
        self,
        mode: Mode,
        *,
        origin: str = "",
        own_key: bool = True,
        progress: bool = False,
        output_variable: str | None = None,
        asked_before: str | None = None,
        max_event_bytes: int = MAX_EVENT_BYTES,
    ) -> None:
        self.ids = TurnIds()
        self.ending = False
        self.ended = False
        self.concluded = False
        self.said_something = False
        self.remembers: bool | None = None
        self._asked_before = asked_before
        self._learning = True
        self._mode = mode
        self._origin = origin
        self._own_key = own_key
        self._progress = progress
        self._output_variable = output_variable
        self._frames = FrameSplitter(max_event_bytes)
        self._think = ThinkSplitter()
        self._said = Said()
        self._thoughts: dict[str, str] = {}
        self._steps: dict[str, str] = {}
        self._files: dict[str, dify.FileData] = {}
        self._usage: Usage | None = None
        self._node_usage: Usage | None = None
        self._passages: list[dict[str, Any]] = []
        self._cited = False
        self._reason: FinishReason = "stop"
        self._answer: str | None = None
        self._moderated = False
        self._message_ended = False
        self._run_ended = False

    @property
    def frames(self) -> int:
        """How many frames came, pings included."""
        return self._frames.frames

    def feed(self, data: bytes) -> list[Event]:
        """The events that ``data`` completes; the last one of a turn is ``TurnFinished`` or ``TurnFailed``."""
        out: list[Event] = []
        if not self.ended:
            try:
                self._read_all(data, out)
            except UNREADABLE:
                self._give_up("Dify sent an event that cannot be read.", out)
        return out

    def finish(self) -> list[Event]:
        """The turn's last events, when the stream ended or its sibling terminal event did not come in time."""
        out: list[Event] = []
        if self.ended:
            return out
        if self.ending:
            self._end(out)
        else:
            self._fail(StreamCut("Dify's stream broke off before the answer was complete.", started=True), out)
        return out

    def _give_up(self, message: str, out: list[Event]) -> None:
        if self.ending:  # the answer was whole before the garbage
            self._end(out)
        else:
            self._fail(UpstreamFailed(message, started=True), out)

    def _read_all(self, data: bytes, out: list[Event]) -> None:
        """The loop that runs for every event: what is rare is done elsewhere."""
        decode = dify.TEXT_EVENT.decode
        for payload in self._frames.feed(data):
            if not payload:
                continue
            try:
                event = decode(payload)
            except ValidationError:
                event = _skim(payload)
            if self._learning:
                self._learn_ids(_read(payload))
            if event.answer is not None and event.event in _TEXT_EVENTS:
                if text := event.answer if event.event == "message" and not self._said.by_agent else self._news(event):
                    selector = event.from_variable_selector
                    self._speak(selector[0] if selector else "", text, out)
            elif (handler := _HANDLERS.get(event.event)) is not None:
                handler(self, dify.EVENT.decode(payload), out)
                if self.ended:  # what comes after the end is not even looked at
                    return
        if self._frames.too_large:
            self._give_up("Dify sent an event that is too large.", out)

    def _learn_ids(self, event: DifyEvent) -> None:
        self.said_something = True
        known = self.ids
        self.ids = TurnIds(
            known.task_id or event.task_id,
            known.message_id or event.message_id,
            known.conversation_id or event.conversation_id,
            known.workflow_run_id or event.workflow_run_id,
        )
        self._learning = (self.ids.workflow_run_id if self._mode == "workflow" else self.ids.message_id) is None

    # Text

    def _news(self, event: TextEvent) -> str:
        """What an event's text adds to an agent's, which its closing ``message`` repeats."""
        text = event.answer or ""
        if event.event == "message":
            return self._said.missing_from_agent(text)
        self._said.by_agent = self._said.by_agent or event.event == "agent_message"
        return text

    def _speak(self, node: str, text: str, out: list[Event]) -> None:
        news = self._said.add(node, text)
        if news is None:
            self._say_anew(self._said.text(), False, out)
        elif not news:
            return
        elif self._think.idle and "<" not in news:
            out.append(TextDelta(news))
        else:
            self._think.feed(news, out)

    def _say_anew(self, text: str, moderated: bool, out: list[Event]) -> None:
        """``text`` stands for all that was said; it may end inside a block of thinking that goes on."""
        self._think = ThinkSplitter()
        parts: list[Event] = []
        self._think.feed(text, parts)
        out.append(TextReplaced("".join(part.text for part in parts if isinstance(part, TextDelta)), moderated))

    def _on_message_replace(self, event: DifyEvent, out: list[Event]) -> None:
        moderated = event.reason != ""  # old versions give no reason: in them only a moderation replaces
        self._moderated = self._moderated or moderated
        if moderated:
            self._reason = "content_filter"
        self._answer = None
        text = event.answer or ""
        self._said.restart(text)
        self._say_anew(text, moderated, out)

    def _on_text_chunk(self, event: DifyEvent, out: list[Event]) -> None:
        chunk = dify.TEXT_CHUNK.decode(event.data)
        if chunk.text and self._output_variable is None:
            self._speak(chunk.from_variable_selector[0] if chunk.from_variable_selector else "", chunk.text, out)

    def _on_reasoning_chunk(self, event: DifyEvent, out: list[Event]) -> None:
        self._think.reason(dify.REASONING_CHUNK.decode(event.data).reasoning or "", out)

    def _on_agent_thought(self, event: DifyEvent, out: list[Event]) -> None:
        """Sent several times as it grows, under one id.

        An ``agent-chat`` app's thoughts repeat its text and are left out; an ``agent`` app's are its reasoning.
        """
        key = event.id or ""
        known = self._thoughts.get(key)
        if known is None:
            self._said.begin_agent_segment()
        thought = event.thought or ""
        if self._mode == "agent" and thought.startswith(known or "") and len(thought) > len(known or ""):
            news = thought[len(known or "") :]
            self._think.reason(news, out)
        if self._progress and event.tool:
            self._step(f"{key}:{event.tool}", event.tool, "succeeded" if event.observation else "started", out)
        self._thoughts[key] = thought

    # Files, citations, progress

    def _on_message_file(self, event: DifyEvent, _out: list[Event]) -> None:
        if event.url and event.belongs_to != "user":
            self._produce(dify.FileData(url=event.url, type=event.type))

    def _produce_all(self, files: list[dify.FileData] | None) -> None:
        for file in files or []:
            if file.transfer_method in (None, "tool_file"):
                self._produce(file)

    def _produce(self, file: dify.FileData) -> None:
        """Kept for the end, when all text is there: what it links to already needs no link of its own.

        A file is signed anew each time it is named, so its path tells whether it is known.
        """
        link = file.url or file.remote_url
        if link:
            self._files.setdefault(path_of(link), file)

    def _give_files(self, out: list[Event]) -> None:
        text = self._said.text() if self._files else ""
        for path, file in self._files.items():
            link = file.url or file.remote_url or ""
            url = self._origin + link if link.startswith("/") else link
            kind = file.type or "custom"
            out.append(FileProduced(url, kind, file.filename, file.mime_type, file.size, linked=path in text))

    def _cite(self, passages: list[dict[str, Any]], out: list[Event]) -> None:
        if passages and not self._cited:
            self._cited = True
            out.append(Citations(tuple(read_citation(passage) for passage in passages)))

    def _step(self, key: str, title: str, state: str, out: list[Event]) -> None:
        if self._steps.get(key) != state:
            self._steps[key] = state
            out.append(StepChanged(title, _STEP_STATES.get(state, "started")))

    def _on_node(self, event: DifyEvent, out: list[Event]) -> None:
        node = dify.NODE.decode(event.data)
        if event.event == "node_retry":
            self._said.begin_retry(node.node_id or "")
        elif event.event == "node_finished":
            self._said.end_attempt(node.node_id or "")
            self._read_outputs(node)
        if self._progress and node.title and node.node_type not in _SILENT_NODES:
            state = {"node_started": "started", "node_retry": "retry"}.get(event.event, node.status or "succeeded")
            out.append(StepChanged(node.title, _STEP_STATES.get(state, "started")))

    def _read_outputs(self, node: dify.NodeData) -> None:
        if not node.outputs:
            return
        if node.node_type == "llm":
            if self._asked_before is not None and node.process_data and not node.process_data_truncated:
                self._note_memory(node.process_data, self._asked_before)
            outputs = dify.LLM_OUTPUTS.decode(node.outputs) or dify.LlmOutputs()
            if outputs.usage is not None:
                self._node_usage = add_usage(self._node_usage, read_usage(outputs.usage))
            if self._reason != "content_filter":
                self._reason = "length" if outputs.finish_reason == "length" else "stop"
        elif node.node_type == "knowledge-retrieval":
            retrieved = dify.RETRIEVAL_OUTPUTS.decode(node.outputs) or dify.RetrievalOutputs()
            self._passages += [read_passage(item) for item in retrieved.result or []]

    def _note_memory(self, process_data: Raw, asked_before: str) -> None:
        """By the prompts that a model was sent; one that failed has none, which tells nothing."""
        prompts = (dify.PROCESS_DATA.decode(process_data) or dify.ProcessData()).prompts
        if prompts:
            self.remembers = self.remembers or any(asked_before in fold_text(prompt.text or "") for prompt in prompts)

    def _on_node_started(self, event: DifyEvent, out: list[Event]) -> None:
        if self._progress:
            self._on_node(event, out)

    def _on_agent_log(self, event: DifyEvent, out: list[Event]) -> None:
        if self._progress:
            log = dify.AGENT_LOG.decode(event.data)
            if log.label:
                self._step(log.id or log.label, log.label, log.status or "started", out)

    # Ends

    def _on_message_end(self, event: DifyEvent, out: list[Event]) -> None:
        self.concluded = True
        if event.metadata:
            metadata = dify.MESSAGE_END_METADATA.decode(event.metadata) or dify.MessageEndMetadata()
            if metadata.usage is not None:
                self._usage = read_usage(metadata.usage)
            self._cite(metadata.retriever_resources or [], out)
        if event.files:
            self._produce_all(dify.FILES.decode(event.files))
        self._message_ended = self.ending = True
        if self._mode != "advanced-chat" or self._run_ended:
            self._end(out)

    def _on_workflow_finished(self, event: DifyEvent, out: list[Event]) -> None:
        self.concluded = True
        self._learn_ids(event)
        run = dify.WORKFLOW_FINISHED.decode(event.data)
        if run.status not in _GOOD_ENDS and not self._message_ended:
            self._fail(translate_failure(run.error or ""), out)
            return
        if run.status in _GOOD_ENDS:
            self._settle(run, out)
        self._run_ended = self.ending = True
        if self._mode == "workflow" or self._message_ended:
            self._end(out)

    def _settle(self, run: dify.WorkflowFinishedData, out: list[Event]) -> None:
        """What the run's outputs tell beyond the deltas."""
        if self._usage is None and self._node_usage is None and run.total_tokens:
            self._node_usage = Usage(completion_tokens=run.total_tokens, total_tokens=run.total_tokens)
        outputs = run.outputs or {}
        answer = answer_of_outputs(outputs, "answer" if self._mode == "advanced-chat" else self._output_variable)
        if answer and not self._moderated:  # after a moderation the outputs still hold what it took back
            self._settle_answer(answer, out)
        self._produce_all(run.files)

    def _settle_answer(self, answer: str, out: list[Event]) -> None:
        if not self._said.any:
            self._speak("", answer, out)
        elif self._said.retried and self._mode == "advanced-chat":
            self._answer = without_thinking(answer)

    def _on_workflow_paused(self, event: DifyEvent, out: list[Event]) -> None:
        self.concluded = True
        for reason in dify.WORKFLOW_PAUSED.decode(event.data).reasons or []:
            if form := form_text(reason):
                self._speak("", f"\n\n{form}" if self._said.any else form, out)
        self._end(out)

    def _on_error(self, event: DifyEvent, out: list[Event]) -> None:
        self.concluded = True
        if self.ending:
            self._end(out)
            return
        code = event.code if isinstance(event.code, str) else None
        status = event.status if isinstance(event.status, int) else 500
        self._fail(translate_error(code, status, event.message or "", own_key=self._own_key, started=True), out)

    def _end(self, out: list[Event]) -> None:
        self._think.close(out)
        self._give_files(out)
        self._cite(self._passages, out)
        usage = self._usage
        if self._node_usage is not None and (usage is None or not usage.total_tokens):
            usage = self._node_usage
        out.append(TurnFinished(self._reason, usage, self._answer))
        self.ending = self.ended = True

    def _fail(self, error: Any, out: list[Event]) -> None:
        self._think.close(out)
        out.append(TurnFailed(error))
        self.ending = self.ended = True


_TEXT_EVENTS = frozenset({"message", "agent_message", "message_file"})
"""``message_file`` carries the answer's text in 1.11 whenever the user's message has a file."""

_GOOD_ENDS = frozenset({"succeeded", "partial-succeeded", "stopped"})

_SILENT_NODES = frozenset({"start", "end", "answer"})

_STEP_STATES: dict[str, Any] = {
    "started": "started",
    "running": "started",
    "start": "started",
    "succeeded": "succeeded",
    "success": "succeeded",
    "partial-succeeded": "succeeded",
    "failed": "failed",
    "error": "failed",
    "exception": "failed",
    "retry": "retrying",
}

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
    "node_finished": DifyEventDecoder._on_node,
    "node_retry": DifyEventDecoder._on_node,
    "workflow_finished": DifyEventDecoder._on_workflow_finished,
    "workflow_paused": DifyEventDecoder._on_workflow_paused,
    "error": DifyEventDecoder._on_error,
}
"""Events that are not here (and not text) mean nothing to a client; new ones of future Difys are passed over too."""


def _read(payload: bytes) -> DifyEvent:
    """Raises ``UNREADABLE``."""
    try:
        return dify.EVENT.decode(payload)
    except ValidationError:
        return _skim(payload)


def _skim(payload: bytes) -> DifyEvent:
    """An event that is not as expected: one that means nothing to us may hold anything.

    Raises ``UNREADABLE`` for the others.
    """
    name = dify.EVENT_NAME.decode(payload).event
    return dify.EVENT.decode(payload) if name in _HANDLERS or name in _TEXT_EVENTS else DifyEvent(name)
