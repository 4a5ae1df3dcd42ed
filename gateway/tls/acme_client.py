"""The conversation with an ACME server, by the packages ``acme`` and ``josepy``. Blocks.

One object is one conversation: directory, account, order, proofs, certificate.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import threading
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from gateway import __version__
from gateway.config.settings import AcmeSettings
from gateway.private_files import make_folder
from gateway.tls.acme_challenges import Challenges, alternative_names, key_pem
from gateway.tls.files import write_whole

if TYPE_CHECKING:
    from acme.client import ClientV2
    from acme.messages import AuthorizationResource
    from josepy.jwk import JWKEC

_TIMEOUT = 30  # seconds for one request
_PATIENCE = timedelta(minutes=5)  # for validation and issuance together
_LONGEST_WAIT = 7 * 86400.0  # seconds; no server may ask for more
_NONCES = 5  # tries with fresh nonces; Let's Encrypt may refuse some when it is updated


class AcmeError(Exception):
    """There is no certificate; the message says why in one line. ``retry_after``: seconds
    to wait.
    """

    def __init__(self, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Stopped(Exception):
    """The gateway is shutting down, so the conversation was broken off."""


def missing_packages() -> str | None:
    """Return what has to be installed for ACME, as a sentence; None if nothing has."""
    missing = [name for name in ("acme", "josepy") if importlib.util.find_spec(name) is None]
    if not missing:
        return None
    return f"needs the package {' and '.join(missing)}: pip install {' '.join(missing)}"


class Conversation:
    """A conversation with an ACME authority, used as ``with Conversation(...) as acme``. ``stop``
    can break it off.
    """

    def __init__(
        self,
        settings: AcmeSettings,
        account_file: Path,
        challenges: Challenges,
        stop: threading.Event,
    ) -> None:
        self._settings = settings
        self._account_file = account_file
        self._challenges = challenges
        self._stop = stop
        self._retry_after = 0.0
        self._client: ClientV2
        self._key: JWKEC

    def __enter__(self) -> Conversation:
        from acme.client import ClientV2

        with self._explained():
            self._key = _account_key(self._account_file)
            network = _network(self._settings, self._key, self._stop)
            network.session.hooks["response"].append(self._note_retry_after)
            directory = ClientV2.get_directory(self._settings.directory, network)
            self._client = ClientV2(directory, network)
        return self

    def __exit__(self, *exc: object) -> None:
        self._client.net.session.close()

    def issue(self) -> bytes:
        """Return a new key, and the chain of a certificate for it, as PEM."""
        from cryptography import x509
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.serialization import Encoding

        key = ec.generate_private_key(ec.SECP256R1())
        request = (
            x509.CertificateSigningRequestBuilder()
            .subject_name(x509.Name([]))
            .add_extension(alternative_names(self._settings.domains), critical=False)
            .sign(key, SHA256())
        )
        with self._explained(), contextlib.ExitStack() as proofs:
            self._log_in()
            deadline = datetime.now() + _PATIENCE  # the library's clock is naive local time
            order = self._client.new_order(
                request.public_bytes(Encoding.PEM), profile=self._settings.profile
            )
            for authorization in order.authorizations:
                self._prove(authorization, proofs)
            order = self._client.poll_authorizations(order, deadline)
            order = self._client.finalize_order(order, deadline)
        return key_pem(key) + order.fullchain_pem.encode()

    def advice(self, certificate: bytes) -> tuple[datetime | None, datetime]:
        """Return when the authority wants ``certificate`` (PEM) renewed, and when to ask again
        (ARI).

        The first is aware, or None if the authority has no wish; the second is naive local time.
        """
        with self._explained():
            return self._client.renewal_time(certificate)

    def _log_in(self) -> None:
        from acme import errors, messages

        client, email = self._client, self._settings.email
        if client.external_account_required():
            raise AcmeError("the authority wants an account made elsewhere (external binding)")
        new = messages.NewRegistration.from_data(
            email=email, terms_of_service_agreed=self._settings.agree_tos
        )
        try:
            client.new_account(new)
        except errors.ConflictError as known:  # from an earlier conversation: it has our key
            account = messages.RegistrationResource(
                body=messages.Registration(), uri=known.location
            )
            client.net.account = account

    def _prove(self, authorization: AuthorizationResource, proofs: contextlib.ExitStack) -> None:
        from acme import challenges, messages

        if authorization.body.status == messages.STATUS_VALID:
            return  # proved not long ago
        name = authorization.body.identifier.value
        kind = self._settings.challenge
        offered = {body.to_json()["type"]: body for body in authorization.body.challenges}
        if kind not in offered:
            raise AcmeError(f"the authority offers {name} no {kind}, but {', '.join(offered)}")
        token = offered[kind].to_json()["token"]
        secret = f"{token}.{_thumbprint(self._key)}"
        if kind == "http-01":
            proofs.enter_context(self._challenges.over_http(token, secret))
        else:
            proofs.enter_context(self._challenges.over_tls(name, secret))
        # The library has no class for tls-alpn-01; what is sent is an empty object for both.
        answer = challenges.HTTP01Response(key_authorization=secret)
        self._client.answer_challenge(offered[kind], answer)

    def _note_retry_after(self, response: Any, **_: Any) -> None:
        if response.status_code in (429, 503):
            with contextlib.suppress(ValueError):  # a date: our own pace is slow enough
                wished = int(response.headers.get("Retry-After", "0"))
                self._retry_after = float(min(max(wished, 0), _LONGEST_WAIT))

    @contextlib.contextmanager
    def _explained(self) -> Any:
        """Turn whatever goes wrong into an :class:`AcmeError`: the caller handles all of it
        alike.
        """
        try:
            yield
        except (AcmeError, Stopped):
            raise
        except Exception as error:
            # Servers' texts are part of it: nothing but printable characters in one line.
            words = " ".join(str(error).split()) or "no reason given"
            text = "".join(c if c.isprintable() else "?" for c in words)
            kind = type(error).__name__
            raise AcmeError(f"{kind}: {text[:1000]}", self._retry_after) from error


def _network(settings: AcmeSettings, key: JWKEC, stop: threading.Event) -> Any:
    from acme import messages
    from acme.client import ClientNetwork
    from josepy.jwa import ES256

    class Network(ClientNetwork):
        """A client that ends at the next request after ``stop``, and repeats requests with
        refused nonces.
        """

        def get(self, *args: Any, **options: Any) -> Any:
            if stop.is_set():
                raise Stopped
            return super().get(*args, **options)

        def post(self, *args: Any, **options: Any) -> Any:
            for attempt in range(_NONCES):
                if stop.is_set():
                    raise Stopped
                try:
                    return super().post(*args, **options)
                except messages.Error as error:
                    if error.code != "badNonce" or attempt == _NONCES - 1:
                        raise
            raise AssertionError("unreachable")

    # What the library calls verify_ssl goes to requests, which takes a file of CAs as well.
    trusted = settings.ca_file or os.environ.get("SSL_CERT_FILE")
    return Network(
        key,
        alg=ES256,
        verify_ssl=cast(bool, str(trusted) if trusted else True),
        user_agent=f"llm-gateway/{__version__}",
        timeout=_TIMEOUT,
    )


def _account_key(file: Path) -> JWKEC:
    """Return the account's key, which is made at the first use."""
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
    from josepy.jwk import JWKEC

    if not file.exists():
        make_folder(file.parent)
        write_whole(file, key_pem(ec.generate_private_key(ec.SECP256R1())), secret=True)
    try:
        key = load_pem_private_key(file.read_bytes(), None)
    except (ValueError, TypeError) as error:
        raise AcmeError(f"the account key {file} is damaged: move it away") from error
    return JWKEC(key=key)


def _thumbprint(key: JWKEC) -> str:
    from cryptography.hazmat.primitives.hashes import SHA256
    from josepy.b64 import b64encode

    return b64encode(key.thumbprint(hash_function=SHA256)).decode()
