"""Files in requests: what reaches Dify, and what its model is shown."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
from dataclasses import replace
from typing import Any

import httpx2
import pytest
from openai import AsyncOpenAI, BadRequestError
from PIL import Image

from openai_dify_proxy_demo import DemoLog, DemoServer
from tests.api.chat_requests import turns
from tests.api.chats import Chat
from tests.api.servers import ProxyServer
from tests.api.test_tools import whole

CHAT_APPS = ("demo-chat", "demo-agent-chat", "demo-advanced-chat")
PDF = b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n"
WAV = b"RIFF\x24\0\0\0WAVEfmt " + bytes(28)


def picture(colour: str, kind: str = "PNG") -> bytes:
    output = io.BytesIO()
    Image.new("RGB", (8, 6), colour).save(output, kind)
    return output.getvalue()


def digest(data: bytes) -> str:
    """Return the hash that the demo's model names."""
    return hashlib.sha256(data).hexdigest()[:12]


def uri(data: bytes, media_type: str = "image/png") -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def image(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


RED, GREEN, BLUE = picture("red"), picture("green"), picture("blue")


def uploads(log: DemoLog) -> int:
    return sum(request.path == "/v1/files/upload" for request in log.requests)


async def ask(client: AsyncOpenAI, model: str, *parts: dict[str, Any], **more: Any) -> str:
    messages: list[Any] = [{"role": "user", "content": list(parts)}]
    answer = await client.chat.completions.create(model=model, messages=messages, **more)
    return answer.choices[0].message.content or ""


@pytest.mark.parametrize("version", ["0.15", "1.11", "1.13", "1.16"])
@pytest.mark.parametrize("model", [*CHAT_APPS, "demo-completion"])
async def test_model_is_shown_the_very_bytes_of_a_picture(
    client: AsyncOpenAI, log: DemoLog, model: str, version: str
) -> None:
    answer = await ask(client, f"{model}@{version}", text("What is it?"), image(uri(RED)))
    assert f"Files: image image.png (image/png, {len(RED)} bytes, sha {digest(RED)}, 8×6)." in answer
    assert "You wrote: “What is it?”" in answer


PARTS: dict[str, tuple[dict[str, Any], str, bytes]] = {
    "image_url as a string": ({"type": "image_url", "image_url": uri(RED)}, "image image.png (image/png", RED),
    "image_url of a JPEG named PNG": (
        image(uri(picture("red", "JPEG"))),
        "image image.jpg (image/jpeg",
        picture("red", "JPEG"),
    ),
    "file_data as a data URI": (
        {"type": "file", "file": {"file_data": uri(PDF, "application/pdf"), "filename": "../a b.pdf"}},
        "document a b.pdf (application/pdf",
        PDF,
    ),
    "file_data as base64": (
        {"type": "file", "file": {"file_data": base64.b64encode(b"# Hi\n").decode(), "filename": "notes.md"}},
        "document notes.md (text/markdown",
        b"# Hi\n",
    ),
    "a flat file part": (
        {"type": "file", "file_data": uri(b"a,b\n", "text/csv"), "filename": "table.csv"},
        "document table.csv (text/csv",
        b"a,b\n",
    ),
}


@pytest.mark.parametrize("case", PARTS)
async def test_every_form_of_part_reaches_the_model_with_its_real_type(
    client: AsyncOpenAI, log: DemoLog, case: str
) -> None:
    part, shown, data = PARTS[case]
    answer = await ask(client, "demo-chat", text("Look."), part)
    assert f"Files: {shown}, {len(data)} bytes, sha {digest(data)}" in answer


async def test_uploads_have_the_user_and_key_of_their_turn(
    proxy: ProxyServer, client: AsyncOpenAI, demo: DemoServer, log: DemoLog
) -> None:
    await ask(client, "demo-chat@1.16", text("Look."), image(uri(picture("#123456"))), user="anna")
    (turn,) = turns(log)
    stored = demo.app.state.demo.uploads[turn.body["files"][0]["upload_file_id"]]
    assert (stored.app, stored.user) == ("demo-chat", turn.body["user"])


async def test_a_picture_without_a_text_gets_a_question(client: AsyncOpenAI, log: DemoLog) -> None:
    await ask(client, "demo-chat", image(uri(RED)))
    assert turns(log)[0].body["query"] == "See the attached file."


@pytest.mark.parametrize("model", CHAT_APPS)
async def test_a_continued_chat_sends_a_picture_once(client: AsyncOpenAI, log: DemoLog, model: str) -> None:
    chat = Chat(client, model, more={"user": f"five turns of {model}"})
    shown = picture("#654321")
    chat.messages.append({"role": "user", "content": [text("one"), image(uri(shown))]})
    await chat.answer()
    for question in ("two", "three", "four", "five"):
        await chat.say(question)
    assert uploads(log) == 1
    assert [len(turn.body.get("files", [])) for turn in turns(log)] == [1, 0, 0, 0, 0]
    assert len({run.conversation_id for run in log.runs}) == 1
    assert [turn.body["query"] for turn in turns(log)] == ["one", "two", "three", "four", "five"]


async def test_the_same_words_with_another_picture_start_another_conversation(
    client: AsyncOpenAI, log: DemoLog
) -> None:
    first = Chat(client, "demo-chat", more={"user": "forks"})
    first.messages.append({"role": "user", "content": [text("SAY<<ok>>"), image(uri(RED))]})
    await first.answer()
    second = first.copy()
    second.messages[0]["content"] = [text("SAY<<ok>>"), image(uri(GREEN))]
    await second.say("again")
    assert "conversation_id" not in turns(log)[1].body
    await first.say("again")
    assert turns(log)[2].body["conversation_id"] == log.runs[0].conversation_id


async def test_a_new_conversation_gets_the_newest_pictures_and_names_the_others(
    client: AsyncOpenAI, log: DemoLog
) -> None:
    pictures = [picture(colour) for colour in ("#000001", "#000002", "#000003", "#000004")]
    messages: list[Any] = []
    for number, data in enumerate(pictures[:3]):
        part = {"type": "file", "file": {"file_data": uri(data), "filename": f"p{number}.png"}}
        messages += [
            {"role": "user", "content": [text(f"question {number}"), part]},
            {"role": "assistant", "content": f"answer {number}"},
        ]
    messages.append({"role": "user", "content": [text("last"), image(uri(pictures[3]))]})
    answer = await client.chat.completions.create(model="demo-chat", messages=messages)
    content = answer.choices[0].message.content or ""
    assert [digest(data) in content for data in pictures] == [False, True, True, True]
    query = turns(log)[0].body["query"]
    assert "User: question 0\n[File not included: p0.png]\n" in query
    assert "User: question 1\n[File: p1.png]\n" in query


async def test_an_old_picture_of_a_text_model_does_not_fail_the_turn(client: AsyncOpenAI, log: DemoLog) -> None:
    messages: list[Any] = [
        {"role": "user", "content": [text("one"), image(uri(RED))]},
        {"role": "assistant", "content": "A red one."},
        {"role": "user", "content": "two"},
    ]
    await client.chat.completions.create(model="demo-chat-blind", messages=messages)
    assert "User: one\n[File not included: image.png]" in turns(log)[0].body["query"]


async def test_an_old_url_that_cannot_be_read_is_named(client: AsyncOpenAI, log: DemoLog) -> None:
    messages: list[Any] = [
        {"role": "user", "content": [text("one"), image("http://127.0.0.1:9/gone.png")]},
        {"role": "assistant", "content": "Nice."},
        {"role": "user", "content": "two"},
    ]
    await client.chat.completions.create(model="demo-chat", messages=messages)
    assert "User: one\n[File not included: gone.png]" in turns(log)[0].body["query"]
    assert "files" not in turns(log)[0].body


REFUSED: dict[str, tuple[str, list[dict[str, Any]], str, str]] = {
    "uploads are off": ("demo-chat-blind", [image(uri(RED))], "files_not_enabled", "messages[0].content[0]"),
    "uploads of a chatflow are off": (
        "demo-advanced-chat-blind",
        [image(uri(RED))],
        "files_not_enabled",
        "messages[0].content[0]",
    ),
    "a new agent": ("demo-agent", [image(uri(RED))], "files_not_enabled", "messages[0].content[0]"),
    "a workflow without file inputs takes sound": (
        "demo-workflow",
        [text("a"), {"type": "input_audio", "input_audio": {"data": base64.b64encode(WAV).decode(), "format": "wav"}}],
        "unsupported_file_type",
        "messages[0].content[1]",
    ),
    "too many": (
        "demo-chat",
        [image(uri(picture(f"#0000{number}0"))) for number in range(4)],
        "too_many_files",
        "messages[0].content[3]",
    ),
    "too large": (
        "demo-chat",
        [{"type": "file", "file": {"file_data": uri(RED + bytes(10 * 1024 * 1024)), "filename": "a.png"}}],
        "file_too_large",
        "messages[0].content[0]",
    ),
    "malformed": ("demo-chat", [image("data:image/png;base64,%")], "invalid_value", "messages[0].content[0]"),
    "empty": ("demo-chat", [image("data:image/png;base64,")], "invalid_value", "messages[0].content[0]"),
    "no URL": ("demo-chat", [image("red.png")], "invalid_value", "messages[0].content[0]"),
    "no source": (
        "demo-chat",
        [{"type": "image_url"}],
        "missing_required_parameter",
        "messages[0].content[0].image_url",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_a_file_that_would_be_ignored_or_rejected_is_an_error(
    client: AsyncOpenAI, log: DemoLog, case: str
) -> None:
    model, parts, code, param = REFUSED[case]
    with pytest.raises(BadRequestError) as caught:
        await ask(client, model, *parts)
    assert (caught.value.code, caught.value.param) == (code, param)
    assert turns(log) == []
    assert uploads(log) == 0


PRIVATE = [
    "http://127.0.0.1/a.png",
    "http://10.0.0.1/a.png",
    "http://[::1]/a.png",
    "http://2130706433/a.png",
    "http://169.254.169.254/latest/meta-data",
    "http://localhost/a.png",
    "http://user:pw@example.org/a.png",
]


@pytest.mark.parametrize("url", PRIVATE)
@pytest.mark.parametrize("model", ["demo-chat", "demo-chat-uploads"])
async def test_private_addresses_are_neither_fetched_nor_passed_on(
    client: AsyncOpenAI, log: DemoLog, model: str, url: str
) -> None:
    with pytest.raises(BadRequestError) as caught:
        await ask(client, model, image(url))
    assert caught.value.param == "messages[0].content[0]"
    files = [{"type": "image", "transfer_method": "remote_url", "url": url}]
    with pytest.raises(BadRequestError):
        await ask(client, model, text("hi"), extra_body={"files": files})
    assert turns(log) == []


async def test_a_public_url_is_passed_on_where_the_app_takes_urls(client: AsyncOpenAI, log: DemoLog) -> None:
    url = "https://example.org/a/photo.jpg?size=2"
    answer = await ask(client, "demo-chat", text("Look."), image(url))
    assert turns(log)[0].body["files"] == [{"type": "image", "transfer_method": "remote_url", "url": url}]
    assert f"Files: image {url}." in answer


async def test_files_in_difys_own_form(client: AsyncOpenAI, log: DemoLog) -> None:
    files = [{"type": "image", "transfer_method": "remote_url", "url": "https://example.org/a"}]
    await ask(client, "demo-chat", text("Look."), extra_body={"files": files})
    assert turns(log)[0].body["files"] == files


async def test_files_of_the_body_belong_to_their_conversation(client: AsyncOpenAI, log: DemoLog) -> None:
    """The same words beside another file, or beside none, do not continue it."""

    def files(name: str) -> dict[str, Any]:
        return {"files": [{"type": "image", "transfer_method": "remote_url", "url": f"https://example.org/{name}"}]}

    chat = Chat(client, "demo-chat", more={"user": "files of the body", "extra_body": files("a")})
    await chat.say("SAY<<ok>> one")
    other, plain = chat.copy(), chat.copy()
    other.more = {**chat.more, "extra_body": files("b")}
    plain.more = {"user": "files of the body"}
    for each in (other, plain):
        await each.say("two")
        assert "conversation_id" not in turns(log)[-1].body
    await chat.say("two")
    assert turns(log)[-1].body["conversation_id"] == log.runs[0].conversation_id


async def test_files_of_the_body_belong_to_their_response(client: AsyncOpenAI, log: DemoLog) -> None:
    """Two answers to the same words, of which each saw another file, lead to two conversations."""
    first = await client.responses.create(model="demo-chat", input="SAY<<ok>>")
    answers = []
    for name in ("a", "b"):
        files = [{"type": "image", "transfer_method": "remote_url", "url": f"https://example.org/{name}"}]
        answers.append(
            await client.responses.create(
                model="demo-chat", input="SAY<<ok>>", previous_response_id=first.id, extra_body={"files": files}
            )
        )
    for answer, run in zip(answers, list(log.runs)[1:3], strict=True):
        await client.responses.create(model="demo-chat", input="And?", previous_response_id=answer.id)
        assert turns(log)[-1].body["conversation_id"] == run.conversation_id


async def test_a_workflow_gets_files_in_its_inputs(client: AsyncOpenAI, log: DemoLog) -> None:
    document = {"type": "file", "file": {"file_data": uri(PDF, "application/pdf"), "filename": "a.pdf"}}
    answer = await ask(client, "demo-workflow-files", text("Look."), document, image(uri(RED)), image(uri(GREEN)))
    inputs = turns(log)[0].body["inputs"]
    assert (inputs["query"], inputs["doc"]["type"], len(inputs["pics"])) == ("Look.", "document", 2)
    assert all(digest(data) in answer for data in (PDF, RED, GREEN))


async def test_inputs_name_files_by_their_position(client: AsyncOpenAI, log: DemoLog) -> None:
    parts = [image(uri(RED)), image(uri(GREEN)), image(uri(BLUE))]
    inputs = {"pics": ["part:2", "part:0"], "doc": "part:1"}
    answer = await ask(client, "demo-workflow-files", text("Look."), *parts, extra_body={"inputs": inputs})
    assert [answer.index(digest(data)) for data in (BLUE, RED, GREEN)] == sorted(
        answer.index(digest(data)) for data in (RED, GREEN, BLUE)
    )


async def test_a_missing_required_file_is_named(client: AsyncOpenAI, log: DemoLog) -> None:
    with pytest.raises(BadRequestError) as caught:
        await ask(client, "demo-workflow-files", text("Look."))
    assert (caught.value.code, caught.value.param) == ("missing_required_parameter", "inputs.doc")


async def test_a_required_file_of_an_earlier_message_is_sent_again(client: AsyncOpenAI, log: DemoLog) -> None:
    messages: list[Any] = [
        {"role": "user", "content": [text("one"), image(uri(RED))]},
        {"role": "assistant", "content": "Nice."},
        {"role": "user", "content": "two"},
    ]
    answer = await client.chat.completions.create(model="demo-workflow-files", messages=messages)
    assert digest(RED) in (answer.choices[0].message.content or "")


async def test_a_position_without_a_file_is_an_error(client: AsyncOpenAI, log: DemoLog) -> None:
    inputs = {"doc": "part:1"}
    with pytest.raises(BadRequestError) as caught:
        await ask(client, "demo-workflow-files", text("Look."), image(uri(RED)), extra_body={"inputs": inputs})
    assert caught.value.param == "inputs.doc"


async def test_pictures_of_two_end_users_never_cross(client: AsyncOpenAI, log: DemoLog) -> None:
    async def chat(user: str, data: bytes, other: bytes) -> None:
        own = Chat(client, "demo-chat@1.16", more={"user": user})
        own.messages.append({"role": "user", "content": [text("same words"), image(uri(data))]})
        answer = await own.answer()
        assert digest(data) in answer
        assert digest(other) not in answer
        assert "I remember 2 earlier messages" in await own.say("next words")

    await asyncio.gather(chat("anna", RED, GREEN), chat("bert", GREEN, RED), chat("carl", RED, GREEN))


async def test_ignored_files_can_be_a_warning(
    proxy: ProxyServer, demo: DemoServer, log: DemoLog, http: httpx2.AsyncClient
) -> None:
    with ProxyServer(replace(proxy.settings, ignored_files="warn")) as warning:
        url = f"{warning.url}/chat/completions"
        await http.post(url, json={"model": "demo-chat-blind", "messages": [{"role": "user", "content": "hi"}]})
        messages = [{"role": "user", "content": [text("Look."), image(uri(RED))]}]
        reply = await http.post(url, json={"model": "demo-chat-blind", "messages": messages})
        reply_to_response = await http.post(
            f"{warning.url}/responses", json={"model": "demo-chat-blind", "input": "hi"}
        )
        content = [{"type": "input_text", "text": "Look."}, {"type": "input_image", "image_url": uri(RED)}]
        body = {"input": [{"role": "user", "content": content}], "previous_response_id": reply_to_response.json()["id"]}
        continued = await http.post(f"{warning.url}/responses", json={"model": "demo-chat-blind", **body})
    assert continued.status_code == reply.status_code == 200
    assert continued.headers["x-unsupported-parameters"] == "input[0].content[1]"
    assert reply.headers["x-unsupported-parameters"] == "messages[0].content[1]"
    assert turns(log)[-1].body["query"] == "Look.\n[File not included: image.png]"


async def test_responses_take_pictures_and_files(client: AsyncOpenAI, log: DemoLog) -> None:
    shown, document = picture("#111111"), PDF + b"of a response"
    content: list[Any] = [
        {"type": "input_text", "text": "Look."},
        {"type": "input_image", "image_url": uri(shown), "detail": "auto"},
        {"type": "input_file", "filename": "a.pdf", "file_data": uri(document, "application/pdf")},
    ]
    first = await client.responses.create(model="demo-chat", input=[{"role": "user", "content": content}])
    assert digest(shown) in first.output_text
    assert digest(document) in first.output_text
    second = await client.responses.create(model="demo-chat", input="And?", previous_response_id=first.id)
    assert "I remember 2 earlier messages" in second.output_text
    assert uploads(log) == 2
    items: Any = await client.responses.input_items.list(first.id)
    assert base64.b64encode(shown).decode() not in items.model_dump_json()
    assert [part.type for part in items.data[0].content] == ["input_text", "input_image", "input_file"]


async def test_a_stored_response_remembers_its_files_in_a_new_conversation(client: AsyncOpenAI, log: DemoLog) -> None:
    shown = picture("#222222")
    content: list[Any] = [{"type": "input_text", "text": "Look."}, {"type": "input_image", "image_url": uri(shown)}]
    first = await client.responses.create(model="demo-chat", input=[{"role": "user", "content": content}])
    await client.responses.create(model="demo-chat", input="And?", previous_response_id=first.id)
    again = await client.responses.create(model="demo-chat", input="Again?", previous_response_id=first.id)
    assert digest(shown) in again.output_text  # Dify's copy of the first turn is used
    assert uploads(log) == 1


async def test_a_lost_conversation_is_started_again_with_its_picture(
    client: AsyncOpenAI, demo: DemoServer, log: DemoLog
) -> None:
    shown = picture("#333333")
    chat = Chat(client, "demo-chat", more={"user": "loses a conversation"})
    chat.messages.append({"role": "user", "content": [text("one"), image(uri(shown))]})
    await chat.answer()
    demo.app.state.demo.conversations.clear()
    assert digest(shown) in await chat.say("two")
    assert turns(log)[-1].body["query"].endswith("two")
    assert "[File: image.png]" in turns(log)[-1].body["query"]


class ForgottenUploads(dict[str, Any]):
    """The uploads of a Dify whose storage loses every file at once."""

    def __setitem__(self, name: str, upload: object) -> None:
        pass


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", [*CHAT_APPS, "demo-completion"])
async def test_a_file_that_dify_has_lost_is_uploaded_again_once(
    client: AsyncOpenAI, demo: DemoServer, log: DemoLog, model: str, stream: bool
) -> None:
    shown = picture("#444444")
    for round_number in range(3):
        if round_number == 1:
            demo.app.state.demo.uploads.clear()
        chat = Chat(client, model, stream=stream, more={"user": f"loses a file {stream}"})
        chat.messages.append({"role": "user", "content": [text("one"), image(uri(shown))]})
        assert digest(shown) in await chat.answer()
    assert uploads(log) == 2
    assert len(turns(log)) == 4


async def test_a_lost_conversation_is_started_again_though_its_picture_is_lost_too(
    client: AsyncOpenAI, demo: DemoServer, log: DemoLog
) -> None:
    shown = picture("#555555")
    chat = Chat(client, "demo-chat", more={"user": "loses everything"})
    chat.messages.append({"role": "user", "content": [text("one"), image(uri(shown))]})
    await chat.answer()
    demo.app.state.demo.conversations.clear()
    demo.app.state.demo.uploads.clear()
    assert digest(shown) in await chat.say("two")
    assert uploads(log) == 2


async def test_a_file_that_dify_loses_at_once_is_an_error(
    client: AsyncOpenAI, demo: DemoServer, log: DemoLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = uri(picture("#666666"))
    await ask(client, "demo-chat", text("one"), image(shown))
    monkeypatch.setattr(demo.app.state.demo, "uploads", ForgottenUploads())
    with pytest.raises(BadRequestError, match="Dify does not know an uploaded file"):
        await ask(client, "demo-chat", text("one"), image(shown))
    assert (len(turns(log)), uploads(log)) == (3, 2)


async def test_an_unknown_file_in_difys_own_form_is_an_error(client: AsyncOpenAI, log: DemoLog) -> None:
    name = "9b04fd65-a5b2-4d4b-8a3d-2a39aa9ad29c"
    unknown = {"type": "image", "transfer_method": "local_file", "upload_file_id": name}
    with pytest.raises(BadRequestError, match="Dify does not know an uploaded file"):
        await ask(client, "demo-chat", text("one"), extra_body={"files": [unknown]})
    assert len(turns(log)) == 1


async def test_a_stream_shows_the_picture_too(client: AsyncOpenAI, log: DemoLog) -> None:
    chat = Chat(client, "demo-advanced-chat", stream=True, more={"user": "streams"})
    chat.messages.append({"role": "user", "content": [text("one"), image(uri(RED))]})
    assert digest(RED) in await chat.answer()


async def test_a_background_response_shows_the_picture_too(client: AsyncOpenAI, log: DemoLog) -> None:
    content: list[Any] = [{"type": "input_text", "text": "Look."}, {"type": "input_image", "image_url": uri(GREEN)}]
    response = await client.responses.create(
        model="demo-chat", input=[{"role": "user", "content": content}], background=True
    )
    log.wait(lambda log: bool(log.runs) and log.runs[-1].finished_at is not None)
    while response.status in ("queued", "in_progress"):
        response = await client.responses.retrieve(response.id)
    assert digest(GREEN) in response.output_text


async def test_a_tool_result_may_have_a_picture(client: AsyncOpenAI, log: DemoLog) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    messages: list[Any] = [
        {"role": "user", "content": "What do you see?"},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": [image(uri(BLUE))]},
    ]
    tool: Any = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
    await client.chat.completions.create(model="demo-chat", messages=messages, tools=[tool])
    assert len(turns(log)[0].body["files"]) == 1


@pytest.mark.parametrize(
    ("model", "sent"),
    [
        ("demo-chat", [1, 0]),  # Dify has the picture of the conversation
        ("demo-advanced-chat", [1, 1]),  # whose model may have no memory
        ("demo-completion", [1, 1]),
    ],
)
async def test_a_repair_shows_the_picture(client: AsyncOpenAI, log: DemoLog, model: str, sent: list[int]) -> None:
    words = "CALL:types What does get_weather say about 'Quito'?"
    messages: list[Any] = [{"role": "user", "content": [text(words), image(uri(picture("#444444")))]}]
    completion = await whole(client, model, messages, tool_choice="required")
    assert completion.dify["tool_emulation"]["repairs"] == 1
    assert [len(turn.body.get("files", [])) for turn in turns(log)] == sent
    assert uploads(log) == 1
