"""A short question with a long answer: what has to be known of it is known by the question."""

from __future__ import annotations

import pytest

from tests.conversations.test_real_llama_server import ask, entry
from tests.harness import MakeGateway

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.mark.parametrize("between", ["nothing", "a swap"])
async def test_conversation_that_began_with_a_short_question_goes_on_with_its_answer(
    make_gateway: MakeGateway, between: str
) -> None:
    model = entry(parallel=2 if between == "nothing" else 1)
    model["params"]["ctxSize"] = 2048
    models = {"a": model, "b": entry()}
    settings = {"llama_server": "auto", "scheduler": {"max_loaded": 1}}
    async with make_gateway(models, cache={"enabled": True}, **settings) as running:
        said = [{"role": "user", "content": "Tell me a very long story."}]
        text, prompt, _ = await ask(running, "a", said, max_tokens=300, ignore_eos=True)
        if between == "a swap":
            await ask(running, "b", [{"role": "user", "content": "Hi"}])
        said += [{"role": "assistant", "content": text}, {"role": "user", "content": "Go on."}]
        _, _, cached = await ask(running, "a", said)
        assert prompt < 48 < 280 < cached
