"""The hash chain: canonical entries and the signed head.

An entry's hash is the SHA-256 over the JSON array of the schema name and every other column, so no field is outside
it. The head says how many entries there are and what the last hash is, and is signed at each commit. An entry hash is
fit to be the leaf of a Merkle tree, and the head names its schema: a later log can add a root without new entries.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeAlias

import orjson

from chargepki.pki.inventory.audit_key import AuditKey, AuditPublicKey
from chargepki.pki.inventory.codec import decode_time, dump_json, encode_text, encode_time
from chargepki.pki.inventory.records import Actor, ActorKind, AuditEntry

__all__ = [
    "ENTRY_COLUMNS",
    "HEAD_SCHEMA",
    "ChainState",
    "LogHead",
    "StoredEntry",
    "decode_entry",
    "entry_hash",
    "genesis_hash",
    "make_entry",
    "make_plain_entries",
]

ENTRY_SCHEMA: Final = "chargepki.audit-entry/1"
HEAD_SCHEMA: Final = "chargepki.audit-head/1"
GENESIS_SCHEMA: Final = "chargepki.audit-genesis/1"

ENTRY_COLUMNS: Final = (
    "seq",
    "at",
    "actor_name",
    "actor_kind",
    "actor_authenticated",
    "action",
    "subject",
    "outcome",
    "artefact_sha256",
    "details",
    "effects",
    "preconditions",
    "previous_hash",
    "entry_hash",
)
"""Columns of an entry in the order in which they are hashed; the last one is the hash itself."""

StoredEntry: TypeAlias = tuple[str | int | None, ...]
"""The stored values of an entry in the order of `ENTRY_COLUMNS`."""


@dataclass(frozen=True, slots=True)
class ChainState:
    """Where a log stands."""

    log_id: str
    """Made at random with the log; binds its first entry and every head, so that logs cannot be exchanged."""
    count: int
    hash: str
    """Hash of the last entry; of an empty log its genesis hash."""
    at: str | None
    """Instant of the last entry, as stored."""

    def after(self, entry: AuditEntry) -> ChainState:
        """Return the state with *entry* appended."""
        return ChainState(self.log_id, entry.seq, entry.entry_hash, encode_time(entry.at))


@dataclass(frozen=True, slots=True)
class LogHead:
    """The signed head of a log."""

    log_id: str
    count: int
    hash: str
    at: str | None
    key_id: str
    signature: str
    """Base64."""

    @classmethod
    def sign(cls, state: ChainState, key: AuditKey) -> LogHead:
        """Sign where a log stands."""
        unsigned = cls(state.log_id, state.count, state.hash, state.at, key.key_id, "")
        signature = base64.b64encode(key.sign(unsigned.message())).decode()
        return cls(state.log_id, state.count, state.hash, state.at, key.key_id, signature)

    @classmethod
    def from_row(cls, row: Sequence[Any]) -> LogHead:
        """Return the head of a row in field order."""
        return cls(*row)

    @property
    def state(self) -> ChainState:
        """What the head says of the log."""
        return ChainState(self.log_id, self.count, self.hash, self.at)

    def to_values(self) -> dict[str, str | int | None]:
        """Return the stored values by column."""
        return {
            "log_id": self.log_id,
            "count": self.count,
            "hash": self.hash,
            "at": self.at,
            "key_id": self.key_id,
            "signature": self.signature,
        }

    def message(self) -> bytes:
        """Return the octets that are signed: canonical JSON of every field but the signature."""
        fields: dict[str, object] = {**self.to_values(), "schema": HEAD_SCHEMA}
        del fields["signature"]
        if any(isinstance(value, float) for value in fields.values()):
            # JSON writes an infinite number as null, like a missing value.
            return b""
        try:
            return orjson.dumps(fields, option=orjson.OPT_SORT_KEYS)
        except TypeError:
            # A field edited into something that JSON cannot say: no signature of ours covers that.
            return b""

    def is_signed_by(self, key: AuditPublicKey) -> bool:
        """Whether *key* made the signature."""
        try:
            signature = base64.b64decode(self.signature, validate=True)
        except (binascii.Error, ValueError, TypeError):
            return False
        message = self.message()
        return bool(message) and self.key_id == key.key_id and key.verifies(signature, message)


def genesis_hash(log_id: str) -> str:
    """Return what the first entry of a log names as its previous hash."""
    return hashlib.sha256(orjson.dumps([GENESIS_SCHEMA, log_id])).hexdigest()


def entry_hash(values: Iterable[object]) -> str:
    """Return the hash of an entry given by its stored values in column order, without the hash column.

    Raises:
        TypeError: a value that JSON cannot say; no entry of ours has one.
    """
    return hashlib.sha256(orjson.dumps([ENTRY_SCHEMA, *values])).hexdigest()


def make_entry(
    state: ChainState,
    *,
    actor: Actor,
    action: str,
    subject: str,
    at: datetime,
    outcome: str,
    artefact_sha256: str | None,
    details: Mapping[str, object],
    effects: tuple[tuple[str, str, str | None], ...],
    preconditions: tuple[tuple[str, str, str], ...],
) -> tuple[AuditEntry, StoredEntry]:
    """Return the entry that follows *state*, and its stored values in the order of `ENTRY_COLUMNS`.

    Raises:
        TypeError: *at* is naive.
        InputError: a text that the database cannot hold, or details that are no JSON.
    """
    values: dict[str, str | int | None] = {
        "seq": state.count + 1,
        "at": encode_time(at),
        "actor_name": encode_text(actor.name, "the actor's name"),
        "actor_kind": actor.kind.value,
        "actor_authenticated": 1 if actor.authenticated else 0,
        "action": encode_text(action, "the action"),
        "subject": encode_text(subject, "the subject"),
        "outcome": encode_text(outcome, "the outcome"),
        "artefact_sha256": None if artefact_sha256 is None else encode_text(artefact_sha256, "the digest"),
        "details": dump_json(details, "the details of the audit entry") if details else "{}",
        "effects": dump_json(effects, "the effects") if effects else "[]",
        "preconditions": dump_json(preconditions, "the preconditions") if preconditions else "[]",
        "previous_hash": state.hash,
    }
    hashed = values["entry_hash"] = entry_hash(list(values.values()))
    # PostgreSQL wants a boolean where SQLite has 0 and 1; the hash is over the number.
    values["actor_authenticated"] = actor.authenticated
    entry = AuditEntry(
        seq=state.count + 1,
        at=at,
        actor=actor,
        action=action,
        subject=subject,
        outcome=outcome,
        artefact_sha256=artefact_sha256,
        details=details,
        effects=effects,
        preconditions=preconditions,
        previous_hash=state.hash,
        entry_hash=hashed,
    )
    return entry, tuple(values.values())


def make_plain_entries(
    state: ChainState,
    *,
    actor: Actor,
    action: str,
    at: datetime,
    entries: Iterable[tuple[str, str, str, str, str]],
) -> tuple[list[StoredEntry], ChainState]:
    """Return the stored values of the entries that follow *state*, as `make_entry` has them, and where the log stands.

    Args:
        entries: subject, digest of the artefact, and the canonical JSON of details, effects and preconditions; texts
            of our own making, which a database can hold.

    Raises:
        TypeError: *at* is naive.
        InputError: the actor's name is no text that a database can hold.
    """
    instant = encode_time(at)
    name, kind = encode_text(actor.name, "the actor's name"), actor.kind.value
    # PostgreSQL wants a boolean where SQLite has 0 and 1; the hash is over the number.
    authenticated = actor.authenticated
    hashed_as = 1 if authenticated else 0
    made: list[StoredEntry] = []
    number, previous = state.count, state.hash
    for subject, artefact, *told in entries:
        number += 1
        rest = (action, subject, "done", artefact, *told, previous)
        previous = entry_hash((number, instant, name, kind, hashed_as, *rest))
        made.append((number, instant, name, kind, authenticated, *rest, previous))
    if not made:
        return made, state
    return made, ChainState(state.log_id, number, previous, instant)


def decode_entry(values: Mapping[str, Any]) -> AuditEntry:
    """Return the entry of stored values by column, without checking its hash."""
    return AuditEntry(
        seq=values["seq"],
        at=decode_time(values["at"]),
        actor=Actor(values["actor_name"], ActorKind(values["actor_kind"]), bool(values["actor_authenticated"])),
        action=values["action"],
        subject=values["subject"],
        outcome=values["outcome"],
        artefact_sha256=values["artefact_sha256"],
        details=orjson.loads(values["details"]),
        effects=tuple((table, key, digest) for table, key, digest in orjson.loads(values["effects"])),
        preconditions=tuple((table, key, digest) for table, key, digest in orjson.loads(values["preconditions"])),
        previous_hash=values["previous_hash"],
        entry_hash=values["entry_hash"],
    )
