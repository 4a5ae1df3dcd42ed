"""What models.json sets or strips, against a real llama-server: by all names that it has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.proxy.fields import LENGTH
from tests.dialects import ROUTES, asked
from tests.harness import MakeGateway


async def test_every_name_of_a_length_is_bounded(
    make_gateway: MakeGateway, parrot_model: Path
) -> None:
    params = {"model": str(parrot_model), "threads": 1, "ctxSize": 512}
    models: dict[str, Any] = {
        name: {"params": params, "setParams": {name: 1}}
        for name in ("n_predict", "max_output_tokens")
    }
    models["stripped"] = {"params": params, "stripParams": ["max_tokens"]}
    async with make_gateway(models, llama_server="auto", scheduler={"max_loaded": 1}) as running:
        for model in models:
            for path in ROUTES:
                alone = 1 if model != "stripped" else await asked(running, path, model=model)
                for name in LENGTH.names:
                    if model == "stripped" and alone < 3:  # /infill fills two tokens
                        continue
                    assert isinstance(name, str)
                    assert await asked(running, path, model=model, **{name: 2}) == alone, (
                        model,
                        path,
                        name,
                    )


@pytest.mark.parametrize("name", ["stop", "stop_sequences"])
async def test_every_name_of_a_stop_is_shaped(
    make_gateway: MakeGateway, parrot_model: Path, name: str
) -> None:
    params = {"model": str(parrot_model), "threads": 1, "ctxSize": 512}
    models = {"m": {"params": params, "setParams": {name: [" from"]}}}
    async with make_gateway(models, llama_server="auto") as running:
        for path in ROUTES:
            if path != "/infill":
                fields = {"stop": ["river"], "stop_sequences": ["river"]}
                assert await asked(running, path, model="m", **fields) <= 2, path
