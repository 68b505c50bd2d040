"""The demo's apps: one for each app mode, and several with special inputs or outputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from openai_dify_proxy_demo.dialects import DIALECTS, GRAPH_MODES, Dialect, Mode


@dataclass(frozen=True)
class Field:
    """One input of an app."""

    variable: str
    kind: Literal["text-input", "paragraph", "select", "number", "file", "file-list"] = "text-input"
    required: bool = False
    options: tuple[str, ...] = ()
    max_length: int = 0

    @property
    def takes_files(self) -> bool:
        return self.kind in ("file", "file-list")

    def form_item(self, mode: Mode) -> dict[str, Any]:
        """Return the item of `user_input_form`. Chatflows and workflows repeat the kind as `type`."""
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
        if self.takes_files:
            item |= {
                "allowed_file_types": ["image", "document"],
                "allowed_file_extensions": [],
                "allowed_file_upload_methods": ["local_file", "remote_url"],
            }
        if mode in GRAPH_MODES:
            item["type"] = self.kind
        return {self.kind: item}


Shape = Literal["llm", "framed", "outputs", "no-text", "no-end"]
"""The outputs of a chatflow or workflow: its model's text, this text within fixed text, several outputs, outputs
without streamed text, or none."""


@dataclass(frozen=True)
class DemoApp:
    """One app. Its key is `app-` plus its name; a suffix such as `@1.13` selects the dialect."""

    name: str
    mode: Mode
    description: str
    form: tuple[Field, ...] = ()
    shape: Shape = "llm"
    memory: bool = True
    """Whether a chatflow's model receives the earlier turns."""
    takes_files: bool = True
    """Whether the app's uploads are on. If not, it ignores `files`."""
    uploads_only: bool = False
    """Whether `files` may not have URLs."""
    file_types: tuple[str, ...] = ("image", "document")
    """The types that `files` may have."""
    max_files: int = 3
    draws: bool = False
    """Whether the model makes a picture of every message."""

    @property
    def key(self) -> str:
        return f"app-{self.name}"


DEMO_APPS: tuple[DemoApp, ...] = (
    DemoApp("demo-chat", "chat", "A chat app that repeats each message."),
    DemoApp("demo-agent-chat", "agent-chat", "An agent with a clock tool."),
    DemoApp("demo-advanced-chat", "advanced-chat", "A chatflow with one model node."),
    DemoApp(
        "demo-completion",
        "completion",
        "A completion app with one input: `query`.",
        form=(Field("query", "paragraph", required=True),),
    ),
    DemoApp(
        "demo-workflow",
        "workflow",
        "A workflow with one model node and the inputs `query` and `language`.",
        form=(Field("query", "paragraph", required=True), Field("language")),
    ),
    DemoApp("demo-agent", "agent", "A New Agent (Dify 1.16 and later)."),
)
"""One app for each mode. The proxy serves them when no Dify is configured."""

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
        "A workflow with an output but without streamed text.",
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
        "A chat app with a required topic and an optional system prompt.",
        form=(Field("topic", required=True, max_length=48), Field("system_prompt", "paragraph")),
    ),
    DemoApp(
        "demo-chat-history",
        "chat",
        "A chat app with an input for the earlier messages.",
        form=(Field("history", "paragraph"),),
    ),
    DemoApp(
        "demo-advanced-chat-topic",
        "advanced-chat",
        "A chatflow with a required topic.",
        form=(Field("topic", required=True, max_length=48),),
    ),
    DemoApp(
        "demo-advanced-chat-forgetful",
        "advanced-chat",
        "A chatflow whose model does not receive the earlier turns.",
        memory=False,
    ),
    DemoApp(
        "demo-advanced-chat-framed",
        "advanced-chat",
        "A chatflow that repeats the question before its model's text.",
        shape="framed",
    ),
    DemoApp(
        "demo-chat-tools",
        "chat",
        "A chat app with an input for instructions about tools.",
        form=(Field("tools", "paragraph"),),
    ),
    DemoApp(
        "demo-completion-tools",
        "completion",
        "A completion app with an input for instructions about tools.",
        form=(Field("query", "paragraph", required=True), Field("tools", "paragraph")),
    ),
    DemoApp(
        "demo-workflow-tools",
        "workflow",
        "A workflow with an input for instructions about tools.",
        form=(Field("query", "paragraph", required=True), Field("tools", "paragraph")),
    ),
    DemoApp("demo-chat-blind", "chat", "A chat app whose uploads are off.", takes_files=False),
    DemoApp("demo-advanced-chat-blind", "advanced-chat", "A chatflow whose uploads are off.", takes_files=False),
    DemoApp("demo-chat-uploads", "chat", "A chat app that takes uploads but no URLs.", uploads_only=True),
    DemoApp(
        "demo-chat-media",
        "chat",
        "A chat app that takes pictures, documents, sound and video.",
        file_types=("image", "document", "audio", "video"),
    ),
    DemoApp(
        "demo-workflow-files",
        "workflow",
        "A workflow with a list of pictures and a required document.",
        form=(
            Field("query", "paragraph", required=True),
            Field("pics", "file-list", max_length=2),
            Field("doc", "file", required=True),
        ),
    ),
    DemoApp("demo-chat-painter", "chat", "A chat app whose model makes pictures.", draws=True),
    DemoApp("demo-agent-chat-painter", "agent-chat", "An agent whose model makes pictures.", draws=True),
    DemoApp("demo-advanced-chat-painter", "advanced-chat", "A chatflow whose model makes pictures.", draws=True),
    DemoApp(
        "demo-completion-painter",
        "completion",
        "A completion app whose model makes pictures.",
        form=(Field("prompt", "paragraph", required=True),),
        draws=True,
    ),
    DemoApp(
        "demo-workflow-painter",
        "workflow",
        "A workflow whose model makes pictures of a size.",
        form=(Field("prompt", "paragraph", required=True), Field("size"), Field("pics", "file-list", max_length=2)),
        draws=True,
    ),
)
"""Apps with special inputs and outputs, for tests."""

_BY_KEY = {app.key: app for app in (*DEMO_APPS, *SPECIAL_APPS)}


def find_app(key: str, default: Dialect) -> tuple[DemoApp, Dialect] | None:
    """Return the app of an API key and its dialect, or None for an unknown key."""
    name, _, version = key.partition("@")
    app = _BY_KEY.get(name)
    dialect = DIALECTS.get(version) if version else default
    if app is None or dialect is None:
        return None
    return app, dialect


def find_question(app: DemoApp, inputs: dict[str, Any]) -> str:
    """Return the text in which a workflow or completion app looks for keywords.

    It is the first text input with a value; required inputs come first.
    """
    texts = [field for field in app.form if field.kind in ("text-input", "paragraph")]
    texts.sort(key=lambda field: not field.required)
    for field in texts:
        if isinstance(value := inputs.get(field.variable), str) and value:
            return value
    return ""


def check_inputs(app: DemoApp, inputs: dict[str, Any]) -> str | None:
    """Return Dify's error message for the first invalid input, or None if all are valid."""
    for field in app.form:
        problem = _check_input(field, inputs.get(field.variable))
        if problem:
            return problem
    return None


def _check_input(field: Field, value: object) -> str | None:
    if value is None or value == "":
        return f"{field.variable} is required in input form" if field.required else None
    if field.kind in _CHECKS:
        fits, expected = _CHECKS[field.kind]
        return None if fits(value) else f"{field.variable} in input form must be a {expected}"
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


_CHECKS: dict[str, tuple[Callable[[object], bool], str]] = {
    "number": (_is_number, "valid number"),
    "file": (lambda value: isinstance(value, dict), "file"),
    "file-list": (lambda value: isinstance(value, list), "file list"),
}
