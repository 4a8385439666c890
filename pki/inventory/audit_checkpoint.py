"""A checkpoint: the signed head of the log, kept where whoever can write the database cannot."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

import orjson

from chargepki.pki.errors import InputError, StateError
from chargepki.pki.inventory.audit_chain import LogHead
from chargepki.pki.inventory.reads import Reads

__all__ = ["Checkpoint"]

_SCHEMA: Final = "chargepki.audit-checkpoint"
_FIELDS: Final = {"log_id": str, "count": int, "hash": str, "key_id": str, "signature": str}
MAX_BYTES: Final = 65536


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What the log said at one time; it finds truncation and a complete rewriting later."""

    head: LogHead

    @classmethod
    def of(cls, inventory: Reads) -> Checkpoint:
        """Take the present head.

        Raises:
            StateError: no log was begun, or its head is gone.
        """
        head = inventory.audit_head()
        if head is None:
            raise StateError("the inventory has no audit log", fix="examine it with: chargepki audit verify")
        return cls(head)

    @classmethod
    def parse(cls, data: bytes | str) -> Checkpoint:
        """Read what `to_json` wrote; its signature is judged by `verify_log`.

        Raises:
            InputError: it is no checkpoint.
        """
        raw = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
        if len(raw) > MAX_BYTES:
            raise InputError(f"a checkpoint has at most {MAX_BYTES} bytes")
        try:
            # Not orjson: it takes the last of two equal keys, so that two readers may see two checkpoints in one file.
            fields = json.loads(raw, object_pairs_hook=_unique)
        except (ValueError, RecursionError) as exc:
            raise InputError("the checkpoint is not JSON", why=str(exc)) from exc
        if not isinstance(fields, dict) or fields.get("schema") != _SCHEMA:
            raise InputError(
                "this is not a checkpoint of an audit log", fix="make one with: chargepki audit checkpoint"
            )
        if fields.get("schema_version") != 1:
            raise InputError(
                "the checkpoint has a version that this program does not know", fix="use a newer chargepki"
            )
        for name, kind in _FIELDS.items():
            if not isinstance(fields.get(name), kind) or isinstance(fields[name], bool):
                raise InputError(f"the checkpoint lacks {name}, or it is no {kind.__name__}")
        if not isinstance(fields.get("at"), str | None) or fields["count"] < 0:
            raise InputError("the checkpoint has an impossible instant or count")
        return cls(LogHead(**{name: fields[name] for name in _FIELDS}, at=fields.get("at")))

    def to_json(self) -> str:
        """Return the checkpoint as JSON text with a final newline."""
        fields = {"schema": _SCHEMA, "schema_version": 1, **self.head.to_values()}
        return orjson.dumps(fields, option=orjson.OPT_INDENT_2).decode() + "\n"


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Return the object of *pairs*; a key that comes twice is refused."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key comes twice")
    return found
