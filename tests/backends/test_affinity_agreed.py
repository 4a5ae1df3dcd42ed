"""Where conversations go that another gateway may have begun."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from gateway.backends.affinity import Affinity


@dataclass(frozen=True)
class Server:
    name: str
    in_flight: int = 0


def of(server: Server) -> bytes:
    return server.name.encode()


SERVERS = [Server("a"), Server("b"), Server("c")]


def conversation(number: int, turns: int) -> tuple[bytes, ...]:
    return (b"system", *(b"%d.%d" % (number, turn) for turn in range(turns)))


def test_all_gateways_send_a_conversation_to_the_same_server() -> None:
    one, two = Affinity[Server](agreed=of), Affinity[Server](agreed=of)
    went = Counter[str]()
    for number in range(300):
        first = one.choose(conversation(number, 1), SERVERS, 30)
        assert first is not None
        one.note(conversation(number, 1), first)
        went[first.name] += 1
        # Its next turn comes by the other gateway, which has never heard of it.
        assert two.choose(conversation(number, 5), list(reversed(SERVERS)), 30) == first
    assert min(went.values()) > 60


def test_a_server_that_goes_moves_only_its_own_conversations() -> None:
    affinity = Affinity[Server](agreed=of)
    for number in range(100):
        before = affinity.choose(conversation(number, 1), SERVERS, 30)
        after = affinity.choose(conversation(number, 1), SERVERS[:2], 30)
        assert after == before or before == SERVERS[2]


def test_one_that_has_too_much_to_do_is_left_out() -> None:
    busy = [Server("a", 9), Server("b"), Server("c")]
    affinity = Affinity[Server](agreed=of)
    chosen = {affinity.choose(conversation(n, 1), busy, 30) for n in range(50)}
    assert chosen == {None, busy[1], busy[2]}


def test_without_other_gateways_nothing_is_agreed() -> None:
    assert Affinity[Server]().choose(conversation(1, 1), SERVERS, 30) is None
