"""KeyLimits of keys: what is let in, what is refused, and what the headers say of it."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from pathlib import Path

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.access.rate_limits import KeyLimits, Limiter, span
from gateway.errors import RateLimited
from gateway.tasks import cancel_and_wait, spawn
from tests.harness import MakeGateway, Running, fake_model

NOON = 12 * 3600.0


class Clocks:
    """A limiter whose time is told, and the tokens of its day."""

    def __init__(self) -> None:
        self.now = 5000.0
        self.today = Counter[str]()
        self.limiter = Limiter(
            self.today.__getitem__, monotonic=lambda: self.now, wall=lambda: NOON + self.now - 5000
        )

    def admitted(self, limits: KeyLimits, tries: int = 1000, *, tokens: int = 0) -> int:
        """How many requests, one after the other, are let in before one is refused."""
        for number in range(tries):
            try:
                self.limiter.admit("k", limits).close(tokens)
            except RateLimited:
                return number
        return tries

    def refusal(self, limits: KeyLimits) -> RateLimited:
        with pytest.raises(RateLimited) as caught:
            self.limiter.admit("k", limits)
        return caught.value


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.0001, "1ms"),
        (0.12, "120ms"),
        (0.9999, "1s"),
        (1, "1s"),
        (1.2, "2s"),
        (59.5, "1m0s"),
        (360, "6m0s"),
        (43_200, "12h0m0s"),
        (90_061, "25h1m1s"),
    ],
)
def test_span_is_as_openai_writes_it(seconds: float, text: str) -> None:
    assert span(seconds) == text


def test_one_is_told_as_one(clocks: Clocks) -> None:
    limits = KeyLimits(rpm=1)
    clocks.admitted(limits)
    assert "may use 1 request per minute (rpm)" in clocks.refusal(limits).message


def test_requests_over_those_per_minute_are_refused(clocks: Clocks) -> None:
    limits = KeyLimits(rpm=60)
    assert clocks.admitted(limits) == 60
    refused = clocks.refusal(limits)
    assert (refused.status, refused.param) == (429, "rpm")
    assert "60 requests per minute" in refused.message
    assert refused.headers == {
        "Retry-After": "1",
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "1m0s",
    }
    clocks.now += 1
    assert clocks.admitted(limits) == 1  # Retry-After was not a lie
    clocks.now += 30.5
    assert clocks.admitted(limits) == 30
    clocks.now += 10**6
    assert clocks.admitted(limits) == 60


@given(st.integers(1, 10_000), st.floats(0, 1e9))
def test_who_waits_as_told_is_let_in(rpm: int, start: float) -> None:
    clocks = Clocks()
    clocks.now = start
    limits = KeyLimits(rpm=rpm, tpm=rpm)
    clocks.admitted(limits, tries=rpm, tokens=3)
    for _ in range(3):
        try:
            clocks.limiter.admit("k", limits).close(3)
        except RateLimited as refused:
            clocks.now += float(refused.headers["Retry-After"])
            clocks.limiter.admit("k", limits).close(3)


def test_tokens_are_charged_afterwards(clocks: Clocks) -> None:
    limits = KeyLimits(tpm=600)
    assert clocks.admitted(limits, tokens=400) == 2  # the second overdraws it by 200
    refused = clocks.refusal(limits)
    assert refused.param == "tpm"
    assert refused.headers["Retry-After"] == "21"  # the debt of 20 s, and one token
    assert refused.headers["x-ratelimit-remaining-tokens"] == "0"
    assert refused.headers["x-ratelimit-reset-tokens"] == "1m20s"
    clocks.now += 20
    clocks.refusal(limits)
    clocks.now += 1
    assert clocks.admitted(limits, tokens=400) == 1


def test_tokens_per_day_end_at_midnight(clocks: Clocks) -> None:
    limits = KeyLimits(tpd=1000)
    clocks.today["k"] = 999
    assert clocks.admitted(limits, tries=1) == 1
    clocks.today["k"] = 1000
    refused = clocks.refusal(limits)
    assert refused.param == "tpd"
    assert refused.headers["Retry-After"] == str(12 * 3600)
    assert refused.headers["x-should-retry"] == "false"
    assert refused.headers["x-ratelimit-reset-tokens"] == "12h0m0s"


def test_requests_at_once_over_the_limit_are_refused(clocks: Clocks) -> None:
    limits = KeyLimits(concurrency=2)
    first, _second = (clocks.limiter.admit("k", limits) for _ in range(2))
    refused = clocks.refusal(limits)
    assert (refused.param, refused.headers) == ("concurrency", {"Retry-After": "1"})
    first.close(0)
    clocks.limiter.admit("k", limits)
    clocks.refusal(limits)


def test_a_refused_request_uses_nothing(clocks: Clocks) -> None:
    limits = KeyLimits(rpm=5, concurrency=1)
    grant = clocks.limiter.admit("k", limits)
    for _ in range(100):
        clocks.refusal(limits)
    assert grant.headers()["x-ratelimit-remaining-requests"] == "4"


def test_keys_do_not_share(clocks: Clocks) -> None:
    limits = KeyLimits(rpm=1)
    for key_id in ("a", "b"):
        clocks.limiter.admit(key_id, limits)
        with pytest.raises(RateLimited):
            clocks.limiter.admit(key_id, limits)


def test_changed_limits_hold_at_once(clocks: Clocks) -> None:
    assert clocks.admitted(KeyLimits(rpm=10)) == 10
    assert clocks.admitted(KeyLimits(rpm=100)) == 90
    clocks.refusal(KeyLimits(rpm=10))


def test_the_tighter_token_limit_is_told(clocks: Clocks) -> None:
    limits = KeyLimits(tpm=100, tpd=1000)
    grant = clocks.limiter.admit("k", limits)
    assert grant.headers()["x-ratelimit-limit-tokens"] == "100"
    clocks.today["k"] = 990
    assert grant.headers() == {
        "x-ratelimit-limit-tokens": "1000",
        "x-ratelimit-remaining-tokens": "10",
        "x-ratelimit-reset-tokens": "12h0m0s",
    }


def test_a_look_at_the_limits_costs_microseconds(clocks: Clocks) -> None:
    limits = KeyLimits(rpm=10**9, tpm=10**9, tpd=10**9, concurrency=9)

    def once() -> float:
        start = time.perf_counter()
        for _ in range(200):
            clocks.limiter.admit("k", limits).close(7)
        return (time.perf_counter() - start) / 200

    assert min(once() for _ in range(5)) < 50e-6  # measured: 2 µs


# --- through HTTP --------------------------------------------------------------------------


async def key_with(running: Running, **limits: int) -> str:
    ring = running.gateway.ring
    assert ring is not None
    _, key = await ring.create("limited", limits=limits)
    return key


CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


async def test_answer_tells_limits_and_refusal_is_rate_limit_error(
    make_gateway: MakeGateway, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    async with make_gateway({"m": fake_model(tmp_path)}) as running:
        key = await key_with(running, rpm=2, tpm=60)
        for remaining, stream in (("1", False), ("0", True)):
            async with running.request(
                "POST", "/v1/chat/completions", json={**CHAT, "stream": stream}, key=key
            ) as response:
                assert response.status == 200
                told = {k: v for k, v in response.headers.items() if k.startswith("x-ratelimit")}
                assert told["x-ratelimit-limit-requests"] == "2"
                assert told["x-ratelimit-remaining-requests"] == remaining
                assert told["x-ratelimit-limit-tokens"] == "60"
                # The first answer took five tokens, which stands in its own headers.
                assert told["x-ratelimit-remaining-tokens"] in ("55", "56")
                assert told["x-ratelimit-reset-tokens"] in ("5s", "4s")
                await response.read()
        async with running.request(
            "POST", "/v1/chat/completions", json=CHAT, key=key, headers={"Origin": "https://a.b"}
        ) as response:
            error = (await response.json())["error"]
            assert response.status == 429
            assert error["type"] == "rate_limit_error"
            assert error["code"] == "rate_limit_exceeded"
            assert error["param"] == "rpm"
            assert 25 <= int(response.headers["Retry-After"]) <= 30
            assert response.headers["x-ratelimit-remaining-requests"] == "0"
            assert "x-ratelimit-reset-requests" in response.headers["Access-Control-Expose-Headers"]
        # Only requests to a model count, and only of that key.
        for path in ("/models", "/v1/models", "/health"):
            with subtests.test(f"{path!r:.80}"):
                async with running.request("GET", path, key=key) as response:
                    assert response.status == 200
                    assert "x-ratelimit-limit-requests" not in response.headers
        async with running.request("POST", "/v1/chat/completions", json=CHAT) as response:
            assert response.status == 200
            assert not [name for name in response.headers if name.startswith("x-ratelimit")]


async def test_openai_client_understands(make_gateway: MakeGateway, tmp_path: Path) -> None:
    async with make_gateway({"m": fake_model(tmp_path)}) as running:
        running.key = await key_with(running, tpd=5)
        async with running.openai() as client:
            messages = [{"role": "user", "content": "hi"}]
            raw = await client.chat.completions.with_raw_response.create(
                model="m",
                messages=messages,  # type: ignore[arg-type]
            )
            assert raw.headers["x-ratelimit-remaining-tokens"] == "0"
            with pytest.raises(openai.RateLimitError, match="5 tokens per day"):
                await client.with_options(max_retries=2).chat.completions.create(
                    model="m",
                    messages=messages,  # type: ignore[arg-type]
                )
        assert len(running.gateway.accounting.recent) == 1


async def test_too_many_requests_at_once_are_refused_over_http(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    models = {"m": fake_model(tmp_path), "slow": fake_model(tmp_path, hang=1)}
    async with make_gateway(models, scheduler={"max_loaded": 2}) as running:
        key = await key_with(running, concurrency=1)
        body = {**CHAT, "model": "slow"}
        hanging = spawn(
            running.json("POST", "/v1/chat/completions", json=body, key=key), name="hanging"
        )
        while not running.gateway.scheduler.in_flight:
            await asyncio.sleep(0.01)
        status, answer = await running.json("POST", "/v1/chat/completions", json=CHAT, key=key)
        assert (status, answer["error"]["param"]) == (429, "concurrency")
        # Hanging up gives the place back.
        await cancel_and_wait(hanging)
        while running.gateway.scheduler.in_flight:
            await asyncio.sleep(0.01)
        status, _ = await running.json("POST", "/v1/chat/completions", json=CHAT, key=key)
        assert status == 200
        assert [record.status for record in running.gateway.accounting.recent] == [499, 200]


async def test_hanging_up_early_is_no_way_around_the_limit(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    models = {"m": fake_model(tmp_path, chunks=500, pause=0.005)}
    async with make_gateway(models) as running:
        key = await key_with(running, tpm=20)
        body = {**CHAT, "stream": True}
        async with running.request("POST", "/v1/chat/completions", json=body, key=key) as response:
            await response.content.readuntil(b"word29 ")
        while not running.gateway.accounting.recent:
            await asyncio.sleep(0.01)
        (record,) = running.gateway.accounting.recent
        assert record.status == 499
        assert 25 <= record.usage.completion_tokens < 400
        status, answer = await running.json("POST", "/v1/chat/completions", json=CHAT, key=key)
        assert (status, answer["error"]["param"]) == (429, "tpm")


async def test_a_failed_request_gives_its_place_back(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    async with make_gateway({"m": fake_model(tmp_path, garbage=1)}) as running:
        key = await key_with(running, concurrency=1, rpm=100)
        for _ in range(3):
            async with running.request(
                "POST", "/v1/chat/completions", json=CHAT, key=key
            ) as response:
                assert response.status == 502
                assert "x-ratelimit-remaining-requests" in response.headers
