"""A change of the log key: the last thing that a log key signs is where the log stands, and which key signs from there.

The statement stands in an entry of the log, whose head is the first thing that the new key signs. So whoever trusts
the old key follows the log to the new one, and whoever trusts the new one believes what the old one signed before.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Final

import orjson

from chargepki.pki.errors import InputError
from chargepki.pki.inventory.audit_chain import ENTRY_COLUMNS, ChainState
from chargepki.pki.inventory.audit_findings import AuditCode, Findings
from chargepki.pki.inventory.audit_key import AuditKey, AuditPublicKey
from chargepki.pki.inventory.audit_links import RawEntry

__all__ = ["ROTATE_LOG_KEY", "KeyHistory", "LogKeyChange"]

ROTATE_LOG_KEY: Final = "audit.rotate-log-key"
"""The action of an entry that changes the log key."""
_SCHEMA: Final = "chargepki.audit-log-key-change/1"
_ACTION: Final = ENTRY_COLUMNS.index("action")
_DETAILS: Final = ENTRY_COLUMNS.index("details")


@dataclass(frozen=True, slots=True)
class LogKeyChange:
    """The statement of the old key."""

    log_id: str
    count: int
    """Entries of the log before the one that the statement stands in."""
    hash: str
    """Hash of the last of them."""
    old: AuditPublicKey
    new: AuditPublicKey
    signature: bytes
    """By the old key."""

    @classmethod
    def sign(cls, state: ChainState, old: AuditKey, new: AuditPublicKey) -> LogKeyChange:
        """Have *old* sign that *new* goes on from *state*.

        Raises:
            SignerError: the old key is in a token that cannot be used.
        """
        unsigned = cls(state.log_id, state.count, state.hash, old.public, new, b"")
        return replace(unsigned, signature=old.sign(unsigned.message()))

    @property
    def seq(self) -> int:
        """Number of the entry that it stands in; the first head that the new key signs covers it."""
        return self.count + 1

    def message(self) -> bytes:
        """Return the octets that are signed: canonical JSON of every field but the signature."""
        fields = {"schema": _SCHEMA, "log_id": self.log_id, "count": self.count, "hash": self.hash}
        keys = {"old_key": self.old.to_base64(), "new_key": self.new.to_base64()}
        return orjson.dumps({**fields, **keys}, option=orjson.OPT_SORT_KEYS)

    @property
    def is_signed(self) -> bool:
        """Whether the old key made the signature."""
        return self.old.verifies(self.signature, self.message())

    def to_details(self) -> dict[str, object]:
        """Return what stands in the entry; where the log stood is said by the entry itself."""
        return {
            "old_key": self.old.to_base64(),
            "new_key": self.new.to_base64(),
            "signature": base64.b64encode(self.signature).decode(),
        }

    @classmethod
    def of_details(cls, details: Mapping[str, object], state: ChainState) -> LogKeyChange:
        """Read the statement of an entry that follows *state*.

        Raises:
            InputError: it has none, or none that can be read.
        """
        texts = [details.get(name) for name in ("old_key", "new_key", "signature")]
        if not all(isinstance(text, str) for text in texts):
            raise InputError("the entry does not say which key follows which")
        old, new, signature = map(str, texts)
        try:
            octets = base64.b64decode(signature, validate=True)
        except (binascii.Error, ValueError) as exc:
            raise InputError("the signature of the change is not base64") from exc
        from_base64 = AuditPublicKey.from_base64
        return cls(state.log_id, state.count, state.hash, from_base64(old), from_base64(new), octets)


class KeyHistory:
    """Which log key signed which part of a log, as its entries tell.

    Args:
        log_id: of the log, by its head; ``None`` when that is gone.
        pinned: the keys that are believed.
    """

    def __init__(self, log_id: object, pinned: Collection[AuditPublicKey], findings: Findings) -> None:
        self._log_id = log_id
        self._pinned = {key.key_id: key for key in pinned}
        self._findings = findings
        self.changes: list[LogKeyChange] = []

    def follow(self, entry: RawEntry) -> None:
        """Take the next entry; nothing happens unless it changes the key."""
        if entry.values[_ACTION] != ROTATE_LOG_KEY:
            return
        try:
            change = self._read(entry)
        except InputError as error:
            self._findings.add(AuditCode.LOG_KEY_CHANGE, entry.seq, f"entry {entry.seq}: {error.what}")
        else:
            self.changes.append(change)

    def _read(self, entry: RawEntry) -> LogKeyChange:
        try:
            details = orjson.loads(entry.values[_DETAILS])  # type: ignore[arg-type]  # whatever is stored: TypeError
        except (orjson.JSONDecodeError, TypeError) as exc:
            raise InputError("its details are no JSON") from exc
        if not isinstance(details, dict) or not isinstance(entry.previous, str):
            raise InputError("it does not say which key follows which")
        state = ChainState(str(self._log_id), entry.seq - 1, entry.previous, None)
        change = LogKeyChange.of_details(details, state)
        if not change.is_signed:
            raise InputError("the old log key did not sign that the new one follows it here")
        if self.changes and self.changes[-1].new != change.old:
            raise InputError("the log key was changed by a key that was not the log key")
        return change

    def find(self, key_id: object, count: object) -> AuditPublicKey | None:
        """Return the believed key that may sign a head of *count* entries under that id; ``None`` when there is none.

        A key that was replaced may not sign what came after it: that is what whoever stole it would do.
        """
        if not isinstance(key_id, str):
            return None
        eras = self._eras()
        if not any(key.key_id == key_id for _, _, key in eras):
            return self._pinned.get(key_id)
        for first, last, key in eras:
            # A count that is none is covered by no signature, which is found out with the key.
            if key.key_id == key_id and (not isinstance(count, int) or first <= count < last):
                return key
        return None

    def knows(self, key_id: object) -> bool:
        """Whether that key signed a part of this log, whichever."""
        return any(key.key_id == key_id for _, _, key in self._eras())

    def _eras(self) -> list[tuple[float, float, AuditPublicKey]]:
        """Return each believed key of the log with the counts of heads that it signs: first, and first of the next."""
        if not self.changes:
            return []
        keys = [self.changes[0].old, *(change.new for change in self.changes)]
        if not any(key.key_id in self._pinned for key in keys):
            return []
        bounds: list[float] = [0, *(change.seq for change in self.changes), float("inf")]
        return list(zip(bounds, bounds[1:], keys, strict=False))
