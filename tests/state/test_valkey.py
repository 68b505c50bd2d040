"""State on a server: unavailable, slow and rejecting servers, and the commands that the store sends."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import uvloop
from structlog.testing import capture_logs

from openai_dify_proxy.settings import SettingsError
from openai_dify_proxy.state import Add, Get, Put, StateUnavailable, Store, Take, open_store
from openai_dify_proxy.state.counters import MOST
from openai_dify_proxy.state.servers import open_server
from openai_dify_proxy.state.store import STATE_TIMEOUT, Count, Draw
from openai_dify_proxy.state.valkey import ValkeyStore
from openai_dify_proxy.state.valkey_index import INDEX, PREFIX
from tests.api.servers import serving
from tests.limits import PATIENCE
from tests.state.servers import ValkeyCluster, ValkeyServer, certificate, tls_relay

DOCS = Path(__file__).parents[2] / "docs" / "settings.md"
PASSWORD = "only-for-tests"


@pytest.fixture
async def store(own_valkey: ValkeyServer) -> AsyncIterator[Store]:
    store = await open_store(own_valkey.url(), max_entries=1000)
    yield store
    await store.close()


async def refusal(store: Store) -> str:
    """Run operations that must fail and return the reason."""
    with pytest.raises(StateUnavailable) as caught:
        await store.run(Take("kind:key-of-mine"), Put("kind:key-of-mine", b"value-of-mine", 60, "ann"))
    assert not re.search("key-of-mine|value-of-mine", str(caught.value))
    return str(caught.value)


def usage(server: ValkeyServer, unit: str) -> dict[bytes, float]:
    return dict(server.ask("ZRANGE", f"{PREFIX}usage:{unit}", 0, -1, "WITHSCORES"))


async def test_keys_have_our_prefix_and_each_owner_has_an_index_of_expiring_entries(
    own_valkey: ValkeyServer, store: Store
) -> None:
    await store.run(Put("kind:a", b"one", 100, "ann"), Put("kind:b", b"two"), Add("kind:c", b"three", 100, "bob"))
    await store.run(Put("kind:d", b"four", 100, "ann"), Put("kind:e", b"own", 100), Put("kind:f", b"six", 100, "ann"))
    await store.run(Take("kind:d", "ann"))
    await store.close()
    keys = [f"kind:{letter}" for letter in "abcef"] + ["index:ann", "index:bob", "usage:entries", "usage:bytes"]
    assert sorted(own_valkey.ask("KEYS", "*")) == sorted((PREFIX + key).encode() for key in keys)
    assert own_valkey.ask("ZRANGE", f"{INDEX}:ann", 0, -1) == [b"kind:a", b"kind:f"]
    assert own_valkey.ask("ZRANGE", f"{INDEX}:bob", 0, -1) == [b"kind:c"]
    assert usage(own_valkey, "entries") == {b"bob": 1, b"ann": 2, b"": 3}
    assert usage(own_valkey, "bytes") == {b"bob": 11, b"ann": 18, b"": 29}
    assert 99_000 < own_valkey.ask("PTTL", PREFIX + "kind:a") <= 100_000
    assert own_valkey.ask("PTTL", PREFIX + "kind:b") == -1


async def test_an_index_without_owners_is_used_up(own_valkey: ValkeyServer) -> None:
    """Entries of earlier versions are found, counted as those of one owner, and removed oldest first."""
    began = time.time()
    for number in range(40):
        own_valkey.ask("SET", f"{PREFIX}kind:old-{number}", b"old", "PX", 3_600_000)
        own_valkey.ask("ZADD", INDEX, repr(began - 100 + number), f"kind:old-{number}")
    own_valkey.ask("SET", f"{PREFIX}kind:secret", b"secret")
    store = await open_store(own_valkey.url(), max_entries=40, timeout=PATIENCE)
    assert await store.run(Take("kind:old-39", "ann"), Put("kind:old-38", b"new", 3600, "ann")) == [b"old", b"old"]
    everything = [Get(f"kind:old-{number}") for number in range(38)]
    for number in range(10):
        await store.run(Put(f"kind:{number}", b"new", 3600, "ann"))
    while None not in (found := await store.run(*everything)):
        pass
    while own_valkey.ask("ZCARD", INDEX) + own_valkey.ask("ZCARD", f"{INDEX}:ann") > 40:
        await store.run(Get("kind:0"))
    found = await store.run(*everything)
    left = [number for number, value in enumerate(found) if value is not None]
    assert left == list(range(38))[-len(left) :]
    assert 25 <= len(left) <= 29
    mine = [Get(f"kind:{number}") for number in range(10)]
    assert await store.run(*mine, Get("kind:old-38"), Get("kind:secret")) == [b"new"] * 11 + [b"secret"]
    assert own_valkey.ask("ZSCORE", INDEX, "kind:old-38") is None
    await store.close()


async def test_a_full_server_forgets_expired_entries_first(own_valkey: ValkeyServer) -> None:
    """The expired entries of an owner that writes no more do not cost another owner entries."""
    now = time.time()
    store = ValkeyStore(
        open_server(own_valkey.url()), max_entries=100, max_bytes=1 << 30, timeout=PATIENCE, clock=lambda: now
    )
    await store.run(*(Put(f"kind:ann-{number}", b"one", 0.001, "ann") for number in range(60)))
    now += 3600
    mine = [Put(f"kind:bob-{number}", b"one", 600, "bob") for number in range(90)]
    for put in mine:
        await store.run(put)
    while own_valkey.ask("ZCARD", f"{INDEX}:ann"):
        await store.run(Get("kind:0"))
    assert await store.run(*(Get(put.key) for put in mine)) == [b"one"] * 90
    await store.close()
    assert usage(own_valkey, "entries") == {b"ann": 0, b"bob": 90, b"": 90}


async def test_a_large_run_does_not_delay_others(own_valkey: ValkeyServer, store: Store) -> None:
    """It has its own connection."""
    await store.run(Get("kind:a"))
    before = own_valkey.ask("INFO")["total_connections_received"]
    large = asyncio.create_task(store.run(Put("kind:large", bytes(10_000_000), 60, "ann")))
    await asyncio.sleep(0)
    assert (
        await asyncio.gather(*(store.run(Put(f"kind:{number}", b"one", 60, "bob")) for number in range(10)))
        == [[None]] * 10
    )
    assert await large == [None]
    assert own_valkey.ask("INFO")["total_connections_received"] - before == 2  # one is that of this test


async def test_concurrent_runs_share_one_connection_and_few_round_trips(own_valkey: ValkeyServer, store: Store) -> None:
    await store.run(Get("kind:a"))
    before = own_valkey.ask("INFO")
    await asyncio.gather(*(store.run(Put(f"kind:{number}", b"one", ttl=60)) for number in range(500)))
    after = own_valkey.ask("INFO")
    # Each INFO of this test opens a separate connection.
    assert after["total_connections_received"] - before["total_connections_received"] == 1
    assert after["total_reads_processed"] - before["total_reads_processed"] < 20


async def test_a_server_that_is_killed_and_comes_back(own_valkey: ValkeyServer, store: Store) -> None:
    await store.run(Put("kind:a", b"one"))
    own_valkey.kill()
    assert re.search("onnect|closed", await refusal(store))
    assert "onnect" in await refusal(store)
    own_valkey.start()
    assert await store.run(Add("kind:a", b"two"), Get("kind:a")) == [None, b"two"]


async def test_runs_in_flight_when_the_server_is_killed(own_valkey: ValkeyServer, store: Store) -> None:
    await store.run(Put("kind:a", b"one"))
    with own_valkey.frozen():
        runs = [asyncio.create_task(store.run(Get("kind:a"))) for _ in range(10)]
        await asyncio.sleep(0)
        own_valkey.kill()
    found = await asyncio.gather(*runs, return_exceptions=True)
    assert {type(one) for one in found} == {StateUnavailable}
    own_valkey.start()
    assert await store.run(Get("kind:a")) == [None]


async def test_a_connection_closed_by_the_server_is_replaced(own_valkey: ValkeyServer, store: Store) -> None:
    await store.run(Put("kind:a", b"one"))
    own_valkey.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    for _ in range(10):  # iterations in which the event loop reports the closed connection
        await asyncio.sleep(0)
    assert await store.run(Take("kind:a")) == [b"one"]


async def test_a_slow_server_times_out_and_its_late_replies_are_dropped(own_valkey: ValkeyServer, store: Store) -> None:
    await store.run(Put("kind:a", b"one"), Put("kind:b", b"two"))
    with own_valkey.frozen(), pytest.raises(StateUnavailable, match=r"no answer within 1 s"):
        await store.run(Get("kind:a"))
    assert await store.run(Get("kind:b")) == [b"two"]


@pytest.mark.parametrize("new_loop", [asyncio.SelectorEventLoop, uvloop.new_event_loop])
def test_a_reply_that_came_while_the_loop_was_busy_counts(
    own_valkey: ValkeyServer, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """Its deadline has passed when the loop reads it, and the timer is examined first."""

    async def run() -> None:
        store = await open_store(own_valkey.url(), max_entries=1000)
        await store.run(Put("kind:a", b"one"))
        with own_valkey.frozen():
            asking = asyncio.create_task(store.run(Get("kind:a")))
            await asyncio.sleep(0.1)  # the request is sent
        time.sleep(2 * STATE_TIMEOUT)  # noqa: ASYNC251 - the loop is busy
        assert await asking == [b"one"]
        await store.close()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(run())


async def test_a_server_that_never_answers() -> None:
    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with serving(listen) as port:
        store = await open_store(f"redis://127.0.0.1:{port}", max_entries=1000)
        assert await refusal(store) == "no answer within 1 s"
        await store.close()


async def test_a_wrong_password_does_not_appear_in_the_error(own_valkey: ValkeyServer) -> None:
    own_valkey.ask("ACL", "SETUSER", "proxy", "on", ">another", "~*", "+@all")
    store = await open_store(own_valkey.url(userinfo=f"proxy:{PASSWORD}@"), max_entries=1000, timeout=PATIENCE)
    assert PASSWORD not in await refusal(store)
    assert "password" in await refusal(store)
    await store.close()


RIGHTS = re.search(r"`(~openai-dify-proxy:\*[^`]+)`, and in a cluster also `([^`]+)`", DOCS.read_text(encoding="utf-8"))


async def run_every_operation(url: str, servers: list[ValkeyServer], rights: str) -> None:
    """Run every operation of a store as a user with these rights only."""
    for server in servers:
        server.ask("ACL", "SETUSER", "proxy", "reset", "on", f">{PASSWORD}", *rights.split())
        server.ask("ACL", "LOG", "RESET")
    store = await open_store(url, max_entries=20, timeout=PATIENCE)
    for number in range(60):
        await store.run(Put(f"kind:{number}", b"one", 60, "ann"), Add("kind:lasting", b"two"), Get("kind:0"))
    assert await store.run(Take("kind:59", "ann"), Get("kind:0")) == [b"one", None]
    assert await store.run(Draw("kind:bucket", 1, 10), Draw("kind:bucket", 1, 10, 0)) != [None, None]
    for amount in (MOST, 1):  # the second sum is too large for the server's own addition
        assert await store.run(Count("kind:counts", 60, (("a", amount),))) == [b'{"a":%d}' % MOST]
    assert await store.run(Count("kind:counts", 60)) == [b'{"a":%d}' % MOST]
    await store.close()
    assert [server.ask("ACL", "LOG") for server in servers] == [[]] * len(servers)


async def test_a_user_with_the_documented_rights(own_valkey: ValkeyServer) -> None:
    assert RIGHTS
    await run_every_operation(own_valkey.url(userinfo=f"proxy:{PASSWORD}@"), [own_valkey], RIGHTS[1])


async def test_a_cluster_user_with_the_documented_rights(cluster: ValkeyCluster) -> None:
    assert RIGHTS
    url = cluster.servers[0].url("valkey+cluster", f"proxy:{PASSWORD}@")
    await run_every_operation(url, cluster.servers, f"{RIGHTS[1]} {RIGHTS[2]}")


async def test_without_the_right_to_update_the_index_runs_fail(own_valkey: ValkeyServer) -> None:
    own_valkey.ask("ACL", "SETUSER", "proxy", "reset", "on", f">{PASSWORD}", "~*", "+@all", "-zadd")
    store = await open_store(own_valkey.url(userinfo=f"proxy:{PASSWORD}@"), max_entries=20, timeout=PATIENCE)
    assert "zadd" in await refusal(store)
    await store.close()


async def test_without_the_right_to_trim_runs_succeed(own_valkey: ValkeyServer) -> None:
    own_valkey.ask("ACL", "SETUSER", "proxy", "reset", "on", f">{PASSWORD}", "~*", "+@all", "-zcard")
    store = await open_store(own_valkey.url(userinfo=f"proxy:{PASSWORD}@"), max_entries=20, timeout=PATIENCE)
    with capture_logs() as logs:
        assert await store.run(*(Put(f"kind:{number}", b"one", 60, "ann") for number in range(60))) == [None] * 60
        assert await store.run(Get("kind:0")) == [b"one"]
        await store.close()
    assert {line["event"] for line in logs} == {"state_trim_failed"}


async def test_a_full_server_still_serves_reads(own_valkey: ValkeyServer, store: Store) -> None:
    await store.run(Put("kind:a", b"one"))
    own_valkey.ask("CONFIG", "SET", "maxmemory", 1)
    assert "maxmemory" in await refusal(store)
    writing, reading = await asyncio.gather(
        store.run(Put("kind:b", b"two")), store.run(Get("kind:a")), return_exceptions=True
    )
    assert isinstance(writing, StateUnavailable)
    assert reading == [b"one"]
    own_valkey.ask("CONFIG", "SET", "maxmemory", 0)
    assert await store.run(Put("kind:b", b"two")) == [None]


async def test_a_server_without_a_required_command(program: Path, tmp_path: Path) -> None:
    older = ValkeyServer(program, tmp_path / "older", "--rename-command", "GETDEL", "")
    with older.running():
        store = await open_store(older.url(), max_entries=1000, timeout=PATIENCE)
        # The server's message repeats the arguments, which the error must not contain.
        assert "unknown command" in await refusal(store)
        await store.close()


async def test_a_unix_socket(own_valkey: ValkeyServer) -> None:
    store = await open_store(f"unix://{own_valkey.socket}", max_entries=1000, timeout=PATIENCE)
    assert await store.run(Put("kind:a", b"one"), Get("kind:a")) == [None, b"one"]
    await store.close()
    assert own_valkey.ask("GET", PREFIX + "kind:a") == b"one"


async def test_another_database(own_valkey: ValkeyServer) -> None:
    store = await open_store(f"{own_valkey.url('redis')}/3", max_entries=1000, timeout=PATIENCE)
    await store.run(Put("kind:a", b"one"))
    await store.close()
    assert own_valkey.ask("DBSIZE") == 0
    assert own_valkey.ask("INFO", "keyspace")["db3"]["keys"] == 1


@pytest.mark.parametrize("scheme", ["valkeys", "rediss"])
async def test_tls_certificates_are_verified(valkey: ValkeyServer, tmp_path: Path, scheme: str) -> None:
    signed, key = certificate(tmp_path)
    async with tls_relay(valkey, signed, key) as port:
        trusting = await open_store(
            f"{scheme}://127.0.0.1:{port}?ssl_ca_certs={signed}", max_entries=1000, timeout=PATIENCE
        )
        assert await trusting.run(Put("kind:a", b"one"), Get("kind:a")) == [None, b"one"]
        await trusting.close()
        wary = await open_store(f"{scheme}://127.0.0.1:{port}", max_entries=1000, timeout=PATIENCE)
        assert "certificate verify failed" in await refusal(wary)
        await wary.close()


async def test_a_cluster_spreads_the_entries(cluster: ValkeyCluster) -> None:
    store = await open_store(cluster.servers[2].url("redis+cluster"), max_entries=1000, timeout=PATIENCE)
    await store.run(*(Put(f"kind:{number}", b"one", 60, "ann") for number in range(90)))
    sizes = [server.ask("DBSIZE") for server in cluster.servers]
    assert sum(sizes) == 91  # including the index
    assert min(sizes) > 10
    await store.close()


async def test_a_cluster_whose_server_is_killed_and_comes_back(program: Path, tmp_path: Path) -> None:
    with ValkeyCluster(program, tmp_path).running() as cluster:
        store = await open_store(cluster.servers[0].url("valkey+cluster"), max_entries=1000, timeout=PATIENCE)
        everything = [Put(f"kind:{number}", b"one", ttl=60) for number in range(90)]
        assert await store.run(*everything) == [None] * 90
        cluster.servers[1].kill()
        with pytest.raises(StateUnavailable):
            await store.run(*everything)
        cluster.servers[1].start()
        while True:
            try:
                found = await store.run(*everything)
            except StateUnavailable:
                continue  # until the three servers agree again
            break
        assert set(found) == {None, b"one"}
        await store.close()


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("redis://127.0.0.1?colour=red", "unexpected keyword argument 'colour'"),
        ("redis+cluster://127.0.0.1?colour=red", "unexpected keyword argument 'colour'"),
        ("redis://127.0.0.1?db=first", "an invalid value"),
        ("rediss://127.0.0.1?ssl_cert_reqs=perhaps", "perhaps"),
    ],
)
async def test_unknown_options_are_rejected_before_connecting(url: str, problem: str) -> None:
    with pytest.raises(SettingsError, match=problem):
        await open_store(url, max_entries=1000, timeout=PATIENCE)
