"""Talking to the gateway that runs on the same data folder, over its control socket.

``<data_dir>/gateway.json`` says where that socket is. Whoever may open it is an administrator.
"""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING, Any

from gateway.errors import GatewayError

if TYPE_CHECKING:
    from gateway.config.settings import Settings

TIMEOUT = 5.0  # seconds


class ControlError(GatewayError):
    """A gateway seems to run, but didn't give a usable answer."""

    default_code = "control_failed"


def control_request(
    settings: Settings, method: str, path: str, body: object = None, *, timeout: float = TIMEOUT
) -> tuple[int, Any] | None:
    """Return the status and JSON of the running gateway's answer; ``None`` if none is running.

    ``body`` is sent as JSON. Raises :class:`ControlError` if a gateway runs but doesn't answer so.
    """
    address = control_address(settings)
    if address is None:
        return None
    from http.client import HTTPConnection, HTTPException

    connection = HTTPConnection("localhost", timeout=timeout)
    connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.sock.settimeout(timeout)
        try:
            connection.sock.connect(address)
        except (FileNotFoundError, ConnectionRefusedError):
            return None  # it ended without tidying up
        headers = {} if body is None else {"Content-Type": "application/json"}
        text = None if body is None else json.dumps(body)
        connection.request(method, path, text, headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    except TimeoutError as error:
        message = f"the running gateway did not answer within {timeout:g} s"
        raise ControlError(message) from error
    except (OSError, HTTPException, ValueError) as error:
        message = f"the running gateway cannot be talked to: {error or type(error).__name__}"
        raise ControlError(message) from error
    finally:
        connection.close()


def notify_running_gateway(settings: Settings) -> bool:
    """Tell the running gateway that keys have changed. Return ``False`` if none is running.

    Raises :class:`ControlError` if it could not be told.
    """
    answer = control_request(settings, "POST", "/admin/keys/reload")
    if answer is None:
        return False
    status, content = answer
    if status != 200:
        message = content.get("error", {}).get("message") if isinstance(content, dict) else None
        raise ControlError(f"the running gateway answered {status}: {message or 'no reason given'}")
    return True


def control_address(settings: Settings) -> str | None:
    """Return the control socket of the gateway that runs, or ran last, on this data folder."""
    note = settings.data_dir / "gateway.json"
    try:
        return str(json.loads(note.read_bytes())["control"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ControlError(f"{note} cannot be read: {error}") from error
