"""How Ray is started on a machine: arguments and variables. Pure.

Ray's own command is used as its documentation says (``ray start --block``); what differs from its
defaults is what a home needs: little memory, no dashboard, no statistics sent away, nobody let in
without the token, and nothing killed because a model fills the RAM.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from gateway import __version__

#: The label of a Ray node with the version of this program.
VERSION: Final = "llm-gateway-version"
#: The longest temporary folder: Ray's sockets are 63 bytes below it (unix(7): 107 in all).
LONGEST_FOLDER: Final = 43
#: What Ray's command writes when everything is up.
STARTED: Final = "Ray runtime started."
#: The least that Ray takes for objects, of which ours are small.
_OBJECTS: Final = 75 * 2**20
#: Where programs are started that join Ray: it has what they start import from their folder, too,
#: on every machine, and before anything else. In a clone of ours, for example, that would not be
#: the program that was installed.
WORK_FOLDER: Final = "/"
#: Nothing here is read by what runs models: :func:`gateway.backends.command.inherited` leaves it
#: to Ray.
_VARIABLES: Final[Mapping[str, str]] = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # For how long a node, and what runs there, bears that the head is away: thirty days.
    "RAY_gcs_rpc_server_reconnect_timeout_s": str(30 * 86400),
    # A head that isn't there is told within seconds.
    "RAY_py_gcs_connect_timeout_s": "8",
    # Another patch release of Python does no harm.
    "RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL": "minor",
    # Ray ends processes when RAM is nearly full, which models make it on purpose.
    "RAY_memory_monitor_refresh_ms": "0",
    # GPUs are ours to hand out: without this, Ray hides them from what asks it for none.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # Whoever ends a node has waited already, if that was wanted.
    "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
    # Its logs lie in a folder for temporary files.
    "RAY_ROTATION_MAX_BYTES": str(4 * 2**20),
    "RAY_ROTATION_BACKUP_COUNT": "1",
    "RAY_BACKEND_LOG_LEVEL": "warning",
}
#: For what starts Ray, when its head is known to be there: on a busy machine that takes its time.
PATIENT: Final[Mapping[str, str]] = {"RAY_py_gcs_connect_timeout_s": "30"}
#: For the head, which keeps what it knows on disk and looks whether nodes live: one that is ended
#: is noticed after three seconds, one that doesn't answer after six.
_HEAD: Final[Mapping[str, str]] = {
    "RAY_gcs_storage": "rocksdb",
    "RAY_health_check_initial_delay_ms": "2000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
}


def variables(token: Path | None) -> dict[str, str]:
    """Return the variables of everything that talks to Ray. ``token``: the file with the cluster's
    token; ``None``: a cluster of somebody else's, without one.
    """
    if token is None:
        return dict(_VARIABLES)
    return {**_VARIABLES, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}


def head_variables(token: Path, storage: Path) -> dict[str, str]:
    """Return the variables of a head that keeps its state in the folder ``storage``."""
    return {**variables(token), **_HEAD, "RAY_gcs_storage_path": str(storage)}


def head(host: str, port: int, folder: Path) -> tuple[str, ...]:
    """Return the command of a head at ``host``. ``folder``: for temporary files."""
    return (
        *_start(host, folder),
        *("--head", "--port", str(port), "--node-name", "head"),
        *("--include-dashboard", "false", "--no-monitor", "--disable-usage-stats"),
    )


def node(
    address: str, host: str, name: str, resources: Mapping[str, int], folder: Path
) -> tuple[str, ...]:
    """Return the command of the node ``name`` at ``host``, of the head at ``address``."""
    return (
        *_start(host, folder),
        *("--address", address, "--node-name", name, "--resources", json.dumps(resources)),
    )


def _start(host: str, folder: Path) -> tuple[str, ...]:
    return (
        *(sys.executable, "-P", "-m", "ray.scripts.scripts", "start", "--block"),
        *("--node-ip-address", host, "--num-cpus", "1", "--num-gpus", "0"),
        *("--object-store-memory", str(_OBJECTS), "--include-log-monitor", "false"),
        *("--labels", f"{VERSION}={__version__}", "--temp-dir", str(folder)),
        *("--log-style", "record", "--log-color", "false"),
    )
