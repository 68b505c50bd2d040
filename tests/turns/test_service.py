"""A turn's context manager releases everything, however the block ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from msgspec import structs

from openai_dify_proxy.errors import UpstreamUnreachable
from openai_dify_proxy.files.fetching import UrlFiles
from openai_dify_proxy.files.stored_files import StoredFiles
from openai_dify_proxy.files.uploads import FileUploads
from openai_dify_proxy.limits.ledger import Ledger
from openai_dify_proxy.settings import Settings
from openai_dify_proxy.state.guarded import GuardedStore
from openai_dify_proxy.state.memory import MemoryStore
from openai_dify_proxy.state.store import Get
from openai_dify_proxy.translate.answer import Answer
from openai_dify_proxy.translate.turn_request import HistoryMessage, ToolCall, TurnRequest
from openai_dify_proxy.turns.active_turn import ActiveTurn
from openai_dify_proxy.turns.admission.admittance import Admittance
from openai_dify_proxy.turns.admission.conversation_lines import ConversationLines
from openai_dify_proxy.turns.admission.fair_queue import Line
from openai_dify_proxy.turns.admission.gate import Gate
from openai_dify_proxy.turns.admission.waits import TurnWait
from openai_dify_proxy.turns.apps import Apps
from openai_dify_proxy.turns.callers import ANONYMOUS
from openai_dify_proxy.turns.client import ClientDisconnected, ConnectedClient
from openai_dify_proxy.turns.conversations import Conversations
from openai_dify_proxy.turns.files import TurnFiles
from openai_dify_proxy.turns.locks import Lock
from openai_dify_proxy.turns.profiles import Profiles
from openai_dify_proxy.turns.service import Turns
from openai_dify_proxy.upstream.dify import DifyClient
from openai_dify_proxy.upstream.http import HttpClient
from openai_dify_proxy.upstream.network import Network
from openai_dify_proxy_demo import DemoServer
from tests.api.raw_client import until
from tests.api.servers import demo_apps
from tests.files.artifact_services import artifacts_in
from tests.limits import PATIENCE
from tests.turns.gates import no_probe

APP = "demo-chat"
LOCK = "lock of the test"


@pytest.fixture(scope="module")
def demo() -> Iterator[DemoServer]:
    with DemoServer() as server:
        yield server


class Setup:
    """A Turns service with a state in memory and a clock that the test advances."""

    def __init__(self, url: str, http: HttpClient, directory: Path) -> None:
        self.now = 1_795_000_000.0
        self.store = GuardedStore(MemoryStore(max_entries=1000))
        conversations = Conversations(self.store, ttl=3600, now=lambda: self.now)
        settings = Settings(apps=demo_apps(url), end_user_id="plain")
        dify = DifyClient(http)
        self.apps = Apps(settings)
        stored = StoredFiles(self.store, conversations.secret, ttl=3600, now=lambda: self.now)
        artifacts = artifacts_in(directory, self.store, conversations.secret, dify, lambda: self.now)
        uploads = FileUploads(dify, self.store, UrlFiles(PATIENCE, Network()), stored, artifacts, max_bytes=1)
        files = TurnFiles(uploads, stored, warn=False)
        profiles = Profiles(dify, settings, lambda: self.now)
        self.ledger = Ledger(self.store, days=1, now=lambda: self.now)
        self.turns = Turns(
            settings, self.apps, profiles, dify, conversations, files=files, artifacts=artifacts, ledger=self.ledger
        )

    async def lock(self) -> Lock:
        """Return an acquired lock."""
        lock = Lock(self.store, LOCK, ANONYMOUS.id)
        assert await lock.try_acquire() is not None
        return lock

    async def locked(self) -> bool:
        results = await self.store.run(Get(LOCK))
        return results is not None and results[0] is not None

    async def ask(self, request: TurnRequest, *calls: ToolCall) -> tuple[str, str | None]:
        """Run and commit a turn; return its reply and conversation id. ``calls`` are added to the reply."""
        async with self.turns.run(ANONYMOUS, self.apps.choose(ANONYMOUS, APP), request) as turn:
            reply = await read(turn)
            await turn.commit(HistoryMessage("assistant", reply, calls))
            conversation = turn.ids.conversation_id
        self.now += 60  # no two turns of a Dify conversation start within one second
        return reply, conversation

    async def ask_and_raise(
        self, error: BaseException, request: TurnRequest, turns: list[ActiveTurn] | None = None
    ) -> None:
        """Raise ``error`` in a turn; if ``turns`` is given, append the turn to it and read its first events before."""
        app, lock = self.apps.choose(ANONYMOUS, APP), await self.lock()
        async with self.turns.run(ANONYMOUS, app, request, lock=lock) as turn:
            if turns is not None:
                turns.append(turn)
                await turn.next()
            raise error


async def read(turn: ActiveTurn) -> str:
    answer = Answer()
    async for events in turn:
        answer.add(events)
    return answer.text


@asynccontextmanager
async def setup(url: str) -> AsyncIterator[Setup]:
    http = HttpClient(connect_timeout=30)
    with TemporaryDirectory() as directory:
        here = Setup(url, http, Path(directory))
        try:
            yield here
        finally:
            await here.turns.close(30)
            await http.close()


def first(question: str) -> TurnRequest:
    return TurnRequest(question, asked=(HistoryMessage("user", question),))


def later(question: str, *history: tuple[str, str]) -> TurnRequest:
    earlier = tuple(HistoryMessage(role, text) for role, text in history)
    return TurnRequest(question, history=earlier, asked=(HistoryMessage("user", question),))


class GoneClient(ConnectedClient):
    """A client that disconnects before Dify is asked."""

    disconnected = True


async def test_commit_lets_the_next_turn_continue(demo: DemoServer) -> None:
    async with setup(demo.url) as here:
        reply, conversation = await here.ask(first("Hello!"))
        _, same = await here.ask(later("And now?", ("user", "Hello!"), ("assistant", reply)))
        assert same == conversation


QUESTION = HistoryMessage("user", "How warm is it?")
CALL = ToolCall("call_1", "get_weather", '{"city": "Paris"}')


def result(text: str) -> HistoryMessage:
    return HistoryMessage("tool", text, call_id="call_1")


@pytest.mark.parametrize("chat_id", [None, "chat"])
async def test_a_conversation_continues_after_calls_and_results(demo: DemoServer, chat_id: str | None) -> None:
    """In chats that are named by the client as well, whose questions do not count."""
    user = None if chat_id is None else "ann"

    def request(asked: HistoryMessage, *history: HistoryMessage) -> TurnRequest:
        return TurnRequest(asked.text, asked=(asked,), history=history, chat_id=chat_id, end_user=user)

    async with setup(demo.url) as here:
        reply, conversation = await here.ask(request(QUESTION), CALL)
        calling = HistoryMessage("assistant", reply, (CALL,))
        answer, same = await here.ask(request(result("20 °C"), QUESTION, calling))
        assert same == conversation
        ended = HistoryMessage("assistant", answer)
        thanks = HistoryMessage("user", "Thank you.")
        _, edited = await here.ask(request(thanks, QUESTION, calling, result("30 °C"), ended))
        assert edited != conversation
        respaced = HistoryMessage("assistant", reply, (structs.replace(CALL, arguments='{"city":"Paris"}'),))
        _, same = await here.ask(request(thanks, QUESTION, respaced, result("20 °C"), ended))
        assert same == conversation


async def test_lock_is_released_with_the_commit(demo: DemoServer) -> None:
    async with setup(demo.url) as here:
        lock, app = await here.lock(), here.apps.choose(ANONYMOUS, APP)
        async with here.turns.run(ANONYMOUS, app, first("Hello!"), lock=lock) as turn:
            reply = await read(turn)
            assert await here.locked()
            await turn.commit(HistoryMessage("assistant", reply))
            assert not await here.locked()


@pytest.mark.parametrize("error", [RuntimeError("a fault"), asyncio.CancelledError(), ClientDisconnected()], ids=repr)
async def test_an_exception_in_the_block_stops_dify_and_releases_the_lock(
    demo: DemoServer, error: BaseException
) -> None:
    async with setup(demo.url) as here:
        turns: list[ActiveTurn] = []
        with pytest.raises(type(error)):
            await here.ask_and_raise(error, first("SLOW:1000x50"), turns)
        await here.turns.close(30)
        assert not await here.locked()
        task_id = turns[0].ids.task_id
        await demo.log.wait_for(lambda log: [stop for stop in log.stops if stop.task_id == task_id], 60)


async def test_conversation_stays_locked_until_a_full_dify_has_answered_the_stop_call() -> None:
    """The stream is closed before that. This Dify never notices it, so the stop call is not served."""
    with DemoServer(slots=1, release=2 * PATIENCE) as dify:
        async with setup(dify.url) as here:
            turns: list[ActiveTurn] = []
            with pytest.raises(ClientDisconnected):
                await here.ask_and_raise(ClientDisconnected(), first("SLOW:1000x100"), turns)
            await until(lambda: turns[0].stream.exchange.ended)
            assert not dify.log.stops
            assert await here.locked()
            await here.turns.close(0)
            assert not await here.locked()


async def test_turn_that_is_not_committed_is_not_continued(demo: DemoServer) -> None:
    async with setup(demo.url) as here:
        app = here.apps.choose(ANONYMOUS, APP)
        async with here.turns.run(ANONYMOUS, app, first("Hello!")) as turn:
            reply = await read(turn)
        here.now += 60
        _, other = await here.ask(later("And now?", ("user", "Hello!"), ("assistant", reply)))
        assert other != turn.ids.conversation_id


async def test_client_that_leaves_before_dify_is_asked_releases_everything(demo: DemoServer) -> None:
    """That includes the lock and the stored entry of the conversation."""
    async with setup(demo.url) as here:
        reply, conversation = await here.ask(first("Hello!"))
        request = later("And now?", ("user", "Hello!"), ("assistant", reply))
        lock, app = await here.lock(), here.apps.choose(ANONYMOUS, APP)
        with pytest.raises(ClientDisconnected):
            async with here.turns.run(ANONYMOUS, app, request, client=GoneClient(), lock=lock):
                pytest.fail("Dify was asked")
        assert not await here.locked()
        _, same = await here.ask(request)
        assert same == conversation


async def test_conversation_of_a_turn_stopped_before_dify_names_it_is_recorded(demo: DemoServer) -> None:
    """The client leaves before Dify names the conversation, and the state has no entry for it."""
    async with setup(demo.url) as before, setup(demo.url) as here:
        _, conversation = await before.ask(structs.replace(first("Hello!"), end_user="anna"))
        named = structs.replace(first("And now?"), end_user="anna", conversation_id=conversation)
        app = here.apps.choose(ANONYMOUS, APP)
        with pytest.raises(ClientDisconnected):
            await here.ask_and_raise(ClientDisconnected(), named)
        await here.turns.close(30)
        async with here.turns.run(ANONYMOUS, app, named) as turn:
            assert not turn.claim.unconfirmed


async def test_a_turn_that_fails_before_it_begins_leaves_the_slot_to_its_admit_block() -> None:
    """The profile of its app is not cached, and Dify cannot be reached."""
    with DemoServer() as gone:
        url = gone.url
    async with setup(url) as here:
        app = here.apps.choose(ANONYMOUS, APP)
        gate = Gate(app.dify.url, limit=1, max_queued=1, probe=no_probe, share=None)
        admittance = Admittance(
            [gate], ConversationLines(1), Line(ANONYMOUS.id, None), ConnectedClient(), TurnWait(PATIENCE), 0
        )
        await admittance.enter()
        with pytest.raises(UpstreamUnreachable):
            async with here.turns.run(ANONYMOUS, app, first("Hello!"), admittance=admittance):
                pytest.fail("Dify was asked")
        assert gate.in_use == 1
        admittance.leave()
        assert gate.in_use == 0
