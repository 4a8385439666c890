"""Make the log key of a workspace, and put another in its place: in steps that can each be the last one.

A new key waits in a file beside the old one's. Then, in one transaction, the log takes an entry in which the old key
names it, and a head that it has signed. Then its file takes the old one's place. Which of the two files holds the log
key is therefore always told by the head of the log.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from chargepki.pki import files
from chargepki.pki.errors import ChargePkiError, SignerError
from chargepki.pki.inventory.audit_key import AuditKey, AuditPublicKey, LogTokens, TokenAuditKey, next_key_path
from chargepki.pki.inventory.audit_key_change import ROTATE_LOG_KEY, LogKeyChange
from chargepki.pki.keys import KeyAlgorithm
from chargepki.pki.signer import KEYS_LOCK

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from chargepki.pki.inventory import Inventory
    from chargepki.pki.inventory.records import Actor
    from chargepki.pki.signer_token import TokenKeyStore

__all__ = ["RotatedLogKey", "end_change", "make_in_token", "rotate_log_key"]


@dataclass(frozen=True, slots=True)
class RotatedLogKey:
    """A change of the log key."""

    change: LogKeyChange | None
    """``None`` for a dry run, and where an earlier run had written it."""
    key: AuditKey
    """The log key now."""
    completed: bool = False
    """An earlier run was interrupted behind its entry, and this one only put the file in its place."""


def make_in_token(maker: TokenKeyStore, tokens: LogTokens, path: Path) -> AuditKey:
    """Make a log key in the token, and its new file *path*; a key whose name could not be kept is removed again.

    Raises:
        SignerError: the token cannot be used, or has no room.
        UnavailableError: the file cannot be written.
    """
    uri = maker.create(f"audit-log-{secrets.token_hex(4)}", KeyAlgorithm.SECP256R1)
    try:
        made = TokenAuditKey(uri, AuditPublicKey(maker.open(uri).spki_der), tokens)
        made.store(path)
    except ChargePkiError:
        maker.discard(uri)
        raise
    return made


def rotate_log_key(
    inventory: Inventory,
    path: Path,
    maker: TokenKeyStore | None,
    tokens: LogTokens,
    *,
    actor: Actor,
    now: datetime,
    rehearse: bool = False,
) -> RotatedLogKey:
    """Give the log of *inventory* a new key; see the module.

    Args:
        path: the file of the log key.
        maker: makes the key in a token; it is made in the file where this is ``None``.
        rehearse: only see whether the log could be continued here; *inventory* undoes what it is told.

    Raises:
        SignerError: a token that has one of the keys cannot be used.
        StateError: the log cannot be continued here.
        UnavailableError: a file or the database cannot be written; the same call goes on.
    """
    if rehearse:
        inventory.write(lambda tx: tx.audit(actor, ROTATE_LOG_KEY, "rehearsed", now=now))
        return RotatedLogKey(None, AuditKey.load(path, tokens))
    # A backup waits, and so does whoever makes keys: the two files are of one state of the log.
    with files.locked(path.parent / KEYS_LOCK, mode=0o600):
        head = inventory.audit_head()
        end_change(path, tokens, head.key_id if head is not None else None)
        new = _waiting(path, maker, tokens) or _make(path, maker, tokens)
        new.prepare()
        change = inventory.write(lambda tx: tx.rotate_log_key(new, actor=actor, now=now))
        new.take_place(path)
        return RotatedLogKey(change, AuditKey.load(path, tokens))


def end_change(path: Path, tokens: LogTokens, signer: str | None) -> None:
    """Put the key that waits beside *path* in its place, if it is the one that signed the head of the log.

    Args:
        signer: id of the key that signed the head.

    Raises:
        SignerError: the log was given a new key whose file cannot be read.
        UnavailableError: the file cannot be written.
    """
    beside = next_key_path(path)
    if not beside.exists() or signer is None:
        return
    try:
        found = AuditKey.load(beside, tokens)
    except SignerError:
        if AuditKey.load(path, tokens).key_id != signer:
            raise
        return
    if found.key_id == signer:
        found.take_place(path)


def _waiting(path: Path, maker: TokenKeyStore | None, tokens: LogTokens) -> AuditKey | None:
    """Return the key that an interrupted run made and the log does not know; ``None`` if it is not what is wanted."""
    beside = next_key_path(path)
    if not beside.exists():
        return None
    try:
        found = AuditKey.load(beside, tokens)
    except SignerError:
        found = None
    if found is not None and (found.uri is None) == (maker is None):
        return found
    files.remove_durable(beside)
    return None


def _make(path: Path, maker: TokenKeyStore | None, tokens: LogTokens) -> AuditKey:
    beside = next_key_path(path)
    if maker is not None:
        return make_in_token(maker, tokens, beside)
    AuditKey.generate().store(beside)
    return AuditKey.load(beside, tokens)
