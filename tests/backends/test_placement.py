"""Where models go: each rule by example, and whatever devices and needs there may be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.backends.device_options import Choice, chosen_devices
from gateway.backends.placement import Card, Demand, Memory, place, taken_by
from gateway.models.local_model import LocalModel, Params


def cards(**sizes: tuple[int, int] | int) -> Memory:
    """Name -> (size, left), or both in one."""
    pairs = {n: (s, s) if isinstance(s, int) else s for n, s in sizes.items()}
    return Memory(tuple(Card(name, size, left) for name, (size, left) in pairs.items()))


def need(size: int, least: int | None = None, **fields: Any) -> Demand:
    return Demand(size, size if least is None else least, **fields)


def test_a_model_goes_where_it_fits_and_leaves_the_least() -> None:
    two = cards(a=24, b=8)
    assert place(need(5), two, {}) == (("b", 5),)
    assert place(need(9), two, {}) == (("a", 9),)
    assert place(need(5), two, {"b": 4}) == (("a", 5),)


def test_one_that_would_fit_on_one_card_spans_none() -> None:
    assert place(need(12), cards(a=24, b=24), {"a": 14, "b": 14}) is None


def test_one_too_big_for_any_card_spans_all_by_what_they_have_left() -> None:
    spans = place(need(40), cards(a=24, b=24), {})
    assert spans == (("a", 21), ("b", 21))  # and some more: layers cannot be divided
    assert place(need(30), cards(a=(24, 24), b=(24, 12)), {}) == (("a", 20), ("b", 10))
    assert place(need(30), cards(a=24, b=24), {"b": 20}) is None


def test_what_other_programs_hold_is_not_there() -> None:
    assert place(need(15), cards(a=(22, 2)), {}) is None
    assert place(need(15), cards(a=(22, 2)), {}, ever=True) == (("a", 15),)
    assert place(need(15), cards(a=(22, 2), b=(22, 16)), {}) == (("b", 15),)


def test_an_estimate_is_not_taken_at_its_word_where_nothing_else_is() -> None:
    estimate = need(10, 8)
    assert place(estimate, cards(a=(20, 9)), {}) == (("a", 10),)
    assert place(estimate, cards(a=(20, 7)), {}) is None
    assert place(estimate, cards(a=(20, 10)), {"a": 1}) is None


def test_what_is_too_big_for_all_there_is_may_try_unless_others_have_taken_much() -> None:
    assert place(need(99), cards(a=20), {}) == (("a", 99),)
    assert place(need(99), cards(a=(20, 16)), {}) == (("a", 99),)
    assert place(need(99), cards(a=(20, 2)), {}) is None
    assert place(need(99), cards(a=20), {"a": 1}) is None
    assert taken_by([place(need(99), cards(a=20, b=20), {}) or ()]).keys() == {"a", "b"}


def test_a_small_card_is_none_for_what_fits_on_a_big_one() -> None:
    assert place(need(10), cards(a=(24, 2), b=8), {}) is None


def test_what_models_json_chooses_is_counted_there() -> None:
    three = cards(a=24, b=24, c=24)
    assert place(need(10, devices=("b",)), three, {}) == (("b", 10),)
    assert place(need(10, devices=("b",)), three, {"b": 20}) is None
    assert place(need(40, devices=("a", "c"), shares=(3, 1)), cards(a=32, b=9, c=24), {}) == (
        ("a", 30),
        ("c", 10),
    )
    assert place(need(40, devices=("a", "c"), shares=(3, 1)), three, {"a": 1}) is None
    assert place(need(20, shares=(1, 1, 0)), three, {"c": 24}) == (("a", 10), ("b", 10))
    # Both have to be used, as llama.cpp does with them.
    assert place(need(10, devices=("a", "b")), three, {}) == (("a", 5), ("b", 5))


def test_layers_in_ram_need_room_there() -> None:
    memory = replace(cards(a=24), ram=Card("RAM", 32, 20))
    assert place(need(5, ram=10), memory, {}) == (("RAM", 10), ("a", 5))
    assert place(need(5, ram=10), memory, {"RAM": 11}) is None
    assert place(need(0, ram=10), memory, {}) == (("RAM", 10),)


def test_where_nothing_is_known_or_needed_all_is_well() -> None:
    assert place(need(9), Memory(), {}) == ()
    assert place(need(0), cards(a=(9, 0)), {"a": 9}) == ()


sizes = st.integers(0, 40)
demands = st.builds(
    lambda size, share, ram: need(size, size * share // 100, ram=ram),
    sizes,
    st.sampled_from([85, 100]),
    st.sampled_from([0, 0, 5]),
)
memories = st.builds(
    lambda pairs, ram: Memory(
        tuple(Card(f"G{i}", max(pair), min(pair)) for i, pair in enumerate(pairs)), ram
    ),
    st.lists(st.tuples(sizes, sizes), min_size=1, max_size=4),
    st.none() | st.builds(lambda a, b: Card("RAM", max(a, b), min(a, b)), sizes, sizes),
)


TWO_CARDS = Memory((Card("G0", 5, 5), Card("G1", 6, 6)), Card("RAM", 10, 10))


@given(memories, st.lists(demands, max_size=8))
@example(TWO_CARDS, [need(6, 5, ram=5)] * 2)
def test_no_device_is_ever_promised_twice(memory: Any, wanted: Any) -> None:
    """Models come one after the other: none goes where it does not fit beside those before it."""
    placed: list[Any] = []
    devices = {card.name: card for card in (*memory.cards, *([memory.ram] if memory.ram else []))}
    for demand in wanted:
        before = taken_by(placed)
        on = place(demand, memory, before)
        if on is None:
            continue
        assert {name for name, _ in on} <= devices.keys()
        on_cards = [(name, size) for name, size in on if name != "RAM"]
        # What it needs is not taken at its word where no other model is, in RAM or on the cards.
        for group in (on_cards, [one for one in on if one[0] == "RAM"]):
            alone = not any(before.get(name) for name, _ in group)
            for name, size in group:
                assert alone or before.get(name, 0) + size <= devices[name].left
        if len(on_cards) > 1:  # no card has enough left for it
            assert demand.size > max(card.left - before.get(card.name, 0) for card in memory.cards)
        if demand.size:
            assert sum(size for _, size in on_cards) >= demand.size - len(on_cards)
        placed.append(on)


@given(memories, demands)
def test_others_only_take_room_away(memory: Any, demand: Any) -> None:
    """What fits beside other programs fits without them."""
    if place(demand, memory, {}) is not None:
        assert place(demand, memory, {}, ever=True) is not None


# --- what models.json chooses ----------------------------------------------------------------

NAMES = ("CUDA0", "CUDA1", "CUDA2")


def chosen(
    *args: str, env: dict[str, str] | None = None, outer: dict[str, str] | None = None
) -> Any:
    spec = LocalModel(name="m", params=Params(model="m.gguf"), extra_args=args, env=env or {})
    return chosen_devices(spec, NAMES, outer or {})


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ((), None),
        (("--flash-attn", "on"), None),
        (("--device", "CUDA1"), Choice(("CUDA1",))),
        (("-dev", "CUDA2,CUDA0"), Choice(("CUDA2", "CUDA0"))),
        (("-dev=none",), Choice()),
        (("--tensor-split", "3,1"), Choice(NAMES, (3, 1))),
        (("-ts", "3/1", "-dev", "CUDA1,CUDA2"), Choice(("CUDA1", "CUDA2"), (3, 1))),
        (("-sm", "none"), Choice(("CUDA0",))),
        (("-sm", "none", "-mg", "2"), Choice(("CUDA2",))),
        (("--main-gpu", "1"), Choice(NAMES)),
        (("-sm", "row"), Choice(NAMES)),
    ],
)
def test_placement_becomes_flags(args: tuple[Any, ...], expected: Any) -> None:
    assert chosen(*args) == expected


def test_placement_becomes_variables() -> None:
    assert chosen(env={"LLAMA_ARG_DEVICE": "CUDA1"}) == Choice(("CUDA1",))
    assert chosen(env={"LLAMA_ARG_TENSOR_SPLIT": "1,1,2"}) == Choice(NAMES, (1, 1, 2))


def test_a_driver_that_hides_some_counts_the_rest_from_0() -> None:
    hidden = {"CUDA_VISIBLE_DEVICES": "2,1"}
    assert chosen(env=hidden) == Choice(("CUDA2", "CUDA1"))
    assert chosen("--device", "CUDA0", env=hidden) == Choice(("CUDA2",))
    assert chosen(env={"CUDA_VISIBLE_DEVICES": "GPU-8932f937"}) == Choice(NAMES)
    # The gateway itself sees 4, 5 and 6 as 0, 1 and 2.
    outer = {"CUDA_VISIBLE_DEVICES": "4,5,6"}
    assert chosen(env={"CUDA_VISIBLE_DEVICES": "5"}, outer=outer) == Choice(("CUDA1",))
