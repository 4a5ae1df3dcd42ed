"""Ray's driver: a process of the gateway's that calls actors for it, and nothing else.

``python -m gateway.cluster.driver ADDRESS`` with a socket as its standard input. Requests come as
``(number, operation, *arguments)`` and are answered by ``(number, error, value)``; ``error`` is
``None``, or the kind and text of an exception. Operations: ``call`` (actor, method, arguments),
``kill`` (actor), ``reserve`` (name, resources), ``reserved`` (prefix), ``release`` (name),
``cancel`` (number).
The first message that it sends has the number 0: whether Ray is joined.

It is apart from the gateway because Ray ends the process of a driver whose head is away for too
long, and for its threads and memory. It ends when the gateway does.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
from collections.abc import Coroutine
from typing import Any

from gateway.cluster import placement_groups
from gateway.cluster.frames import packed, receive
from gateway.cluster.told import NAMESPACE, REGISTRY
from gateway.tasks import spawn

_log = logging.getLogger(__name__)

UNREADABLE = "it runs another version of the gateway: install the same one on all machines"


class Driver:
    """What is asked of ``ray``, which is joined; answers go to ``writer``."""

    def __init__(self, writer: asyncio.StreamWriter, ray: Any) -> None:
        self._writer = writer
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._actors: dict[str, Any] = {}
        self._ray = ray

    def take(self, number: int, operation: str, arguments: tuple[Any, ...]) -> None:
        """Begin an operation."""
        if operation == "cancel":
            if (task := self._tasks.get(arguments[0])) is not None:
                task.cancel()
            return
        work: Coroutine[Any, Any, Any] = getattr(self, f"_{operation}")(*arguments)
        task = self._tasks[number] = spawn(self._carry_out(number, work), name=operation)
        task.add_done_callback(lambda _: self._tasks.pop(number, None))

    def tell(self, number: int, error: tuple[str, str] | None, value: object) -> None:
        """Send an answer."""
        self._writer.write(packed((number, error, value)))

    async def _carry_out(self, number: int, work: Coroutine[Any, Any, Any]) -> None:
        try:
            value = await work
        except Exception as error:
            cause = getattr(error, "cause", None)  # what the actor's method raised
            if isinstance(cause, Exception):
                error = cause
            self.tell(number, (type(error).__name__, str(error)), None)
        else:
            try:
                self.tell(number, None, value)
            except Exception as error:  # it lacks what our own classes have
                _log.warning("an answer cannot be read: %s", error)
                self.tell(number, ("Unreadable", UNREADABLE), None)

    # --- operations ----------------------------------------------------------------------------

    async def _call(self, actor: str, method: str, arguments: tuple[Any, ...]) -> Any:
        handle = self._actors.get(actor)
        if handle is None:
            handle = self._actors[actor] = await asyncio.to_thread(self._find, actor)
        try:
            return await handle.ask.remote(method, *arguments)
        except Exception as error:
            errors = self._ray.exceptions
            # Another one may have its name by now. (A node that is gone makes its actor
            # unschedulable, which to Ray is no error of an actor.)
            if isinstance(error, errors.RayError) and not isinstance(error, errors.RayTaskError):
                self._actors.pop(actor, None)
            raise

    def _find(self, actor: str) -> Any:
        if actor == REGISTRY:
            from gateway.cluster.actors import registry_of

            return registry_of(self._ray)
        try:
            return self._ray.get_actor(actor, NAMESPACE)
        except ValueError:
            raise ValueError(
                "it isn't in the cluster: is it on, connected, and does `llm-gateway node join` "
                "run there?"
            ) from None

    async def _reserve(self, name: str, resources: dict[str, float]) -> None:
        await asyncio.to_thread(placement_groups.reserve, name, resources)

    async def _reserved(self, prefix: str) -> dict[str, tuple[str, ...]]:
        there = await asyncio.to_thread(placement_groups.reserved)
        return {name: of for name, of in there.items() if name.startswith(prefix)}

    async def _kill(self, actor: str) -> None:
        self._actors.pop(actor, None)
        handle = await asyncio.to_thread(self._find, actor)
        await asyncio.to_thread(self._ray.kill, handle, no_restart=True)

    async def _release(self, name: str) -> None:
        await asyncio.to_thread(placement_groups.release, name)


def join(address: str) -> Any:
    """Join the cluster at ``address``, and return Ray. Raises whatever that does."""
    import ray

    ray.init(
        address=address,
        namespace=NAMESPACE,
        log_to_driver=False,
        logging_level=logging.ERROR,
        configure_logging=False,
    )
    return ray


async def serve(connection: socket.socket, ray: Any) -> None:
    """Serve the gateway until it closes the socket."""
    reader, writer = await asyncio.open_connection(sock=connection)
    driver = Driver(writer, ray)
    driver.tell(0, None, None)
    while True:
        try:
            number, operation, *arguments = await receive(reader)
        except asyncio.IncompleteReadError:
            return
        driver.take(number, operation, tuple(arguments))


def main(address: str) -> None:
    """Join, then serve. Joining blocks, and Ray wants the main thread for it."""
    connection = socket.socket(fileno=os.dup(0))
    try:
        ray = join(address)
    except (Exception, SystemExit) as error:
        connection.sendall(packed((0, (type(error).__name__, str(error)), None)))
        return
    asyncio.run(serve(connection, ray))


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    main(sys.argv[1])
    os._exit(0)  # Ray's own end may take seconds, and there is nothing to save
