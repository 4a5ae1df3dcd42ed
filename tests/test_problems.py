"""What error messages repeat of values that are wrong."""

from __future__ import annotations

import pytest

from gateway.problems import shown


@pytest.mark.parametrize("key", ["cache.min_tokens", "limits.request.max_tokens", "port"])
def test_number_that_is_no_secret_is_shown(key: str) -> None:
    assert shown(key, 0) == "0"


@pytest.mark.parametrize(
    "key", ["hf_token", "tls.passphrase", "models.m.key", "m.env.HF_TOKEN", "store", "store.url"]
)
def test_secret_is_hidden(key: str) -> None:
    assert shown(key, "s3cret") == "a hidden value"
