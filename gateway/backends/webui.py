"""Gets the files of llama-server's own web UI from a llama-server that runs briefly without a
model.

They are inside the program, and it gives them away when asked. A build with router mode
(llama.cpp's README, "Using multiple models") starts without a model; others, xllamacpp among
them, are given ``blank.gguf``, a llama of three kilobytes with nothing but zeros in it.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import hashlib
import logging
import posixpath
import re
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from gateway.backends import process
from gateway.backends.backend import Environment
from gateway.backends.command import find_program, inherited
from gateway.backends.logring import LogRing
from gateway.errors import GatewayError, LoadFailed
from gateway.tasks import cancel_and_wait, spawn
from gateway.upstream import UnixAddress, UpstreamPool, UpstreamRequest

_log = logging.getLogger(__name__)

BLANK_MODEL = Path(__file__).with_name("blank.gguf")
_NAME = "the web UI"
#: Seconds until it must answer, between two checks whether it does, and for one file.
_START_TIMEOUT = 60.0
_PAUSE = 0.02
_FILE_TIMEOUT = 30.0
#: Seconds after a failed start before it is tried again.
_AFTER_FAILURE = 30.0
#: The most files: more than any build has, so that no strange build keeps this busy endlessly.
_MAX_FILES = 300
_MAX_BYTES = 64 * 2**20
#: The files to ask for first. The service worker has a list of all files.
_FIRST = ("", "sw.js", "manifest.webmanifest", "favicon.ico", "build.json")
#: Files that name others (the scripts name none, and are ten megabytes), and how they do.
_NAMES_OTHERS = re.compile(r"|sw\.js|.*\.(html|webmanifest)")
_LINK = re.compile(
    r"""["']((?:[\w.-]+/|/)*(?:[\w.-]+\.[a-z][a-z0-9]{1,10}|workbox-\w+))["']""", re.ASCII
)
_INLINE_SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)


@dataclass(frozen=True, slots=True)
class WebUiFile:
    """A file of the web UI. ``packed``: its bytes, compressed by gzip.

    ``scripts``: of a page, the hashes of the scripts inside it, as a Content-Security-Policy
    (W3C CSP, 2.3.1) has them.
    """

    packed: bytes
    headers: Mapping[str, str]
    etag: str
    scripts: tuple[str, ...] = ()


#: llama-server's headers that are kept: the type of the file, how long it may be cached, and what
#: keeps other pages away from it.
_KEPT_HEADERS = (
    "Content-Type",
    "Cache-Control",
    "Cross-Origin-Embedder-Policy",
    "Cross-Origin-Opener-Policy",
)


class WebUi:
    """The files of the web UI by path, ``""`` being the page; read anew when llama-server is
    another.
    """

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._files: Mapping[str, WebUiFile] = {}
        self._stamp: object = None  # of the program that the files are from
        self._failure: tuple[float, GatewayError] | None = None  # until when, what
        self._reading: asyncio.Task[None] | None = None

    async def page(self) -> Mapping[str, WebUiFile]:
        """Return all files, those of the llama-server that is installed now. Empty if it has none.

        Raises :class:`LoadFailed`.
        """
        try:
            stamp = await asyncio.to_thread(self._find_stamp)
        except GatewayError as error:
            self._failed(error)
            raise
        if self._stamp != stamp:
            if (failure := self._recent_failure()) is not None:
                raise failure
            if self._reading is None:
                self._reading = spawn(self._read(stamp), name=f"read {_NAME}")
            # The first client may leave while others still wait for it.
            await asyncio.wait([self._reading])
            if self._failure is not None:
                raise self._failure[1]
        return self._files

    async def files(self) -> Mapping[str, WebUiFile]:
        """Return all files, as they were when the page was asked for last."""
        return self._files if self._stamp is not None else await self.page()

    async def close(self) -> None:
        """End a llama-server that runs for it."""
        await cancel_and_wait(self._reading)

    def _find_stamp(self) -> tuple[object, ...]:
        environment = self._environment
        program = find_program(environment.llama_server, environment.environ)
        with contextlib.suppress(OSError):
            return (*program, Path(program[-1]).stat().st_mtime_ns)
        return program

    async def _read(self, stamp: tuple[object, ...]) -> None:
        try:
            self._files = await read_files(self._environment)
            self._stamp, self._failure = stamp, None
            _log.info("the web UI of llama-server has %d files", len(self._files))
        except GatewayError as error:
            self._failed(error)
        except BaseException:  # whatever it is, also the gateway's end: those who wait get it
            failure = LoadFailed("the files of the web UI were not read to the end")
            self._failure = (time.monotonic() + _AFTER_FAILURE, failure)
            raise
        finally:
            self._reading = None

    def _recent_failure(self) -> GatewayError | None:
        recent = self._failure is not None and time.monotonic() < self._failure[0]
        return self._failure[1] if self._failure is not None and recent else None

    def _failed(self, error: GatewayError) -> None:
        if self._recent_failure() is None:  # repeated requests must not fill the log
            _log.error("%s: %s", _NAME, error.message)
            self._failure = (time.monotonic() + _AFTER_FAILURE, error)


async def read_files(environment: Environment) -> Mapping[str, WebUiFile]:
    """Start a llama-server, ask it for every file, end it. Raises :class:`LoadFailed`."""
    program = await asyncio.to_thread(find_program, environment.llama_server, environment.environ)
    folder = Path(await asyncio.to_thread(_temporary_folder, environment.runtime_dir))
    without_model = ["--models-dir", str(folder)]
    blank_model = ["--model", str(BLANK_MODEL), "--ctx-size", "256", "--n-gpu-layers", "0"]
    log = LogRing(20)
    try:
        for arguments in (without_model, blank_model):
            async with _serving((*program, *arguments), environment, folder, log) as pool:
                if pool is not None:
                    return MappingProxyType(await _collect(pool))
    except OSError as error:
        raise LoadFailed(f"no llama-server can be started for {_NAME}: {error}") from None
    finally:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
    lines = " | ".join(line for line in log.tail(4) if line)
    raise LoadFailed(f"no llama-server could be started for {_NAME}. Its last lines: {lines}")


def _temporary_folder(where: Path) -> str:
    return tempfile.mkdtemp(prefix="webui-", dir=where)


@contextlib.asynccontextmanager
async def _serving(
    argv: tuple[str, ...], environment: Environment, folder: Path, log: LogRing
) -> AsyncIterator[UpstreamPool | None]:
    """Yield a pool to a running llama-server, or None if it does not come up."""
    socket = environment.runtime_dir / "webui.sock"  # not in ``folder``: paths have to be short
    env = inherited(environment.for_children)
    env["LLAMA_CACHE"] = str(folder)  # where its router looks for models that were downloaded
    pool = UpstreamPool(UnixAddress(str(socket)), max_connections=1, name=_NAME)
    try:
        child = await process.start((*argv, "--host", str(socket)), env, log=log, name=_NAME)
        try:
            await asyncio.to_thread(environment.records.write, child)
            yield pool if await _answers(child, pool) else None
        finally:
            await pool.close()
            await child.stop(environment.stop_grace)
            await asyncio.to_thread(environment.records.remove, child)
    finally:  # one whose start was cancelled may have come as far as its socket
        await asyncio.to_thread(socket.unlink, missing_ok=True)


async def _answers(child: process.Child, pool: UpstreamPool) -> bool:
    """Wait until it does, or has ended, or too long."""
    exited = spawn(child.wait(), name=f"exit of {_NAME}")
    try:
        async with asyncio.timeout(_START_TIMEOUT):
            while not exited.done():
                with contextlib.suppress(GatewayError):
                    fetched = await pool.fetch(
                        UpstreamRequest("GET", "/health"), timeout=_START_TIMEOUT
                    )
                    if fetched.status == 200:
                        return True
                await asyncio.wait([exited], timeout=_PAUSE)
    except TimeoutError:
        pass
    finally:
        exited.cancel()
    return False


async def _collect(pool: UpstreamPool) -> dict[str, WebUiFile]:
    files: dict[str, WebUiFile] = {}
    seen = set(_FIRST)
    paths = list(_FIRST)
    for path in paths:  # which grows
        fetched = await pool.fetch(
            UpstreamRequest("GET", f"/{path}", b"Accept-Encoding: gzip\r\n"),
            timeout=_FILE_TIMEOUT,
            max_body=_MAX_BYTES,
        )
        if fetched.status != 200:
            if not path:
                break  # built without
            continue
        headers = {name.decode("latin-1").title(): value for name, value in fetched.headers}
        file, text = await asyncio.to_thread(_unpack, path, headers, fetched.body)
        files[path] = file
        for link in _links(path, text):
            if link not in seen and len(seen) < _MAX_FILES:
                seen.add(link)
                paths.append(link)
    return files


def _unpack(path: str, headers: Mapping[str, bytes], body: bytes) -> tuple[WebUiFile, str]:
    """Return the file, and its text where that may name other files."""
    packed = headers.get("Content-Encoding") == b"gzip"
    text = ""
    if _NAMES_OTHERS.fullmatch(path):
        text = (gzip.decompress(body) if packed else body).decode("utf-8", "replace")
    if not packed:
        body = gzip.compress(body, mtime=0)
    kept = {name: headers[name].decode("latin-1") for name in _KEPT_HEADERS if name in headers}
    scripts = tuple(map(_hash, _INLINE_SCRIPT.findall(text))) if "<html" in text else ()
    etag = hashlib.sha256(body).hexdigest()[:32]
    return WebUiFile(body, MappingProxyType(kept), etag, scripts), text


def _hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _links(path: str, text: str) -> Iterator[str]:
    for match in _LINK.finditer(text):
        link = match[1] if "." in posixpath.basename(match[1]) else f"{match[1]}.js"
        yield posixpath.normpath(posixpath.join("/", posixpath.dirname(path), link)).lstrip("/")
