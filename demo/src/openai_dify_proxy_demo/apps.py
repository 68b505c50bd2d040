"""The demo's apps: one for each mode, and a few with special forms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from openai_dify_proxy_demo.dialects import DIALECTS, GRAPH_MODES, Dialect, Mode


@dataclass(frozen=True)
class Field:
    """One input of an app, as the user fills it in."""

    variable: str
    kind: Literal["text-input", "paragraph", "select", "number"] = "text-input"
    required: bool = False
    options: tuple[str, ...] = ()
    max_length: int = 0

    def form_item(self, mode: Mode) -> dict[str, Any]:
        """The item of `user_input_form`; graph apps repeat the kind inside it."""
        item: dict[str, Any] = {
            "default": "",
            "label": self.variable.replace("_", " ").capitalize(),
            "required": self.required,
            "variable": self.variable,
        }
        if self.options:
            item["options"] = list(self.options)
        if self.max_length:
            item["max_length"] = self.max_length
        if mode in GRAPH_MODES:
            item["type"] = self.kind
        return {self.kind: item}


OPENING = "Hello, this is a demo. Ask me anything."
"""How every conversation with the demo begins; no model is sent it."""

Shape = Literal["llm", "outputs", "no-text", "no-end"]
"""What a graph app consists of: a model, several outputs, outputs without streamed text, or no end node."""


@dataclass(frozen=True)
class DemoApp:
    """One app; its key is `app-` and its name, in another version's manner with `@1.13` behind it."""

    name: str
    mode: Mode
    description: str
    form: tuple[Field, ...] = ()
    shape: Shape = "llm"
    memory: bool = True
    """Whether a chatflow's model is sent the earlier turns."""

    @property
    def key(self) -> str:
        return f"app-{self.name}"


DEMO_APPS: tuple[DemoApp, ...] = (
    DemoApp("demo-chat", "chat", "A chat app that repeats what it is asked."),
    DemoApp("demo-agent-chat", "agent-chat", "An agent that can look at the clock."),
    DemoApp("demo-advanced-chat", "advanced-chat", "A chatflow with one model node."),
    DemoApp(
        "demo-completion",
        "completion",
        "A text completion app with the one input `query`.",
        form=(Field("query", "paragraph", required=True),),
    ),
    DemoApp(
        "demo-workflow",
        "workflow",
        "A workflow with one text input and one model node.",
        form=(Field("query", "paragraph", required=True), Field("language")),
    ),
    DemoApp("demo-agent", "agent", "A New Agent, as Dify has them since 1.16."),
)
"""One app for each mode; these are served when nothing is configured."""

SPECIAL_APPS: tuple[DemoApp, ...] = (
    DemoApp(
        "demo-workflow-form",
        "workflow",
        "A workflow with inputs of several kinds.",
        form=(
            Field("subject", max_length=48),
            Field("question", required=True),
            Field("language", "select", required=True, options=("en", "de", "fr")),
            Field("words", "number"),
        ),
    ),
    DemoApp(
        "demo-workflow-outputs",
        "workflow",
        "A workflow with the outputs `answer`, `keywords` and `length`.",
        form=(Field("text", "paragraph", required=True),),
        shape="outputs",
    ),
    DemoApp(
        "demo-workflow-quiet",
        "workflow",
        "A workflow that has an output and streams no text.",
        form=(Field("text", "paragraph", required=True),),
        shape="no-text",
    ),
    DemoApp(
        "demo-workflow-endless",
        "workflow",
        "A workflow without an end node: no text and no outputs.",
        form=(Field("text", "paragraph", required=True),),
        shape="no-end",
    ),
    DemoApp(
        "demo-chat-topic",
        "chat",
        "A chat app that must be told a topic and can be given a system prompt.",
        form=(Field("topic", required=True, max_length=48), Field("system_prompt", "paragraph")),
    ),
    DemoApp(
        "demo-chat-history",
        "chat",
        "A chat app that takes the earlier turns as an input.",
        form=(Field("history", "paragraph"),),
    ),
    DemoApp(
        "demo-advanced-chat-topic",
        "advanced-chat",
        "A chatflow that must be told a topic.",
        form=(Field("topic", required=True, max_length=48),),
    ),
    DemoApp(
        "demo-advanced-chat-forgetful",
        "advanced-chat",
        "A chatflow whose model is not sent the earlier turns.",
        memory=False,
    ),
)
"""Apps with special forms and outputs, for tests."""

_BY_KEY = {app.key: app for app in (*DEMO_APPS, *SPECIAL_APPS)}


def find_app(key: str, default: Dialect) -> tuple[DemoApp, Dialect] | None:
    """The app that a bearer key opens and the manner in which it answers; None for an unknown key."""
    name, _, version = key.partition("@")
    app = _BY_KEY.get(name)
    dialect = DIALECTS.get(version) if version else default
    if app is None or dialect is None:
        return None
    return app, dialect


def question_in(app: DemoApp, inputs: dict[str, Any]) -> str:
    """The text that a workflow or completion app is asked: its required text input, else its first text."""
    texts = [field for field in app.form if field.kind in ("text-input", "paragraph")]
    texts.sort(key=lambda field: not field.required)
    for field in texts:
        if isinstance(value := inputs.get(field.variable), str) and value:
            return value
    return ""


def check_inputs(app: DemoApp, inputs: dict[str, Any]) -> str | None:
    """What Dify says of inputs that the form does not allow; None if they are fine."""
    for field in app.form:
        problem = _check_input(field, inputs.get(field.variable))
        if problem:
            return problem
    return None


def _check_input(field: Field, value: object) -> str | None:
    if value is None or value == "":
        return f"{field.variable} is required in input form" if field.required else None
    if field.kind == "number":
        return None if _is_number(value) else f"{field.variable} in input form must be a valid number"
    if not isinstance(value, str):
        return f"(type '{field.kind}') {field.variable} in input form must be a string"
    if field.options and value not in field.options:
        return f"{field.variable} in input form must be one of the following: {list(field.options)}"
    if field.max_length and len(value) > field.max_length:
        return f"{field.variable} in input form must be less than {field.max_length} characters"
    return None


def _is_number(value: object) -> bool:
    if isinstance(value, str):
        return value.replace(".", "", 1).removeprefix("-").isdigit()
    return isinstance(value, (int, float)) and not isinstance(value, bool)
