"""Runs of chatflows and workflows: node events, and the terminal events that differ by version."""

from __future__ import annotations

from typing import Any

from openai_dify_proxy_demo.events import Node, Usage, citations, provider_error, workflow_finished, workflow_started
from openai_dify_proxy_demo.forms import Form
from openai_dify_proxy_demo.output_files import GraphFiles
from openai_dify_proxy_demo.runs import ModelFailedError, Run, StoppedByUserError, new_id
from openai_dify_proxy_demo.script import PIECES_BEFORE_FAILURE, PRESET_ANSWER, pieces_of

SYSTEM_PROMPT = "You are the demo's model. This system prompt is for the model alone."
"""Node events contain it, as in Dify; clients of the proxy must never see it."""

_OPENING, _CLOSING = "You asked: ", "\n\nWhat else?"
_ANSWER, _QUESTION = ("answer", "answer"), ("sys", "query")
"""The variables of an answer node's fixed text, and of the question."""

MODEL = {"model_provider": "langgenius/openai/openai", "model_name": "demo-model"}


async def run_graph(run: Run) -> None:
    """Run a chatflow or workflow: start, optional retrieval, model, answer, and the dialect's terminal events."""
    graph = _Graph(run)
    if "annotation" in run.script.effects and run.app.mode == "advanced-chat":
        graph.answer_by_annotation()
        return
    graph.start()
    try:
        await graph.run_model()
    except ModelFailedError as failure:
        graph.fail(failure.kind)
    except StoppedByUserError:
        graph.stop()
    else:
        if run.script.pauses and run.dialect.human_input:
            graph.pause()
        else:
            await graph.answer()
            graph.succeed()


def reject_run(run: Run, problem: str) -> None:
    """Emit the events of a request that failed before its graph started (since 1.15)."""
    for event, data in (
        ("workflow_started", workflow_started(run.envelope, {})),
        (
            "workflow_finished",
            workflow_finished(run.envelope, "failed", None, error=problem, exceptions=1, synthetic=True),
        ),
    ):
        run.emit(run.envelope.synthetic(event, data))


class _Graph:
    """The event sequence of one run, and the results of its nodes so far."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.envelope = run.envelope
        self.effects = run.script.effects
        self.steps = 0
        self.exceptions = 0
        self.usage = Usage(priced=False)
        self.reasoning: dict[str, str] = {}
        self.resources: list[dict[str, Any]] = []
        self.files = GraphFiles(run)
        self.text = ""
        """The text of the model."""
        self.before = self.after = ""
        """The other text of the answer."""
        self.outputs: dict[str, Any] = {}

    def start(self) -> None:
        inputs = {field.variable: self.run.inputs.get(field.variable) for field in self.run.app.form}
        self._emit("workflow_started", workflow_started(self.envelope, inputs | self._system_variables()))
        if self.run.dialect.fixed_text_first:
            self._open_frame()
        node = self._begin("start", "start", "Start")
        if not self.run.dialect.fixed_text_first:
            self._open_frame()
        seen = inputs if self.run.dialect.empty_lists else inputs | self._system_variables()
        self._emit("node_finished", node.finished(inputs=seen, outputs=seen))
        if "cite" in self.effects:
            self._retrieve()

    async def run_model(self) -> None:
        """Run the model node. Raises the errors of `Run.stream_pieces`."""
        node = self._begin("llm", "llm", "Model")
        try:
            if "retry" in self.effects:
                await self._fail_first_attempt(node)
            await self._stream_answer()
        except ModelFailedError as failure:
            error = provider_error(failure.kind)[2]
            self._emit(
                "node_finished", node.finished(inputs=self._model_inputs(), outputs={}, status="failed", error=error)
            )
            raise
        if "partial" in self.effects:
            self._finish_failed_model(node)
        else:
            self._finish_model(node)

    def _finish_model(self, node: Node) -> None:
        self.usage = self.run.usage()
        usage = self.usage.fields()
        output = {"text": self.text, "reasoning_content": self.reasoning.get("llm", "")}
        process = {"model_mode": "chat", "prompts": self._prompts(), "usage": usage, "finish_reason": "stop", **MODEL}
        drawn = self.files.items(self.files.drawn)
        finished = node.finished(
            inputs=self._model_inputs(),
            outputs={**output, "usage": usage, "finish_reason": "stop"} | ({"files": drawn} if drawn else {}),
            process_data=process,
            metadata=_cost(self.usage),
            files=drawn,
        )
        self._emit("node_finished", finished)

    def _finish_failed_model(self, node: Node) -> None:
        """Emit the failure of a model node whose error strategy continues on the fail branch."""
        self.exceptions += 1
        finished = node.finished(
            inputs=self._model_inputs(),
            outputs={"error_message": provider_error("bad")[2], "error_type": "InvokeBadRequestError"},
            status="exception",
            error="Unknown error",
            metadata={"error_strategy": "fail-branch"},
        )
        self._emit("node_finished", finished)

    async def answer(self) -> None:
        """Run the nodes after the model: a picture tool if requested, then the answer or end node."""
        if "file" in self.effects:
            await self._make_files()
        shape = self.run.app.shape
        if shape == "no-end":
            return
        if self.run.app.mode == "advanced-chat":
            links = f"\n{self.files.made_links}" if self.files.made else ""
            answer = f"{self.before}{self.text}{self.files.drawn_links}{self.after}{links}"
            self.outputs = {"answer": answer, "files": self.files.listed()}
        elif shape == "outputs":
            self.outputs = {"answer": self.text, "keywords": ["demo", "echo"], "length": len(self.text)}
            for text, variable in (
                ("\n", "answer"),
                ("- demo\n- echo", "keywords"),
                ("\n", "answer"),
                (str(len(self.text)), "length"),
            ):
                self.run.emit(self.envelope.text(text, ("end", variable)))
        else:
            self.outputs = {"result" if shape == "no-text" else "text": f"{self.text}{self.after}"}
            if self.files.made:
                self.outputs["files"] = self.files.listed()
        kind = "answer" if self.run.app.mode == "advanced-chat" else "end"
        node = self._begin(kind, kind)
        inputs = {} if kind == "answer" else self.outputs
        self._emit("node_finished", node.finished(inputs=inputs, outputs=self.outputs, files=self.files.listed()))

    def succeed(self) -> None:
        replaced = "moderate" in self.effects and self.run.app.mode == "advanced-chat"
        if replaced:
            self.run.emit(self.envelope.replace(PRESET_ANSWER))
        self._end(
            self.run.dialect.graph_end,
            workflow_finished(
                self.envelope,
                "partial-succeeded" if self.exceptions else "succeeded",
                self.outputs,
                tokens=self.usage.prompt_tokens + self.usage.completion_tokens,
                steps=self.steps,
                exceptions=self.exceptions,
                files=self.files.listed(),
            ),
        )
        self.run.finish("finished", answer=PRESET_ANSWER if replaced else None, usage=self.usage)

    def fail(self, kind: str) -> None:
        error = provider_error(kind)[2]
        finished = workflow_finished(
            self.envelope, "failed", {}, error=error, steps=self.steps, exceptions=self.exceptions + 1
        )
        self._end(self.run.dialect.graph_end_failed, finished, error)
        self.run.finish("failed", answer="", status="error", error=f"Run failed: {error}")

    def stop(self) -> None:
        finished = workflow_finished(
            self.envelope,
            "stopped",
            {},
            error=self.run.dialect.stop_reason,
            steps=self.steps,
            exceptions=self.exceptions,
        )
        self._end(self.run.dialect.graph_end_stopped, finished)
        self.run.finish("stopped")

    def pause(self) -> None:
        """Pause for human input, which ends the stream."""
        run = self.run
        run.pauses += 1
        self._begin("human-input", "human", "Approve")
        kind = run.script.form
        form = Form(
            new_id(),
            new_id().replace("-", "")[:22],
            run,
            self.envelope.created_at + 3600,
            self.resume,
            ["email"] if kind == "email" else ["console"],
            expired=kind == "expired",
        )
        self._emit("human_input_required", form.reason() | {"display_in_ui": True})
        self._emit(
            "workflow_paused",
            {
                "workflow_run_id": self.envelope.workflow_run_id,
                "paused_nodes": ["human"],
                "outputs": {},
                "reasons": [{"TYPE": "human_input_required", **form.reason()}],
                "status": "paused",
                "created_at": self.envelope.created_at,
                "elapsed_time": 0.06,
                "total_tokens": self.usage.prompt_tokens + self.usage.completion_tokens,
                "total_steps": self.steps,
            },
        )
        run.form = form
        run.finish("finished", status="paused")

    async def resume(self, action: dict[str, Any], inputs: dict[str, Any]) -> None:
        """Go on after a pause: say which action was chosen, and the note; then pause again, or end."""
        run = self.run
        started = workflow_started(self.envelope, self._system_variables(), "resumption")
        self._emit("workflow_started", started)
        node = self._begin("human-input", "human", "Approve")
        try:
            async for piece in run.stream_pieces(
                pieces_of(f" {action['title']}: {inputs['note']}"), interruptible=False
            ):
                self.after += piece
                run.emit(self.envelope.text(piece, ("answer", "answer")))
        except StoppedByUserError:
            self.stop()
            return
        outputs = {"note": inputs["note"], "__action_id": action["id"], "__action_value": action["title"]}
        self._emit("node_finished", node.finished(inputs={}, outputs=outputs))
        if run.pauses < run.script.pauses:
            self.pause()
            return
        await self.answer()
        self.succeed()

    def answer_by_annotation(self) -> None:
        """Answer with an annotation instead of the graph; in some versions a synthetic failed run follows."""
        run = self.run
        run.text = run.script.answer
        run.emit(self.envelope.message(run.text))
        annotation = {"id": new_id(), "account": {"id": new_id(), "name": "admin"}}
        run.emit(self.envelope.end(self.usage, resources=[], files=[], annotation=annotation))
        if run.dialect.graph_rejection == "failed-run":
            reject_run(run, "Workflow stream ended without a terminal event")
        run.finish("finished")

    def _end(self, order: tuple[str, ...], finished: dict[str, Any], error: str = "") -> None:
        for event in order:
            if event == "workflow_finished":
                self._emit(event, finished)
            elif self.run.app.mode == "advanced-chat" and event == "error":
                self.run.emit(self.envelope.error("invalid_param", 400, f"Run failed: {error}"))
            elif self.run.app.mode == "advanced-chat":
                files = self.files.message_end()
                self.run.emit(
                    self.envelope.end(self.usage, resources=self.resources, files=files, reasoning=self.reasoning)
                )

    async def _fail_first_attempt(self, node: Node) -> None:
        """Fail after a few pieces. The stream has sent them, but the node's output will not contain them."""
        async for piece in self.run.stream_pieces(self.run.script.pieces[:PIECES_BEFORE_FAILURE], interruptible=False):
            self._emit_text(piece)
        self.run.text = self.before
        self.steps += 1
        self.exceptions += 1
        failed = node.finished(inputs=self._model_inputs(), outputs={}, status="retry", error=provider_error("conn")[2])
        self._emit("node_retry", failed | {"retry_index": 1})

    async def _stream_answer(self) -> None:
        script = self.run.script
        separated = script.separated and self.run.dialect.reasoning_events
        pieces = script.pieces if separated else script.pieces_with_thought()
        if script.thought and separated:
            async for piece in self.run.stream_pieces(pieces_of(script.thought), interruptible=False):
                self.run.emit(self.envelope.reasoning(piece, final=False))
            self.run.text = self.before
        async for piece in self.run.stream_pieces(pieces):
            self._emit_text(piece)
        if script.thought and separated:
            self.run.emit(self.envelope.reasoning("", final=True))
        links = await self.files.draw()
        for link in links:
            self.run.text += link
            self._emit_text(link)
            self._emit_text("")
        self._emit_text("")
        self.text = "".join((script.answer, *links)) if script.separated else self.run.text.removeprefix(self.before)
        self._emit_links(self.files.drawn_links, ("llm", "files"))
        if script.thought and script.separated:
            self.reasoning = {"llm": script.thought.strip()}
        self.after = self._emit_fixed(_CLOSING, _ANSWER)

    def _emit_text(self, piece: str) -> None:
        if self.run.app.shape in ("llm", "framed", "outputs"):
            self.run.emit(self.envelope.text(piece))

    def _open_frame(self) -> None:
        """Emit the text before the model's text: an answer node's fixed text, and the question in it."""
        for text, selector in ((_OPENING, _ANSWER), (self.run.question, _QUESTION), ("\n\n", _ANSWER)):
            self.before += self._emit_fixed(text, selector)

    def _emit_fixed(self, text: str, selector: tuple[str, str]) -> str:
        """Emit text of a framed answer that is not the model's, and return it; return nothing for other apps."""
        if self.run.app.shape != "framed":
            return ""
        self.run.text += text
        self.run.emit(self.envelope.text(text, selector))
        return text

    def _retrieve(self) -> None:
        node = self._begin("knowledge-retrieval", "knowledge", "Knowledge")
        self.resources = citations(source="workflow", dialect=self.run.dialect)
        found = [
            {
                "metadata": {
                    "_source": "knowledge",
                    **{key: source[key] for key in _METADATA if key in source},
                    "child_chunks": [],
                    "segment_hit_count": source["hit_count"],
                    "segment_word_count": source["word_count"],
                    "segment_position": source["segment_position"],
                    "segment_index_node_hash": source["index_node_hash"],
                },
                "title": source["title"],
                "files": None,
                "content": source["content"],
            }
            for source in self.resources
        ]
        no_usage = Usage(priced=False)
        finished = node.finished(
            inputs={"query": self.run.question},
            outputs={"result": found},
            process_data={"usage": no_usage.fields()},
            metadata=_cost(no_usage),
        )
        self._emit("node_finished", finished)

    async def _make_files(self) -> None:
        """Let a tool make files. The answer of a chatflow links to them."""
        node = self._begin("tool", "draw", "Draw")
        await self.files.make()
        self._emit_links(f"\n{self.files.made_links}", ("draw", "files"))
        items = self.files.items(self.files.made)
        outputs = {"text": "", "files": items, "json": []}
        self._emit("node_finished", node.finished(inputs={"prompt": "a red dot"}, outputs=outputs, files=items))

    def _emit_links(self, markdown: str, selector: tuple[str, str]) -> None:
        """Emit the links of files in a chatflow's answer. Its final text has them with other signatures."""
        if markdown.strip() and self.run.app.mode == "advanced-chat":
            self.run.text += markdown
            self.run.emit(self.envelope.text(markdown, selector))

    def _begin(self, kind: str, node_id: str, title: str = "") -> Node:
        self.steps += 1
        node = Node(new_id(), node_id, kind, self.envelope.created_at, title)
        self._emit("node_started", node.started())
        return node

    def _emit(self, event: str, data: dict[str, Any]) -> None:
        self.run.emit(self.envelope.graph(event, data))

    def _model_inputs(self) -> dict[str, Any]:
        return dict(MODEL) if self.run.dialect.empty_lists else {}

    def _prompts(self) -> list[dict[str, Any]]:
        turns = [("system", SYSTEM_PROMPT), *self.run.history, ("user", self.run.question)]
        return [{"role": role, "text": text, "files": []} for role, text in turns]

    def _system_variables(self) -> dict[str, Any]:
        variables: dict[str, Any] = {
            "sys.files": [],
            "sys.user_id": self.envelope.user,
            "sys.app_id": self.run.app.name,
            "sys.workflow_id": self.envelope.workflow_id,
            "sys.workflow_run_id": self.envelope.workflow_run_id,
        }
        if self.run.app.mode == "advanced-chat":
            turns = len(self.run.conversation.messages) if self.run.conversation else 1
            variables |= {"sys.query": self.run.question, "sys.dialogue_count": turns}
        return variables


def _cost(usage: Usage) -> dict[str, Any]:
    spent = usage.fields()
    return {key: spent[key] for key in ("total_tokens", "total_price", "currency")}


_METADATA = (
    "position",
    "dataset_id",
    "dataset_name",
    "document_id",
    "document_name",
    "data_source_type",
    "segment_id",
    "retriever_from",
    "score",
    "doc_metadata",
)
