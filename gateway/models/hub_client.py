"""Talks to the hub by its own client, which handles tokens, mirrors (``HF_ENDPOINT``) and proxies.

Files come by :meth:`Hub.stream` and not by its ``hf_hub_download``, which keeps nothing of a
download that was killed (version 2.4), and not over Xet, which writes a file in no order: plain
HTTP goes on at any byte. All of it blocks; no error holds the token.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import urlsplit

from gateway.errors import BadRequest, Forbidden, GatewayError, NotFound
from gateway.models.hub import HubFile, Reference, Repository, repository

#: Seconds to wait for the list of files.
_PATIENCE: Final = 20.0
#: Bytes in one request: content delivery networks have a limit, some of 50 GB.
AT_ONCE: Final = 16 * 2**30
#: Statuses of a busy server: the same request may work soon.
_BUSY: Final = (408, 425, 429, 500, 502, 503, 504)
_BROKE_OFF: Final = ("RemoteProtocolError", "ReadError", "WriteError", "DecodingError")
_RANGE: Final = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


Pieces = Generator[bytes | None, None, None]


class NoHubClient(GatewayError):
    """501: huggingface-hub is not installed (RFC 9110, 15.6.2)."""

    status = 501
    default_code = "hub_not_installed"
    retryable = False


def check_installed() -> None:
    """Check for the client without importing it, which takes a second. Raises
    :class:`NoHubClient`.
    """
    try:
        found = importlib.util.find_spec("huggingface_hub")
    except (ImportError, ValueError):  # ValueError: it was made unavailable
        found = None
    if found is None:
        raise NoHubClient(
            "pull needs the package huggingface-hub: pip install 'llm-api-gateway[hub]'"
        )


class HubRefuses(Forbidden):
    """A refusal: the repository is gated, or the token may not read it."""

    default_code = "hub_refuses"


class HubFailed(GatewayError):
    """502: the hub can't be reached, or its answer can't be used."""

    status = 502
    default_code = "hub_failed"


class Interrupted(HubFailed):
    """An interruption: the same may work in a moment. ``wait``: seconds that the hub asks for, if
    it does.
    """

    default_code = "hub_interrupted"

    def __init__(self, message: str, wait: float | None = None) -> None:
        super().__init__(message)
        self.wait = wait


class Hub:
    """The hub, or a mirror: the one that the environment names, unless ``endpoint`` names another.

    Raises :class:`NoHubClient`, :class:`BadRequest` for a token that is none.
    """

    def __init__(self, endpoint: str | None = None) -> None:
        # Else each process asks the hub which programs there are that may have started it.
        os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
        check_installed()
        self._hub: Any = importlib.import_module("huggingface_hub")
        self._utils: Any = importlib.import_module("huggingface_hub.utils")
        self._errors: Any = importlib.import_module("huggingface_hub.errors")
        self._utils.disable_progress_bars()
        self._utils.logging.set_verbosity_error()  # it warns of what we say ourselves
        #: The network errors of httpx, which newer clients call httpx2.
        self._lost = tuple(
            sys.modules[name].RequestError for name in ("httpx2", "httpx") if name in sys.modules
        )
        self.endpoint: str = endpoint or self._hub.constants.ENDPOINT
        token = self._hub.get_token()
        self.has_token = token is not None
        if token is not None and not (token.isascii() and token.isprintable()):
            raise BadRequest("HF_TOKEN holds characters that no token has", code="wrong_token")

    @property
    def host(self) -> str:
        """The host of the hub, for people."""
        return urlsplit(self.endpoint).hostname or self.endpoint

    def repository(self, reference: Reference, revision: str | None = None) -> Repository:
        """Return what is in a repository now. Raises :class:`GatewayError`."""
        with self._told(reference.repository, revision):
            info = self._hub.HfApi(endpoint=self.endpoint).model_info(
                reference.repository, revision=revision, files_metadata=True, timeout=_PATIENCE
            )
        files = [
            HubFile(
                one.rfilename,
                one.size,
                one.lfs.sha256 if one.lfs is not None else None,
                one.blob_id,
            )
            for one in info.siblings or ()
            if isinstance(one.rfilename, str) and isinstance(one.size, int) and one.size >= 0
        ]
        if not re.fullmatch(r"[0-9a-f]{40,64}", info.sha or ""):
            raise HubFailed(f"{self.host} does not say which state {reference.repository} is in")
        return repository(reference.repository, info.sha, files, gated=bool(info.gated))

    def stream(
        self, where: Repository, file: HubFile, start: int
    ) -> Generator[bytes | None, None, None]:
        """Yield the bytes of a file from ``start`` on; ``None`` first where it begins at 0 all the
        same.

        The stream may end early; ask again for the rest. Raises :class:`Interrupted` if a retry may
        work soon, else :class:`GatewayError`.
        """
        headers = self._utils.build_hf_headers()
        headers["Accept-Encoding"] = "identity"  # else there are no ranges
        end = min(start + AT_ONCE, file.size)
        if start or end < file.size:
            headers["Range"] = f"bytes={start}-{end - 1}"
        # The address of a file, and not what it leads to: that is good for an hour.
        url = self._hub.hf_hub_url(
            where.id, file.path, revision=where.commit, endpoint=self.endpoint
        )
        with (
            self._told(where.id, None),
            self._utils.http_stream_backoff(
                "GET",
                url,
                headers=headers,
                timeout=self._hub.constants.HF_HUB_DOWNLOAD_TIMEOUT,
                max_retries=0,  # the caller waits, and says so
                retry_on_exceptions=(),
                retry_on_status_codes=(),
            ) as answer,
        ):
            self._utils.hf_raise_for_status(answer)
            if start and not self._goes_on(answer, file, start):
                yield None
            yield from answer.iter_bytes()

    def _goes_on(self, answer: Any, file: HubFile, start: int) -> bool:
        if answer.status_code != 206:
            return False
        part = _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
        if part is None or int(part[1]) != start or part[2] not in ("*", str(file.size)):
            raise HubFailed(
                f"{self.host} sends another part of {file.path} than was asked for: if it is a "
                "mirror, try another (HF_ENDPOINT)"
            )
        return True

    # --- errors ------------------------------------------------------------------------------

    @contextmanager
    def _told(self, name: str, revision: str | None) -> Iterator[None]:
        """Yield what goes wrong inside, in words for a person."""
        errors = self._errors
        try:
            yield
        except errors.OfflineModeIsEnabled:
            raise BadRequest(
                "HF_HUB_OFFLINE is set: without it the hub may be asked", code="hub_offline"
            ) from None
        except errors.HfHubHTTPError as error:
            raise self._refusal(error, name, revision) from None
        except self._lost as error:
            raise self._lost_as(error) from None
        except (ValueError, KeyError, TypeError, AttributeError):
            raise HubFailed(
                f"{self.host} has answered what cannot be understood: is it the hub, or a mirror "
                "of it (HF_ENDPOINT)?"
            ) from None

    def _lost_as(self, error: Exception) -> GatewayError:
        """Return our error for one of httpx's, by its name."""
        kind = type(error).__name__
        request = getattr(error, "_request", None)  # `request` raises where there is none
        host = request.url.host if request is not None else self.host  # what delivers is another
        if kind == "ReadTimeout":
            return Interrupted(f"{host} has stopped answering")
        if kind in _BROKE_OFF:
            return Interrupted(f"the connection to {host} broke off")
        reason = "no answer in time" if "Timeout" in kind else str(error).rstrip(".") or kind
        if kind == "LocalProtocolError":
            reason = kind  # its text may have the token in it
        return Interrupted(
            f"{host} cannot be reached ({reason}): is there a network? A proxy is named by "
            "HTTPS_PROXY, a mirror by HF_ENDPOINT"
        )

    def _refusal(self, error: Any, name: str, revision: str | None) -> GatewayError:
        status: int = error.response.status_code
        headers = error.response.headers
        code = headers.get("X-Error-Code", "")
        page = f"{self.endpoint}/{name}"
        if code == "GatedRepo":
            if self.has_token:
                return HubRefuses(
                    f"{name} is gated, and the account of this token has no access: ask for it at "
                    f"{page}",
                    code="gated",
                )
            return HubRefuses(
                f"{name} is gated: accept its terms at {page}, then set HF_TOKEN to a token of "
                f"that account ({self.endpoint}/settings/tokens)",
                code="gated",
            )
        if code == "RevisionNotFound":
            return NotFound(f"{name} has no revision {revision!r}", param="revision")
        if code == "EntryNotFound":
            return NotFound(f"{name} has lost a file meanwhile: {page}")
        if status == 401 and self.has_token and code != "RepoNotFound":
            return HubRefuses(
                f"{self.host} does not take this token: HF_TOKEN must be a valid one, or none",
                code="wrong_token",
            )
        if status in (401, 404):
            private = (
                "the token may not see it"
                if self.has_token
                else "it is private: then set HF_TOKEN to a token of an account that may see it"
            )
            return NotFound(f"{self.host} has no repository {name}, or {private}", param="model")
        if status == 403:
            return HubRefuses(
                f"{self.host} does not let this token read {name}: it needs the right to read it "
                f"({self.endpoint}/settings/tokens)"
                if self.has_token
                else f"{self.host} does not let {name} be read without a token: set HF_TOKEN"
            )
        if status in _BUSY:
            wait = headers.get("Retry-After", "")
            told = float(wait) if wait.isdecimal() and len(wait) < 6 else None
            if status == 429:
                more = "" if self.has_token else "; with a token (HF_TOKEN) it takes more"
                return Interrupted(f"{self.host} has had too many requests{more}", told)
            return Interrupted(f"{self.host} has answered {status}: it is busy or down", told)
        return HubFailed(f"{self.host} has answered {status} for {name}")
