"""Judge a backup that was unpacked: is its log whole, is it the log that was meant, are the keys of its CAs there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from chargepki.pki.backup.unpacking import Unpacked
from chargepki.pki.errors import ChargePkiError, SignerError
from chargepki.pki.inventory import AuditKey, Inventory, verify_log
from chargepki.pki.inventory.audit import AuditPublicKey, Checkpoint
from chargepki.pki.inventory.records import CaRecord, CaState
from chargepki.pki.keys import spki_sha256
from chargepki.pki.signer import KeyOpener, SoftwareKeyStore

__all__ = ["Examined", "examine"]


@dataclass(frozen=True, slots=True)
class Examined:
    """What a backup holds, and what is wrong with it."""

    findings: tuple[str, ...]
    cas: int
    certificates: int
    entries: int
    """Of the audit log."""
    log_key: str
    """Id of the key that signs the log."""
    keys: int
    """Key files of CAs that are in it."""
    keys_opened: bool
    """Whether each of them was opened, and found to be the key of its CA."""
    keys_elsewhere: tuple[tuple[str, str], ...]
    """CAs whose keys are in tokens or with somebody else, with the URI: they are not in the backup."""
    log_key_uri: str | None = None
    """Where the log key is, if that is a token: it is not in the backup either."""
    token_problems: tuple[str, ...] = ()
    """Keys in tokens that were looked for and cannot be used, or are not those of their CA or of the log."""
    tokens_checked: bool = False
    """Whether each key in a token was looked for there, and found to be the one of its CA or of the log."""


def examine(
    unpacked: Unpacked,
    *,
    passphrase: Callable[[], bytes] | None,
    checkpoint: Checkpoint | None,
    log_key: AuditPublicKey | None,
    tokens: KeyOpener | None = None,
) -> Examined:
    """Verify the audit log of a backup with every row, and look for the key of every CA.

    Args:
        passphrase: opens the key files; they are only looked for when it is ``None``.
        checkpoint: a head of the log from before the backup, kept elsewhere.
        log_key: the key that is believed; the one in the backup otherwise, which proves that nobody without the
            workspace changed it, and not where the backup comes from.
        tokens: reaches the keys in tokens; they are only named when it is ``None``.

    Raises:
        UnavailableError: the disk is full.
    """
    findings: list[str] = []
    try:
        key = AuditKey.load(unpacked.folder / "audit.key", tokens)
    except SignerError as error:
        findings.append(f"the log key is not there: {error.what}")
        key = None
    own = None if key is None else key.public
    pinned = [each for each in (log_key if log_key is not None else own,) if each is not None]
    problems = [] if key is None or tokens is None else _token_problem("the log", key.prepare)
    inventory = Inventory.open(f"sqlite:///{unpacked.inventory.absolute()}", log_key=None, create=False)
    with inventory:
        report = verify_log(inventory, checkpoint=checkpoint, pinned_keys=pinned)
        findings += [f"audit: {finding.code}: {finding.what}" for finding in report.findings]
        if report.omitted:
            findings.append(f"audit: {report.omitted} findings more")
        head = report.head
        if head is None or (head.count, head.hash) != (unpacked.header.log_count, unpacked.header.log_hash):
            findings.append("the log in the backup does not end where the backup says")
        cas = [ca for ca in inventory.list_cas() if ca.state is not CaState.PENDING]
        store = SoftwareKeyStore(unpacked.folder / "keys", passphrase or (lambda: b""))
        here = [ca for ca in cas if ca.key_uri.startswith("file:")]
        findings += [problem for ca in here if (problem := _key_problem(store, ca, is_opened=passphrase is not None))]
        if tokens is not None:
            for ca in cas:
                if ca.key_uri.startswith("pkcs11:"):
                    problems += _token_problem(ca.id, partial(_check_token, tokens, ca))
        counts = [inventory.count_certificates(ca.id) for ca in cas]
    return Examined(
        findings=tuple(findings),
        cas=len(cas),
        certificates=sum(number for count in counts for number in count.values()),
        entries=report.entries,
        log_key=head.key_id if head is not None else "",
        keys=len(here),
        keys_opened=passphrase is not None,
        keys_elsewhere=tuple((ca.id, ca.key_uri) for ca in cas if not ca.key_uri.startswith("file:")),
        log_key_uri=None if key is None else key.uri,
        token_problems=tuple(problems),
        tokens_checked=tokens is not None,
    )


def _check_token(tokens: KeyOpener, ca: CaRecord) -> None:
    if spki_sha256(tokens.open(ca.key_uri).spki_der) != ca.spki_sha256:
        raise SignerError(f"{ca.key_uri} is not the key of {ca.id}")


def _token_problem(owner: str, check: Callable[[], None]) -> list[str]:
    try:
        check()
    except ChargePkiError as error:
        return [f"the key of {owner} is not to be had: {error.what}{f': {error.why}' if error.why else ''}"]
    return []


def _key_problem(store: SoftwareKeyStore, ca: CaRecord, *, is_opened: bool) -> str:
    try:
        if not store.exists(ca.key_uri.removeprefix("file:").removesuffix(".key")):
            return f"the key of {ca.id} is not there: {ca.key_uri}"
        if is_opened and spki_sha256(store.open(ca.key_uri).spki_der) != ca.spki_sha256:
            return f"{ca.key_uri} is not the key of {ca.id}"
    except ChargePkiError as error:
        return f"the key of {ca.id} does not open: {error.why or error.what}"
    return ""
