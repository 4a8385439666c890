"""Member names as a schema spells them, found again from any spelling that only moved underscores and capitals."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from chargepki.ocpp_security import schemas
from chargepki.ocpp_security.schemas import Kind
from chargepki.ocpp_security.versions import OcppVersion

__all__ = ["plain_name", "spell_members"]

_MAX_DEPTH = 40
_FREE_MEMBERS = frozenset({"customData"})


def plain_name(name: str) -> str:
    """Return *name* without what the ways of spelling differ in.

    >>> plain_name("prioritizedEMAIDs") == plain_name("prioritized_emaids") == plain_name("prioritized_emai_ds")
    True
    """
    return name.replace("_", "").lower()


def spell_members(
    version: OcppVersion, action: str, kind: Kind, payload: object, *, otherwise: Callable[[str], str]
) -> Any:
    """Return *payload* with every member spelled as the schema of *action* spells it, at its very place.

    The `ocpp` package turns snake case back into camel case by rules; in 2.1 that changes 43 names, such as
    ``setpoint_L2``. Here the schema itself is asked, object by object.

    Args:
        otherwise: spells a member that the schema does not name at that place. What is inside ``customData`` is left
            alone: its names are nobody's but the peers'.

    Raises:
        NotFound: *version* has no such action.
    """
    root = schemas.load_schema(version, action, kind)
    return _spell(root, root, payload, otherwise, 0)


def _spell(
    root: schemas.Schema, node: schemas.Schema, value: object, otherwise: Callable[[str], str], depth: int
) -> Any:
    if depth > _MAX_DEPTH:
        return value
    if isinstance(value, list | tuple):
        items = schemas.resolve(root, node.get("items"))
        return [_spell(root, items, item, otherwise, depth + 1) for item in value]
    if not isinstance(value, dict):
        return value
    properties = node.get("properties", {})
    known = _names(tuple(properties))
    spelled: dict[str, Any] = {}
    for name, member in value.items():
        written = name if name in properties else known.get(plain_name(str(name))) or otherwise(str(name))
        below = schemas.resolve(root, properties.get(written))
        free = written in _FREE_MEMBERS
        spelled[written] = member if free else _spell(root, below, member, otherwise, depth + 1)
    return spelled


@cache
def _names(properties: tuple[str, ...]) -> dict[str, str]:
    return {plain_name(name): name for name in properties}
