"""What the fields of a key may hold: one check for the command line and for HTTP."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from gateway.access.rate_limits import Limits
from gateway.errors import BadRequest

if TYPE_CHECKING:  # SQLAlchemy comes with it: see gateway.access.store
    from gateway.access.store import KeyRecord

LIMIT_NAMES: Final = tuple(Limits.__dataclass_fields__)
_MAX_LIMIT: Final = 10**15  # fits wherever a number is kept, and is no limit at all
_MAX_NAMES: Final = 1000


def state_of(record: KeyRecord, now: datetime) -> str:
    """``ok``, ``expired`` or ``revoked``."""
    if record.revoked is not None:
        return "revoked"
    return "expired" if record.expires is not None and record.expires <= now else "ok"


def shown(record: KeyRecord) -> dict[str, Any]:
    """A key as JSON: everything but its hash. Times are UTC, as ``2030-12-31T23:59:59Z``."""
    return {
        "id": record.id,
        "name": record.name,
        "description": record.description,
        "admin": record.admin,
        "state": state_of(record, datetime.now(UTC)),
        "created": _text(record.created),
        "expires": _text(record.expires),
        "revoked": _text(record.revoked),
        "lastActivity": _text(record.last_activity),
        "models": record.models,
        "personalities": record.personalities,
        "defaultPersonality": record.default_personality,
        "limits": record.limits,
        "imported": record.imported,
    }


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def time_after(seconds: float) -> datetime:
    """The time in so many seconds. Raises :class:`BadRequest` for what is no time to come."""
    now = datetime.now(UTC)
    try:
        time = now + timedelta(seconds=seconds)
    except (OverflowError, ValueError):  # ValueError: not a number
        time = now
    if time <= now:
        raise BadRequest("expires is too short or too long", param="expires")
    return time


def checked(fields: Mapping[str, Any]) -> dict[str, Any]:
    """``fields`` of a :class:`gateway.access.store.KeyRecord` as they are kept, whatever came in.

    Raises :class:`BadRequest` with what is wrong and what is allowed.
    """
    return {name: _CHECKS[name](value) for name, value in fields.items()}


def check_default(personalities: tuple[str, ...] | None, default: str | None) -> None:
    """Raise :class:`BadRequest` where a key's default personality is one it may not use."""
    if default is not None and personalities is not None and default not in personalities:
        raise BadRequest(
            f"the default personality {default[:200]!r} is not among those that the key may use: "
            f"{', '.join(map(repr, personalities)) or 'none'}",
            param="defaultPersonality",
        )


def _name(value: Any) -> str:
    good = isinstance(value, str) and 0 < len(value) <= 100
    if not good or not value.isprintable() or value != value.strip():
        raise BadRequest("a key needs a name of 1 to 100 visible characters", param="name")
    return str(value)


def _description(value: Any) -> str:
    good = isinstance(value, str) and len(value) <= 1000
    if not good or not all(map(str.isprintable, value.splitlines())):
        raise BadRequest("a description is text of up to 1000 characters", param="description")
    return str(value)


def _admin(value: Any) -> bool:
    if not isinstance(value, bool):
        raise BadRequest("admin must be true or false", param="admin")
    return value


def _expires(value: Any) -> datetime | None:
    if value is not None and not (isinstance(value, datetime) and value > datetime.now(UTC)):
        raise BadRequest("expires must be a time to come", param="expires")
    return value


def _models(value: Any) -> tuple[str, ...] | None:
    names = _names(value, "models")
    if names == ():
        raise BadRequest("a list of models needs at least one name", param="models")
    return names


def _personalities(value: Any) -> tuple[str, ...] | None:
    return _names(value, "personalities")  # an empty list: none at all


def _names(value: Any, field: str) -> tuple[str, ...] | None:
    if value is None:
        return None
    if (
        not isinstance(value, list | tuple)
        or len(value) > _MAX_NAMES
        or not all(isinstance(name, str) and name and name.isprintable() for name in value)
    ):
        raise BadRequest(f"{field} must be a list of names, or null for all", param=field)
    return tuple(dict.fromkeys(value))


def _default_personality(value: Any) -> str | None:
    if value is not None and not (isinstance(value, str) and value and value.isprintable()):
        raise BadRequest(
            "the default personality must be a name, or null for none", param="defaultPersonality"
        )
    return value


def _limits(value: Any) -> dict[str, int] | None:
    if value is None:
        return None
    allowed = f"allowed: {', '.join(LIMIT_NAMES)}"
    if not isinstance(value, Mapping):
        raise BadRequest(f"limits must be an object, or null for none; {allowed}", param="limits")
    limits = {}
    for name, limit in value.items():
        if name not in LIMIT_NAMES:
            raise BadRequest(f"unknown limit {str(name)[:100]!r}; {allowed}", param="limits")
        if limit is None:
            continue
        if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= _MAX_LIMIT:
            raise BadRequest(
                f"{name} must be a whole number of 1 or more, or null for no limit",
                param=f"limits.{name}",
            )
        limits[name] = limit
    return limits or None


_CHECKS: Final[dict[str, Callable[[Any], Any]]] = {
    "name": _name,
    "description": _description,
    "admin": _admin,
    "expires": _expires,
    "models": _models,
    "personalities": _personalities,
    "default_personality": _default_personality,
    "limits": _limits,
}
