"""Which of several servers a conversation goes to."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest

from gateway.backends.affinity import Affinity
from gateway.upstream import UpstreamRequest
from tests.backends.conftest import MakeRemote
from tests.harness import MakeGateway, eventually
from tests.remote_backends import CHAT, Sink, WatchedRemote
from tests.remote_server import RemoteServer, hold


@dataclass(eq=False)
class Server:
    in_flight: int = 0


def links(text: str) -> tuple[bytes, ...]:
    return tuple(text[:end].encode() for end in range(1, len(text) + 1))


def test_conversation_goes_where_its_last_turn_was() -> None:
    one, two = servers = [Server(), Server()]
    affinity = Affinity[Server]()
    affinity.note(links("abc"), one)
    affinity.note(links("axy"), two)
    assert affinity.choose(links("abcde"), servers, 64) is one
    assert affinity.choose(links("axyz"), servers, 64) is two
    assert affinity.choose(links("abc"), servers, 64) is one, "asked once more"
    affinity.note(links("abcde"), two)
    assert affinity.choose(links("abcdefg"), servers, 64) is two, "where it was last"
    assert affinity.choose(links("abcz"), servers, 64) is one, "a branch"


def test_conversation_that_nobody_had_yet_goes_where_it_is_saved() -> None:
    one, two = servers = [Server(), Server()]
    affinity = Affinity[Server]()
    saved = {id(one): 0, id(two): 3}

    def choose(text: str) -> Server | None:
        return affinity.choose(links(text), servers, 64, lambda server: saved[id(server)])

    assert choose("abcd") is two
    affinity.note(links("abc"), one)
    assert choose("abcd") is one, "it has it in a slot"
    two.in_flight = 10
    assert choose("xyz") is None, "it has too much to do"
    saved[id(two)] = two.in_flight = 0
    assert choose("xyz") is None, "it is saved nowhere"


def test_beginning_that_many_have_draws_nobody() -> None:
    servers = [Server(), Server()]
    affinity = Affinity[Server]()
    affinity.note(links("abc"), servers[0])
    assert affinity.choose(links("abz"), servers, 64) is None
    assert affinity.choose((), servers, 64) is None


def test_server_that_is_not_up_is_not_chosen_but_one_that_had_less_of_it() -> None:
    one, two = Server(), Server()
    affinity = Affinity[Server]()
    affinity.note(links("abc"), one)
    affinity.note(links("abcde"), two)
    assert affinity.choose(links("abcdef"), [one], 64) is one


@pytest.mark.parametrize(
    ("in_flight", "parallel", "chosen"),
    [
        ((0, 0), 64, True),
        ((1, 0), 64, True),  # it has two slots, as far as anybody knows
        ((2, 0), 64, False),
        ((2, 1), 64, True),
        ((3, 1), 64, True),
        ((4, 1), 64, False),
        ((20, 18), 64, True),
        ((1, 0), 2, False),  # one each
        ((1, 1), 2, False),
        ((1, 0), 3, True),
        ((31, 31), 64, True),
        ((32, 31), 64, False),
    ],
)
def test_server_that_is_full_is_spared(
    in_flight: tuple[int, int], parallel: int, chosen: bool
) -> None:
    servers = [Server(count) for count in in_flight]
    affinity = Affinity[Server]()
    affinity.note(links("abc"), servers[0])
    assert affinity.choose(links("abcd"), servers, parallel) is (servers[0] if chosen else None)


def test_what_is_remembered_is_bounded() -> None:
    servers = [Server()]
    affinity = Affinity[Server](most=10)
    for number in range(100):
        affinity.note((b"%d" % number,), servers[0])
    found = [affinity.choose((b"%d" % number,), servers, 64) for number in range(100)]
    assert found == [None] * 90 + servers * 10


# --- among servers elsewhere ---------------------------------------------------------------


async def send(backend: WatchedRemote, text: str) -> Sink:
    sink = Sink()
    request = UpstreamRequest("POST", CHAT, body=b"{}", prefix=links(text))
    await backend.pool.send(request, sink)
    return sink


async def ready(backend: WatchedRemote) -> WatchedRemote:
    await backend.ensure_ready()
    await backend.until(lambda: all(backend.up()))
    return backend


async def test_conversations_stay_with_their_servers(
    make_remote: MakeRemote, servers: list[RemoteServer]
) -> None:
    backend = await ready(make_remote(*servers))
    where: dict[str, int] = {}
    chosen = random.Random(3)
    conversations = {name: name for name in "abcdef"}
    for _ in range(60):
        name = chosen.choice("abcdef")
        before = [len(server.asked) for server in servers]
        await (await send(backend, conversations[name])).done
        after = [len(server.asked) for server in servers]
        (asked,) = (n for n in range(2) if after[n] > before[n])
        assert where.setdefault(name, asked) == asked
        conversations[name] += chosen.choice("xyz")
    assert set(where.values()) == {0, 1}, "and they are spread"


async def test_conversation_moves_when_its_server_goes_and_stays_there(
    make_remote: MakeRemote, servers: list[RemoteServer]
) -> None:
    backend = await ready(make_remote(*servers))
    await (await send(backend, "ab")).done
    (home,) = (server for server in servers if server.asked)
    (other,) = (server for server in servers if server is not home)
    await home.stop()
    await backend.pool.look_again(20)
    await (await send(backend, "abcd")).done
    assert len(other.asked) == 1
    await home.start()
    await backend.until(lambda: all(backend.up()))
    for text in ("abcdef", "abcdefgh"):
        await (await send(backend, text)).done
    assert (len(home.asked), len(other.asked)) == (1, 3)


async def test_conversation_leaves_a_server_that_has_too_much_to_do(
    make_remote: MakeRemote, servers: list[RemoteServer]
) -> None:
    for server in servers:
        server.answers[CHAT] = hold
    backend = await ready(make_remote(*servers, parallel=4))
    for text in ("ab", "abcd", "abcdef"):
        await send(backend, text)
    assert sorted(server.in_flight for server in backend.servers) == [1, 2]


# --- through the gateway -----------------------------------------------------------------------


async def test_requests_without_a_cache_here_stick_to_servers_elsewhere(
    make_gateway: MakeGateway, servers: list[RemoteServer]
) -> None:
    entry = {"url": [server.url for server in servers]}
    async with make_gateway({"m": entry}) as running:
        assert (await running.chat("m"))[0] == 200
        backend = running.gateway.scheduler.backend("m")
        assert backend is not None
        await eventually(lambda: all(server.up for server in backend.servers), "both are up")
        histories = [[{"role": "user", "content": f"{n}"}] for n in range(4)]
        seen: list[set[int]] = [set() for _ in histories]
        for turn in range(4):
            for number, history in enumerate(histories[turn % 2 :]):
                before = [len(server.asked) for server in servers]
                body = {"model": "m", "messages": history}
                status, _ = await running.json("POST", "/v1/chat/completions", json=body)
                assert status == 200
                after = [len(server.asked) for server in servers]
                seen[number + turn % 2] |= {n for n in range(2) if after[n] > before[n]}
                history += [
                    {"role": "assistant", "content": "from elsewhere"},
                    {"role": "user", "content": "x" * (100_000 if turn == 2 else 3)},
                ]
        assert [len(where) for where in seen] == [1, 1, 1, 1]
        assert set.union(*seen) == {0, 1}
