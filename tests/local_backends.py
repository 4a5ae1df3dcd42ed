"""Backends with a scripted llama-server that note the states they go through."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from gateway.backends.backend import Backend, Environment, State
from gateway.backends.local import LocalBackend
from gateway.errors import GatewayError
from gateway.models.local_model import LocalModel


class WatchedLocal(LocalBackend):
    """A backend, the states it went through, and a wait for the next one."""

    def __init__(self, spec: LocalModel, environment: Environment, socket_name: str) -> None:
        super().__init__(spec, environment, socket_name, self.note)
        self.states = [self.state]
        self._news = asyncio.Event()

    def note(self, backend: Backend) -> None:
        self.states.append(self.state)
        self._news.set()

    async def reaches(self, state: State, seconds: float = 10) -> None:
        async with asyncio.timeout(seconds):
            while self.state is not state:
                self._news.clear()
                await self._news.wait()


async def failure(backend: Backend) -> GatewayError:
    """What ``ensure_ready`` raises."""
    with pytest.raises(GatewayError) as caught:
        await backend.ensure_ready()
    return caught.value


def kill(backend: Backend, number: signal.Signals = signal.SIGKILL) -> None:
    assert backend.pid is not None
    os.kill(backend.pid, number)
