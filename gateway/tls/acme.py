"""A certificate that the gateway gets and renews by itself (ACME, RFC 8555).

Until the first certificate arrives, a temporary one is served that nobody trusts. After that there
is always one in use, and a new one takes its place between two handshakes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, TypeVar

from gateway.config.settings import AcmeSettings, TlsSettings
from gateway.problems import InvalidFiles, Problem
from gateway.tls.acme_challenges import Challenges
from gateway.tls.acme_client import AcmeError, Conversation, missing_packages
from gateway.tls.acme_files import AcmeFiles, Held
from gateway.tls.acme_schedule import Pace, ask_again, day, renewal_due, with_advice
from gateway.tls.context import CertificateReloader
from gateway.tls.inspection import FILE, Inspection

_log = logging.getLogger(__name__)
T = TypeVar("T")

_LEAVE = 2.0  # seconds a conversation gets to end when the gateway does
_LOOK_AGAIN = 6 * 3600.0  # seconds: the machine may have slept, or its clock been set


@dataclass(slots=True)
class AcmeStatus:
    """The state of the certificate and its renewal. POSIX times."""

    last_success: float | None = None
    next_try: float | None = None
    last_error: str | None = None
    failures: int = 0  # in a row


class AcmeCertificate:
    """The certificate of the domains in the settings.

    Call :meth:`open` before listening, and :meth:`keep` while listening.
    """

    def __init__(
        self, settings: AcmeSettings, folder: Path, challenges: Challenges, pace: Pace
    ) -> None:
        self._settings = settings
        self._files = AcmeFiles(settings, folder)
        self._challenges = challenges
        self._pace = pace
        self._held: Held | None = None
        self._not_before = 0.0  # POSIX time: what the pace allows
        self._forced = False
        self._wake = asyncio.Event()
        self.status = AcmeStatus()

    @classmethod
    async def open(
        cls,
        settings: AcmeSettings,
        folder: Path,
        tokens: MutableMapping[str, str],
        *,
        pace: Pace | None = None,
        file: str = FILE,
    ) -> AcmeCertificate:
        """Look at what is there. ``folder`` is for ACME alone; ``tokens`` is what http-01
        answers from. Raises :class:`InvalidFiles` if the extra packages are missing.
        """
        if errors := (await asyncio.to_thread(_errors, settings, file)):
            raise InvalidFiles(errors)
        self = cls(settings, folder, Challenges(tokens), pace or Pace())
        self._held = await asyncio.to_thread(self._files.held)
        if self._held is not None:
            self.status.last_success = self._held.start.timestamp()
        self._not_before = await self._permitted()
        return self

    async def to_serve(self) -> TlsSettings:
        """Return what to open the :class:`CertificateReloader` with."""
        return await asyncio.to_thread(self._files.to_serve)

    async def keep(self, reloader: CertificateReloader) -> NoReturn:
        """Get and renew the certificate until cancelled. The sockets must be listening."""
        self._challenges.attach(reloader)
        while True:
            await self._until_due()
            try:
                await self._renew(reloader)
            except (AcmeError, InvalidFiles, OSError) as error:
                await self._failed(error)
            except Exception as error:  # the next try keeps its distance whatever went wrong
                _log.exception("asking for a certificate failed unexpectedly")
                await self._failed(error)

    def renew_now(self) -> None:
        """Ask for a new certificate at once, as far as the pace allows it."""
        self._forced = True
        self._wake.set()

    async def _until_due(self) -> None:
        while True:
            self._wake.clear()
            due, look_again = await self._due()
            due = self.status.next_try = max(due, self._not_before)
            now = time.time()
            if due <= now:
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), min(due, look_again) - now)

    async def _due(self) -> tuple[float, float]:
        """Return when to renew, and when to decide again; POSIX times."""
        held, now = self._held, time.time()
        wanted = frozenset(self._settings.domains)
        if (
            self._forced
            or self.status.failures  # it was due then
            or held is None
            or held.names != wanted
            or held.directory != self._settings.directory
        ):
            return 0.0, now + _LOOK_AGAIN
        advised, again = None, now + _LOOK_AGAIN
        own = renewal_due(held.start, held.end, held.serial)
        if own.timestamp() > now:
            try:
                advised, wished = await self._talk(lambda acme: acme.advice(held.certificate))
                again = ask_again(time.time(), wished)
            except AcmeError as error:
                _log.info("cannot ask when to renew, so it is done at two thirds: %s", error)
        return with_advice(held.start, held.end, own, advised), again

    async def _renew(self, reloader: CertificateReloader) -> None:
        names = ", ".join(self._settings.domains)
        _log.info("asking %s for a certificate for %s", self._settings.directory, names)
        await asyncio.to_thread(self._files.note_try)
        data = await self._talk(lambda acme: acme.issue())
        try:
            tls = await asyncio.to_thread(self._files.take, data)
            await reloader.reload(tls)
        except (AcmeError, InvalidFiles) as error:
            raise AcmeError(str(error), self._pace.after_unusable) from error
        held = self._held = await asyncio.to_thread(self._files.held)
        assert held is not None
        await asyncio.to_thread(self._files.forget_tries)
        self._forced, self._not_before = False, 0.0
        self.status = AcmeStatus(last_success=time.time())
        _log.info("new certificate for %s, valid until %s", names, day(held.end.timestamp()))

    async def _failed(self, error: Exception) -> None:
        status = self.status
        status.failures += 1
        status.last_error = str(error)
        asked = error.retry_after if isinstance(error, AcmeError) else 0.0
        now = time.time()
        self._not_before = max(
            now + self._pace.wait(status.failures),
            now + asked,
            await self._permitted(),
        )
        held = self._held
        in_use = f"the one in use ends {day(held.end.timestamp())}" if held else "there is none yet"
        _log.error(
            "no certificate (failure %d): %s; next try %s; %s",
            status.failures,
            error,
            day(self._not_before),
            in_use,
        )

    async def _permitted(self) -> float:
        tries = await asyncio.to_thread(self._files.tries)
        return self._pace.permitted(tries, time.time())

    async def _talk(self, what: Callable[[Conversation], T]) -> T:
        stop = threading.Event()

        def conversation() -> T:
            with Conversation(
                self._settings, self._files.account_key, self._challenges, stop
            ) as acme:
                return what(acme)

        return await _in_daemon_thread(conversation, stop)


async def _in_daemon_thread(function: Callable[[], T], stop: threading.Event) -> T:
    """Run like ``asyncio.to_thread``, but in a thread that hardly delays the gateway's end.

    The loop waits for its own threads, and a server that does not answer would keep one for as long
    as a request may take. Here ``stop`` is set when the caller is cancelled, and whatever still
    waits for the network after :data:`_LEAVE` is abandoned. Not at once: a thread that runs code
    when the interpreter ends can crash it.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def deliver(result: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def work() -> None:
        result, error = None, None
        try:
            result = function()
        except BaseException as raised:
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop has gone
            loop.call_soon_threadsafe(deliver, result, error)

    threading.Thread(target=work, name="acme", daemon=True).start()
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        stop.set()
        await asyncio.wait((future,), timeout=_LEAVE)
        if not future.cancel():
            future.exception()  # looked at, so that asyncio does not complain
        raise


def inspect_acme(tls: TlsSettings, *, file: str = FILE) -> Inspection:
    """Return what is wrong with ``tls.acme``, which must be set. Blocks, but asks no server."""
    assert tls.acme is not None
    warnings = []
    if tls.acme.challenge == "http-01" and tls.redirect_port is None:
        warnings.append(
            Problem(
                file,
                "tls.redirect_port",
                None,
                "is not set, and http-01 comes to port 80: something there must lead the "
                "authority here (or use challenge: tls-alpn-01, which comes to port 443)",
            )
        )
    return Inspection(_errors(tls.acme, file), tuple(warnings), None)


def _errors(acme: AcmeSettings, file: str) -> tuple[Problem, ...]:
    errors = []
    if missing := missing_packages():
        errors.append(Problem(file, "tls.acme", None, missing))
    if acme.ca_file is not None and not acme.ca_file.is_file():
        errors.append(Problem(file, "tls.acme.ca_file", str(acme.ca_file), "is not a file"))
    return tuple(errors)
