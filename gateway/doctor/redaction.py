"""Removes secrets from a text before it goes into a bug report. Pure.

Known keys, passphrases and prompts are searched for as they are; what merely looks like a key is
removed as well. Home folders, users, hosts and public addresses are replaced by words for what they
are.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator
from typing import Final

HIDDEN: Final = "***"
#: The least characters of a secret, and of a prompt: shorter ones appear everywhere by chance.
_SHORTEST_SECRET, _SHORTEST_PROMPT = 4, 8
#: How many consecutive words of a prompt show that a line holds a part of it.
_WORDS: Final = 4
_LONGEST_LINE: Final = 400

_PATTERNS: Final = tuple(
    (re.compile(pattern, re.IGNORECASE), replacement)
    for pattern, replacement in (
        (r"-----BEGIN.*", HIDDEN),
        (r"\bllmgw_\w+", HIDDEN),
        (r"\b(?:sk|pk|rk)-[\w-]{8,}", HIDDEN),
        (r"\b(?:hf|gh[pousr]|glpat|xox[abp])[-_][\w-]{8,}", HIDDEN),
        (r"\b(?:AKIA|AIza)[\w-]{12,}", HIDDEN),
        (r"\beyJ[\w-]+\.[\w-]+\.[\w-]*", HIDDEN),
        (r"\b(bearer|basic)\s+[^\s\"',;]+", rf"\1 {HIDDEN}"),
        (
            r"((?:auth|api)[-_]?key|token|passphrase|passw(?:or)?d|secret)"
            r"([\"']?\s*[=:]\s*[\"']?)[^\s\"',;&]+",
            rf"\1\2{HIDDEN}",
        ),
        (r"//[^/@\s]+@", f"//{HIDDEN}@"),
        (r"\b[0-9a-f]{24,}\b", HIDDEN),
        # Letters and digits, as many as no name of a file has without a hyphen or a dot.
        (r"(?<![\w/])(?=[a-z]*\d)(?=\d*[a-z])[a-z0-9]{28,}(?![\w])", HIDDEN),
        (r"[\w.+-]+@[\w-]+\.[\w.-]+", "<email>"),
        (r"\b[A-Z]:[\\/]+Users[\\/]+[^\\/\s\"']+", "~"),
        (r"/(?:var/|export/|usr/)?(?:home|Users)/[^/\s:;,'\"()]+", "~"),
        (r"(?<![\w.~-])/root(?![\w.-])", "~"),
        # What is quoted at length is somebody's text.
        (r"\"[^\"]{40,}\"|'[^']{60,}'", '"..."'),
    )
)
_ADDRESS: Final = re.compile(
    r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?!\.?\w)|(?<![\w.:])[0-9a-fA-F:]{3,39}(?![\w.:])"
)


class Redactor:
    """A redactor of secrets. Each host is replaced by a number, so that a report stays readable."""

    def __init__(
        self,
        *,
        secrets: Iterable[str] = (),
        prompts: Iterable[str] = (),
        homes: Iterable[str] = (),
        hosts: Iterable[str] = (),
        users: Iterable[str] = (),
    ) -> None:
        self._exact: list[tuple[str, str]] = [
            (text, HIDDEN) for text in _longest_first(secrets) if len(text) >= _SHORTEST_SECRET
        ]
        self._exact += [(home.rstrip("/"), "~") for home in _longest_first(homes) if len(home) > 2]
        self._words: list[tuple[re.Pattern[str], str]] = []
        for number, host in enumerate(dict.fromkeys(hosts), 1):
            # Of a file's name it is the beginning: box.example.com-key.pem.
            pattern = rf"(?<![\w-]){re.escape(host)}(?!\w)"
            self._words.append((re.compile(pattern, re.IGNORECASE), f"<host {number}>"))
        for user in dict.fromkeys(users):
            if len(user) > 2 and user != "root":
                self._words.append((re.compile(rf"(?<![\w-]){re.escape(user)}(?![\w-])"), "<user>"))
        whole = [" ".join(prompt.split()).lower() for prompt in prompts]
        self._prompts = [text for text in whole if len(text) >= _SHORTEST_PROMPT]
        self._parts = {part for text in self._prompts for part in _parts(text)}

    def line(self, text: str) -> str:
        """Return ``text`` on one line without secrets; nothing if it has part of a prompt."""
        plain = " ".join(text.split())
        lower = plain.lower()
        if any(prompt in lower for prompt in self._prompts) or not self._parts.isdisjoint(
            _parts(lower)
        ):
            return "(left out: part of a prompt)"
        for secret, instead in self._exact:
            plain = plain.replace(secret, instead)
        for pattern, replacement in _PATTERNS:
            plain = pattern.sub(replacement, plain)
        for pattern, replacement in self._words:
            plain = pattern.sub(replacement, plain)
        plain = _ADDRESS.sub(_hidden_if_public, plain)
        return plain if len(plain) <= _LONGEST_LINE else f"{plain[:_LONGEST_LINE]}..."


def _longest_first(texts: Iterable[str]) -> list[str]:
    return sorted({text.strip() for text in texts}, key=len, reverse=True)


def _parts(text: str) -> Iterator[str]:
    """Yield every few successive words of ``text``."""
    words = re.findall(r"\w+", text)
    for start in range(len(words) - _WORDS + 1):
        yield " ".join(words[start : start + _WORDS])


def _hidden_if_public(found: re.Match[str]) -> str:
    try:
        address = ipaddress.ip_address(found[0])
    except ValueError:
        return found[0]
    return "<address>" if address.is_global else found[0]
