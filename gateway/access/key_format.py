"""The format of an API key, and the digest that is stored in its place."""

from __future__ import annotations

import hashlib
import re
import secrets
import string
import zlib
from typing import Final

PREFIX: Final = "llmgw_"  # lets secret scanners, and people, recognise a key that leaked
MAX_KEY_CHARS: Final = 512  # old keys may be longer than ours; nobody's are as long as this
#: What clients send when they have no key, in lower case. None of these is anybody's key.
PLACEHOLDERS: Final = frozenset(
    {
        "bearer",  # the scheme alone, put twice
        "null",  # JavaScript's nothing, in a template
        "undefined",
        "none",  # Python's
        "n/a",
        "empty",  # vLLM's documentation, and after it LangChain's
        "no-key",
        "no_key",
        "no-key-required",
        "sk-no-key-required",  # llama.cpp's documentation
        "not-needed",  # LM Studio's examples
        "noop",  # Cline
        "ollama",  # Ollama's documentation
        "lm-studio",  # LM Studio's
        "dummy",  # LiteLLM's and Aider's
        "false",
        "[object object]",  # JavaScript's, of something that isn't a text
        "user_provided",  # LibreChat's setting for "each user has a key", where it leaks
    }
)
#: A placeholder that nobody filled in: ``${API_KEY}``, ``$API_KEY``, ``{{key}}``, ``<your key>``.
_UNFILLED = re.compile(r"\$\{[^{}]*\}|\$[A-Z_][A-Z0-9_]*|\{\{[^{}]*\}\}|<[^<>]*>")
_BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase
_SECRET_CHARS, _SUM_CHARS = 43, 6  # 62**43 > 2**256, 62**6 > 2**32
_OURS = re.compile(rf"{PREFIX}[0-9A-Za-z]{{{_SECRET_CHARS + _SUM_CHARS}}}")


def new_key() -> str:
    """Return ``llmgw_``, 256 random bits in base 62, and a CRC-32 of both for typing errors."""
    start = PREFIX + _base62(secrets.randbits(256), _SECRET_CHARS)
    return start + _checksum(start)


def looks_like_ours(text: str) -> bool:
    """Return whether ``text`` could be a key of ours, complete and without a typing error."""
    return _OURS.fullmatch(text) is not None and _checksum(text[:-_SUM_CHARS]) == text[-_SUM_CHARS:]


def is_placeholder(text: str) -> bool:
    """Return whether ``text`` stands where a key would, and says that there is none."""
    bare = text.strip("\"'")
    return bare.lower() in PLACEHOLDERS or not bare or _UNFILLED.fullmatch(bare) is not None


def hash_key(text: str) -> bytes:
    """Return the SHA-256 digest under which a key is kept and found.

    A slow, salted hash protects passwords, which can be guessed; 256 random bits cannot. Keys
    imported from the old system may be short: the README says to replace them.
    """
    # aiohttp hands over bytes of a header that aren't UTF-8 as lone surrogates.
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _base62(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, rest = divmod(number, 62)
        digits.append(_BASE62[rest])
    return "".join(reversed(digits))


def _checksum(start: str) -> str:
    return _base62(zlib.crc32(start.encode()), _SUM_CHARS)
