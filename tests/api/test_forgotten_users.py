"""``keys forget-user``: everything of one end user is erased, and nothing of the others."""

from __future__ import annotations

import json
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from openai_dify_proxy_demo import DemoLog, DemoServer
from tests.api.chats import Chat, starts_conversation
from tests.api.conftest import Serve
from tests.cli.program import Program
from tests.limits import PATIENCE
from tests.state.servers import ValkeyServer, valkey_program

KEY, OTHER = "sk-of-open-webui-0123456789", "sk-of-another-client-012345"


class EndUser:
    """An end user of a client, with a chat, responses, a conversation and a file."""

    def __init__(self, client: openai.AsyncOpenAI, name: str) -> None:
        self.client = client
        self.name = name
        self.headers = {"X-OpenWebUI-User-Id": name}
        self.chat = Chat(client, "demo-chat", more={"extra_headers": self.headers})
        self.responses: list[str] = []
        self.link = ""

    async def work(self, marker: str) -> None:
        await self.chat.say(f"{marker} 1 of {self.name} SAY<<yes>>")
        for background in (False, True):
            response = await self.client.responses.create(
                model="demo-chat", input=f"{marker} stored", background=background, extra_headers=self.headers
            )
            self.responses.append(response.id)
        conversation = await self.client.conversations.create(extra_headers=self.headers)
        self.conversation = conversation.id
        file = await self.client.files.create(
            file=("a.txt", self.name.encode()), purpose="user_data", extra_headers=self.headers
        )
        self.file = file.id
        drawn = await self.client.chat.completions.create(
            model="demo-workflow",
            messages=[{"role": "user", "content": f"DRAW {self.name}"}],
            extra_headers=self.headers,
        )
        self.link = drawn.model_extra["dify"]["files"][0]["url"]  # type: ignore[index] # the proxy always sends it

    async def found(self) -> list[bool]:
        """Return which of the stored objects are still there."""
        calls: list[Any] = [
            *(self.client.responses.retrieve(name, extra_headers=self.headers) for name in self.responses),
            self.client.conversations.retrieve(self.conversation, extra_headers=self.headers),
            self.client.files.retrieve(self.file),
        ]
        found = []
        for call in calls:
            try:
                await call
                found.append(True)
            except openai.NotFoundError:
                found.append(False)
        async with httpx2.AsyncClient(timeout=PATIENCE, verify=False) as http:
            found.append((await http.get(self.link)).status_code == 200)
        return found


@pytest.fixture(params=["sqlite", "valkey"])
def state(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/state.db"
    else:
        with ValkeyServer(valkey_program(), tmp_path / "valkey").running() as server:
            yield server.url()


async def test_one_end_user_is_forgotten_and_no_other(
    serve: Serve, demo: DemoServer, log: DemoLog, program: Program, state: str
) -> None:
    pictures = program.directory / "pictures"
    proxy = serve(state_url=state, api_keys=(KEY, OTHER), image_storage_dir=str(pictures))
    async with proxy.client(KEY) as client, proxy.client(OTHER) as other:
        anna, bert, namesake = EndUser(client, "anna"), EndUser(client, "bert"), EndUser(other, "anna")
        people = (anna, bert, namesake)
        for person in people:
            await person.work("forgotten")
        await client.responses.retrieve(anna.responses[1], extra_headers=anna.headers)
        assert [await person.found() for person in people] == [[True] * 5] * 3
        settings = {
            "STATE_URL": state,
            "API_KEYS": f"{KEY},{OTHER}",
            "IMAGE_STORAGE_DIR": str(pictures),
            "DIFY_API_URL": demo.url,
            "DIFY_MODEL_MAP": "demo-chat:app-demo-chat,demo-workflow:app-demo-workflow",
        }
        name = f"key-{sha256(KEY.encode()).hexdigest()[:16]}"
        done = program.run("keys", "forget-user", name, "anna", "--yes", "--json", **settings)
        assert done.returncode == 0, done.stderr
        erased = json.loads(done.stdout)
        assert erased == {
            "responses": 2,
            "conversations": 1,
            "files": 1,
            "artifacts": 1,
            "dify_conversations": 3,
            "problems": [],
        }
        assert [await person.found() for person in people] == [[False] * 5, [True] * 5, [True] * 5]
        assert len([path for path in pictures.glob("artifacts/**/*") if path.is_file()]) == 2
        for number, person in enumerate(people):
            await person.chat.say(f"forgotten 2 of {number}")
    assert [starts_conversation(log, f"forgotten 2 of {number}") for number in range(3)] == [True, False, False]
    audit = (program.directory / ".local/share/openai-dify-proxy/audit.jsonl").read_text()
    assert json.loads(audit)["action"] == "end_user_forgotten"
    assert "anna" not in audit


async def test_a_dify_that_is_down_is_reported_and_the_rest_is_erased(serve: Serve, program: Program) -> None:
    state = f"sqlite:///{program.directory}/state.db"
    async with serve(state_url=state, api_keys=(KEY,)).client(KEY) as client:
        anna = EndUser(client, "anna")
        await anna.work("down")
        settings = {"STATE_URL": state, "API_KEYS": KEY, "DIFY_API_URL": "http://127.0.0.1:1", "DIFY_API_KEY": "app-1"}
        name = f"key-{sha256(KEY.encode()).hexdigest()[:16]}"
        done = program.run("keys", "forget-user", name, "anna", "--yes", **settings)
        assert done.returncode == 1
        assert (
            "Erased 2 responses, 1 conversation objects, 1 files, 1 files of apps, and 0 conversations in Dify."
            in done.stdout
        )
        assert "Not erased in Dify: dify: Dify cannot be reached." in done.stderr
        assert await anna.found() == [False] * 5


def test_the_command_asks_first_and_needs_a_known_key(program: Program) -> None:
    unasked = program.run("keys", "forget-user", "key-1", "anna")
    assert unasked.returncode == 1
    assert "There is no key 'key-1'" in unasked.stderr
    program.run("keys", "create", "bot")
    unasked = program.run("keys", "forget-user", "bot", "anna")
    assert unasked.returncode == 1
    assert "Add --yes" in unasked.stderr
