from __future__ import annotations

from typing import Any

import pytest
from msgspec import json, structs

from openai_dify_proxy.errors import InvalidRequest
from openai_dify_proxy.translate.dify.app_profile import AppProfile, read_form
from openai_dify_proxy.translate.dify.file_plan import FilePlan, PlacedFile, named_files, plan_files
from openai_dify_proxy.translate.dify.file_rules import FileRules, rules_of_app, size_limit
from openai_dify_proxy.translate.dify.request import AppRules, Continuation, make_generate_request
from openai_dify_proxy.translate.turn_request import HistoryMessage, SentFile, TurnRequest
from openai_dify_proxy.wire.dify import (
    APP_PARAMETERS,
    AppParameters,
    FileReference,
    Mode,
    SystemParameters,
    encode_generate_request,
)

MB = 1024 * 1024
ON = {"enabled": True, "allowed_file_types": ["image", "document"], "number_limits": 3}


def parameters(**fields: Any) -> AppParameters:
    return APP_PARAMETERS.decode(json.encode(fields))


def app(mode: Mode = "chat", upload: Any = ON, form: list[Any] | None = None) -> AppProfile:
    described = parameters(file_upload=upload, user_input_form=form or [])
    return AppProfile(mode, read_form(described), parameters=described)


def file(name: str, size: int = 10) -> SentFile:
    kinds: Any = {"png": "image", "pdf": "document", "mp3": "audio", "mp4": "video"}
    base, _, extension = name.partition(".")
    return SentFile(
        kinds.get(extension, "custom"), base, extension, "x/y", size, digest=f"digest of {name}", param=f"at {name}"
    )


def asking(*names: str, inputs: dict[str, Any] | None = None) -> TurnRequest:
    files = tuple(map(file, names))
    return TurnRequest("q", asked=(HistoryMessage("user", "q", files=files),), inputs=inputs or {})


def earlier(*names: str) -> list[HistoryMessage]:
    return [HistoryMessage("user", f"about {name}", files=(file(name),)) for name in names]


def places(plan: FilePlan) -> list[tuple[str, str | None]]:
    return [(item.file.file_name, item.target.name if item.target else None) for item in plan.placed]


def field(kind: str, name: str, *, required: bool = False, **more: Any) -> dict[str, Any]:
    return {kind: {"variable": name, "required": required, **more}}


PICS = field("file-list", "pics", max_length=2, allowed_file_types=["image"])
DOC = field("file", "doc", required=True, allowed_file_types=["document", "image"])


def test_new_files_of_a_chat_go_into_files() -> None:
    assert places(plan_files(asking("a.png", "b.pdf"), [], app(), {})) == [("a.png", None), ("b.pdf", None)]


def test_earlier_files_come_first_and_the_oldest_are_left_out() -> None:
    plan = plan_files(asking("d.png"), earlier("a.png", "b.png", "c.png"), app(), {})
    assert places(plan) == [("b.png", None), ("c.png", None), ("d.png", None)]
    assert [item.new for item in plan.placed] == [False, False, True]


def test_earlier_files_that_do_not_fit_are_left_out() -> None:
    history = [*earlier("a.mp3"), HistoryMessage("user", "large", files=(file("b.png", 11 * MB),)), *earlier("c.png")]
    assert places(plan_files(asking(), history, app(), {})) == [("c.png", None)]


def test_a_file_that_is_sent_again_counts_once() -> None:
    assert places(plan_files(asking("a.png"), earlier("a.png"), app(), {})) == [("a.png", None)]


def test_a_continued_chat_sends_no_earlier_files() -> None:
    assert places(plan_files(asking(), earlier("a.png"), app(), {}, transcript=False)) == []


def test_a_required_input_gets_the_newest_earlier_file() -> None:
    profile = app("advanced-chat", form=[DOC, PICS])
    plan = plan_files(asking(), earlier("a.pdf", "b.pdf"), profile, {}, transcript=False)
    assert places(plan) == [("b.pdf", "doc")]


def test_the_inputs_of_a_workflow_come_before_files() -> None:
    profile = app("workflow", form=[PICS, DOC])
    plan = plan_files(asking("a.pdf", "b.png", "c.png", "d.png"), [], profile, {})
    assert places(plan) == [("a.pdf", "doc"), ("b.png", "pics"), ("c.png", "pics"), ("d.png", None)]


def test_the_files_of_a_chatflow_come_before_its_optional_inputs() -> None:
    profile = app("advanced-chat", {**ON, "number_limits": 1}, [PICS, DOC])
    plan = plan_files(asking("a.png", "b.png", "c.png"), [], profile, {})
    assert places(plan) == [("a.png", "doc"), ("b.png", None), ("c.png", "pics")]


def test_inputs_that_the_request_fills_take_no_further_files() -> None:
    profile = app("workflow", form=[PICS])
    given = {"pics": [{"type": "image", "transfer_method": "remote_url", "url": "https://a"}]}
    assert places(plan_files(asking("a.png"), [], profile, given)) == [("a.png", None)]


def test_inputs_name_files_by_position() -> None:
    profile = app("workflow", form=[PICS, DOC])
    inputs = {"pics": ["part:2", "part:0", {"type": "image"}, "other"], "doc": "part:1"}
    plan = plan_files(asking("a.png", "b.pdf", "c.png"), [], profile, inputs)
    assert places(plan) == [("c.png", "pics"), ("a.png", "pics"), ("b.pdf", "doc")]
    values = plan.promised.inputs(inputs)
    assert values["pics"][0] == {"type": "image"}
    assert len(values["pics"]) == 3
    assert values["doc"].transfer_method == "local_file"


REFUSED: dict[str, tuple[TurnRequest, AppProfile, str, str]] = {
    "uploads are off": (asking("a.png"), app(upload={"enabled": False}), "files_not_enabled", "at a.png"),
    "no uploads": (asking("a.png"), app("advanced-chat", None), "files_not_enabled", "at a.png"),
    "a workflow without files": (asking("a.png"), app("workflow", None), "files_not_enabled", "at a.png"),
    "a new agent": (asking("a.png"), app("agent"), "files_not_enabled", "at a.png"),
    "another type": (asking("a.mp3"), app(), "unsupported_file_type", "at a.mp3"),
    "too many": (asking("a.png", "b.png", "c.png", "d.png"), app(), "too_many_files", "at d.png"),
    "a position beyond the end": (
        asking("a.png", inputs={"doc": "part:1"}),
        app("workflow", form=[DOC]),
        "invalid_value",
        "inputs.doc",
    ),
    "a named file of another type": (
        asking("a.mp3", inputs={"doc": "part:0"}),
        app("workflow", form=[DOC]),
        "unsupported_file_type",
        "at a.mp3",
    ),
    "two files for one": (
        asking("a.png", "b.png", inputs={"doc": ["part:0", "part:1"]}),
        app("workflow", form=[DOC]),
        "too_many_files",
        "at b.png",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_files_that_an_app_does_not_accept_are_rejected(case: str) -> None:
    request, profile, code, param = REFUSED[case]
    with pytest.raises(InvalidRequest) as caught:
        plan_files(request, [], profile, request.inputs)
    assert (caught.value.code, caught.value.param) == (code, param)


def test_a_file_that_is_too_large_is_rejected() -> None:
    request = TurnRequest("q", files=(file("a.png", 10 * MB + 1),))
    with pytest.raises(InvalidRequest) as caught:
        plan_files(request, [], app(), {})
    assert (caught.value.code, caught.value.param) == ("file_too_large", "at a.png")
    assert "10 MB" in caught.value.message


def test_ignored_files_are_named_if_they_are_no_error() -> None:
    plan = plan_files(asking("a.png"), [], app(upload=None), {}, warn=True)
    assert (plan.placed, [ignored.file_name for ignored in plan.ignored]) == ((), ["a.png"])


def test_uploads_in_dify_are_not_checked() -> None:
    request = TurnRequest("q", files=(SentFile("audio", upload_id="1"),))
    assert plan_files(request, [], app(), {}).placed[0].kind == "audio"


def test_messages_name_their_files() -> None:
    message = HistoryMessage("user", "Look.", files=(file("a.png"), file("b.png")))
    named = named_files(message, frozenset({"digest of a.png"}))
    assert named.text == "Look.\n[File: a.png]\n[File not included: b.png]"
    assert named_files(HistoryMessage("user", "", files=(SentFile("image"),)), frozenset()).text == (
        "[File not included: image]"
    )
    plain = HistoryMessage("user", "Hi")
    assert named_files(plain, frozenset()) is plain


def test_only_files_in_dify_are_included() -> None:
    rules = FileRules(frozenset({"image"}))
    sent = PlacedFile(file("a.png"), None, "image", rules, True, FileReference("image", "local_file"))
    gone = PlacedFile(file("b.png"), None, "image", rules, False)
    plan = FilePlan((sent, gone))
    assert plan.included == {"digest of a.png"}
    assert plan.references() == [sent.reference]
    assert plan.inputs({}) == {}


# Rules


def test_the_oldest_versions_describe_pictures_only() -> None:
    rules = rules_of_app(
        "chat", parameters(file_upload={"image": {"enabled": True, "transfer_methods": ["remote_url"]}})
    )
    assert rules is not None
    assert (list(rules.kinds), rules.count, rules.remote, rules.local) == (["image"], 10, True, False)


def test_the_picture_switch_counts_alone() -> None:
    upload = {"enabled": False, "allowed_file_types": ["document"], "image": {"enabled": True, "number_limits": 2}}
    rules = rules_of_app("chat", parameters(file_upload=upload))
    assert rules is not None
    assert (list(rules.kinds), rules.count) == (["image"], 2)


def test_types_without_an_image_switch() -> None:
    upload = {"enabled": True, "allowed_file_types": None, "number_limits": "3"}
    rules = rules_of_app("advanced-chat", parameters(file_upload=upload))
    assert rules is not None
    assert (list(rules.kinds), rules.count) == (["image"], 10)


CUSTOM = FileRules(frozenset({"custom"}), {"pdf": "PDF", "xyz": "xyz"})


@pytest.mark.parametrize(
    ("rules", "name", "kind"),
    [
        (CUSTOM, "a.pdf", "custom"),
        (CUSTOM, "a.xyz", "custom"),
        (CUSTOM, "a.bin", None),
        (CUSTOM, "a.png", None),
        (FileRules(frozenset({"custom"})), "a.bin", "custom"),
        (FileRules(frozenset({"image"}), {"pdf": "pdf"}), "a.pdf", None),
    ],
)
def test_custom_types_have_listed_extensions(rules: FileRules, name: str, kind: str | None) -> None:
    sent = file(name)
    assert rules.kind_for(sent.kind, sent.extension) == kind


def test_rules_are_described() -> None:
    assert CUSTOM.described == ".pdf, .xyz"
    assert FileRules(frozenset({"image", "custom"})).described == "image, other files"
    assert FileRules(frozenset()).described == "none"


def test_fields_of_other_kinds_take_no_files() -> None:
    text, one, many = read_form(parameters(user_input_form=[field("paragraph", "a"), DOC, field("file-list", "b")]))
    assert text.files is None
    assert one.files is not None
    assert many.files is not None
    assert (one.files.count, many.files.count) == (1, 10)
    assert many.files.kinds == {"image", "document", "audio", "video"}


@pytest.mark.parametrize(("extension", "limit"), [("png", 1), ("mp3", 2), ("mp4", 3), ("pdf", 4), ("bin", 4), ("", 1)])
def test_sizes_depend_on_the_extension(extension: str, limit: int) -> None:
    sizes = SystemParameters(1, 3, 2, 4)
    assert size_limit("image", extension, sizes) == limit * MB


def test_sizes_without_a_limit_are_difys_defaults() -> None:
    assert size_limit("video", "mp4", None) == 100 * MB
    assert size_limit("custom", "bin", SystemParameters(file_size_limit=True)) == 15 * MB


# In the request to Dify


def in_dify(plan: FilePlan) -> FilePlan:
    return FilePlan(
        tuple(
            structs.replace(item, reference=FileReference(item.kind, "local_file", upload_file_id=item.file.name))
            for item in plan.placed
        ),
        plan.ignored,
    )


def sent(request: TurnRequest, profile: AppProfile, plan: FilePlan, **more: Any) -> Any:
    made = make_generate_request(request, profile, AppRules(), "user", files=plan, **more)
    return json.decode(encode_generate_request(made))


def test_a_chat_sends_files_and_names_those_of_its_transcript() -> None:
    request = structs.replace(asking("c.png"), history=tuple(earlier("a.mp3", "b.png")))
    body = sent(request, app(), in_dify(plan_files(request, request.history, app(), {})))
    assert body["files"] == [
        {"type": "image", "transfer_method": "local_file", "upload_file_id": "b"},
        {"type": "image", "transfer_method": "local_file", "upload_file_id": "c"},
    ]
    assert "about a.mp3\n[File not included: a.mp3]" in body["query"]
    assert "about b.png\n[File: b.png]" in body["query"]


def test_a_continued_chat_sends_its_question_as_it_is() -> None:
    request = structs.replace(asking("c.png"), history=tuple(earlier("a.png")))
    plan = in_dify(plan_files(request, request.history, app(), {}, transcript=False))
    body = sent(request, app(), plan, continuation=Continuation("1", history=False))
    assert (body["query"], len(body["files"])) == ("q", 1)


def test_a_workflow_sends_files_in_its_inputs() -> None:
    profile = app("workflow", None, [field("paragraph", "text", required=True), DOC])
    request = asking("a.pdf")
    body = sent(request, profile, in_dify(plan_files(request, [], profile, {})))
    assert body["inputs"]["doc"] == {"type": "document", "transfer_method": "local_file", "upload_file_id": "a"}
    assert "files" not in body


def test_a_required_file_that_is_missing_is_named() -> None:
    profile = app("workflow", None, [field("paragraph", "text", required=True), DOC])
    with pytest.raises(InvalidRequest, match="a file: send a content part with one"):
        make_generate_request(asking(), profile, AppRules(), "user")


def test_the_question_names_ignored_files() -> None:
    profile = app(upload=None)
    body = sent(asking("a.png"), profile, plan_files(asking("a.png"), [], profile, {}, warn=True))
    assert body["query"] == "q\n[File not included: a.png]"
