"""The route table of a gateway that is put together, and not started."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gateway.access.accounting import Accounting
from gateway.access.gate import KeyGate
from gateway.api.openapi.document import document
from gateway.app import Background, route_table
from gateway.backends.backend import Environment
from gateway.backends.decision import SchedulingLimits
from gateway.backends.facts import Headers
from gateway.backends.process import Records
from gateway.backends.scheduler import Scheduler
from gateway.config.settings import Settings
from gateway.error_log import ErrorLog
from gateway.http.cors import Cors
from gateway.http.hosts import Hosts, Proxies
from gateway.http.lifecycle import Lifecycle
from gateway.http.tls_state import TlsState
from gateway.library import Library
from gateway.models.catalog import EMPTY
from gateway.pipeline.route import Row
from gateway.pipeline.services import Services


def rows(**settings: Any) -> list[Row]:
    """Every route, with these ``settings`` beside the defaults."""
    made = Settings(**settings)
    hosts, proxies = Hosts(made), Proxies(made.trusted_proxies)
    environment = Environment(
        llama_server=made.llama_server,
        llm_storage=made.llm_storage,
        runtime_dir=Path("run"),
        environ={},
        records=Records(Path("children")),
        load_timeout=made.limits.load_timeout,
    )
    scheduler = Scheduler(EMPTY, environment, SchedulingLimits(), queue_size=1, queue_timeout=1)
    accounting = Accounting()
    library = Library(Path("models.json"), EMPTY, None)
    services = Services(
        made,
        accounting=accounting,
        cors=Cors(made.cors.origins),
        errors=ErrorLog(),
        gate=KeyGate(made.auth, hosts, proxies),
        headers=Headers(made.llm_storage),
        hosts=hosts,
        library=library,
        lifecycle=Lifecycle(),
        proxies=proxies,
        scheduler=scheduler,
        tls=TlsState(),
    )
    background = Background(made, library, scheduler, accounting, services.streams)
    return route_table(made, services, background, source=None)


#: Those of the API: without pages, and what stands below /ui/.
API = rows(ui=False, page=False)


def openapi(*, query_key: bool = True) -> dict[str, Any]:
    """The OpenAPI document of the API."""
    return document(API, query_key=query_key)
