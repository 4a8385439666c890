"""Restore a workspace from a backup: unpack, judge, make what follows safe, and only then replace anything.

What a CA issued, revoked and published after the backup is not in it, and cannot be known. So that nothing of it is
ever used twice:

* Serial numbers are 159 random bits; with n numbers used before and m after, two are equal with a probability of
  n·m / 2^159. No counter is restored that could run over numbers used before.
* A serial number that the backup holds as *reserved* was signed after the backup, or was not: nobody knows. Signing it
  now could make a second certificate with it. Every reservation is therefore voided; its number stays taken.
* CRL numbers go on above a floor: the milliseconds since 1970 at the restore, times 2^20, plus 20 random bits. Numbers
  before any restore are milliseconds (under 2^42 until the year 2109), and count up by one, so that no number given out
  before reaches the first floor; a later restore has a later floor, above all that were given out in between, unless
  that was a million in one millisecond. The clock is what this stands on: a restore is refused while the clock is
  behind the backup, or behind its log. Numbers only grow (RFC 5280 5.2.3), so relying parties take the new list.
* Orders to stations that were open then have been carried out since, or not: they are ended, campaigns paused.

The log goes on where the backup's ended, with an entry that says so. Whoever holds a checkpoint from after the backup
sees what is missing: ``audit verify --checkpoint`` finds the log cut off or rewritten.
"""

from __future__ import annotations

import contextlib
import secrets
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO, Any, Final

from chargepki.pki import files
from chargepki.pki.authority.approvals import evidence_of, load_approval_settings, verified_approvals
from chargepki.pki.authority.four_eyes import ApprovalAsked, FourEyes, request_for
from chargepki.pki.authority.repeats import void
from chargepki.pki.backup.examining import Examined, examine
from chargepki.pki.backup.making import JOURNAL
from chargepki.pki.backup.replacing import Journal, carry_out, clean, write_journal
from chargepki.pki.backup.unpacking import BackupHeader, Unpacked, unpack
from chargepki.pki.config import CONFIG_FILE, Settings
from chargepki.pki.errors import PolicyRefusal, SignerError, StateError, UnavailableError
from chargepki.pki.inventory import AuditKey, Inventory, Transaction
from chargepki.pki.inventory.address import DatabaseAddress
from chargepki.pki.inventory.audit import AuditPublicKey, Checkpoint
from chargepki.pki.inventory.dump import is_empty
from chargepki.pki.inventory.engine import Database
from chargepki.pki.inventory.offline import take_offline
from chargepki.pki.inventory.records import Actor
from chargepki.pki.inventory.restoration_records import RestorationRecord
from chargepki.pki.signer import KeyOpener

__all__ = ["RestoreOrder", "Restored", "crl_floor", "restore"]

_SKEW: Final = timedelta(minutes=5)
_RANDOM_BITS: Final = 20
_OWN: Final = ("audit.key", "audit.key.next", "keys", "sealing.key")
_WHY_VOID: Final = "restored from a backup: it may have been signed since"


@dataclass(frozen=True, slots=True)
class RestoreOrder:
    """What to restore from, where to, and what to believe."""

    settings: Settings
    identities: Sequence[Any]
    actor: Actor
    now: datetime
    replace: bool = False
    """Set aside a workspace that is there; refuse otherwise."""
    accept_findings: bool = False
    """Restore what was found to be damaged as well."""
    rehearse: bool = False
    """Do everything but replace."""
    passphrase: Callable[[], bytes] | None = None
    """Opens the key files, to see that they are the right ones."""
    checkpoint: Checkpoint | None = None
    log_key: AuditPublicKey | None = None
    four_eyes: FourEyes = field(default_factory=FourEyes)
    """Which acts need approvals, by the configuration of the workspace, and what was brought."""
    tokens: KeyOpener | None = None
    """Reaches the keys in tokens, which no backup holds: each must be there, and be the right one."""


@dataclass(frozen=True, slots=True)
class Restored:
    """A workspace that was restored."""

    id: str
    header: BackupHeader
    examined: Examined
    crl_floor: int
    voided: int
    """Reservations that were given up."""
    ended: int
    """Orders to stations that were ended."""
    set_aside: tuple[str, ...]
    """Where the old files are."""
    set_aside_schema: str | None
    """Where the old tables of a PostgreSQL inventory are."""
    unplaced_config: str | None
    """Configuration of the backup that is kept under another name, because it names another database."""


def restore(stream: IO[bytes], order: RestoreOrder) -> Restored:
    """Restore the backup *stream*; until it was judged, nothing of what is there is touched.

    Raises:
        InputError: it is no backup, was changed, cut short, or a newer program has written it.
        SignerError: none of the identities opens it, or a key of it is in a token that is not at hand.
        PolicyRefusal: it needs approvals.
        StateError: a workspace is there and was not to be replaced, is in use, the backup is damaged, or the clock is
            behind it.
        UnavailableError: the disk is full, or the database cannot be reached; repeat it.
    """
    home, database = order.settings.home, DatabaseAddress.parse(order.settings.database)
    existed = home.exists()
    _check_target(order, database)
    files.make_private_folder(home)
    token = secrets.token_hex(8)
    staging = home / f".restore-{token}"
    # Rows that will be a file must be prepared in its folder: it can be moved within one file system only.
    rows = staging / "rows.db" if database.path is None else database.path.absolute().parent / f".restore-{token}.db"
    try:
        with files.locked(home / "restore.lock", mode=0o600):
            if (home / JOURNAL).exists():
                raise StateError("a restore was interrupted here", fix="complete it first: chargepki restore --resume")
            _remove_leftovers(home, rows.parent, token)
            files.make_private_folder(staging)
            files.make_private_folder(rows.parent)
            unpacked = unpack(stream, order.identities, staging / "workspace", rows)
            return _Restore(order, unpacked, database, staging, token).run()
    finally:
        if not (home / JOURNAL).exists():
            clean(staging, rows)
            if not existed:
                _forget_home(home)


def crl_floor(now: datetime, chance: int) -> int:
    """Return the number above which the CRLs of an inventory go on that is restored at *now*; see the module.

    >>> from datetime import UTC
    >>> crl_floor(datetime(2106, 2, 7, 6, 28, 16, tzinfo=UTC), (1 << 20) - 1) < 1 << 63
    True
    """
    return (int(now.timestamp() * 1000) << _RANDOM_BITS) + chance


def _check_target(order: RestoreOrder, address: DatabaseAddress) -> None:
    home = order.settings.home
    found = [name for name in _OWN if (home / name).exists()]
    database = Database(address)
    try:
        if address.path is None or not order.replace:
            try:
                is_blank = is_empty(database)
            except StateError:  # a file that is no database of ours, or no database
                is_blank = False
            if not is_blank:
                found.append(address.shown)
    finally:
        database.close()
    if found and not order.replace:
        raise StateError(
            f"there is a workspace already: {', '.join(found)}",
            why="a restore never mixes two workspaces, and never overwrites a key",
            fix="name an empty --home and --database, or pass --replace to set aside what is there",
        )


def _remove_leftovers(home: Path, folder: Path, token: str) -> None:
    """Remove what an interrupted restore had prepared; it had decided nothing."""
    for left in {*home.glob(".restore-*"), *folder.glob(".restore-*.db*")}:
        if token not in left.name:
            if left.is_dir() and not left.is_symlink():
                clean(left, left / "rows.db")
            else:
                files.remove_durable(left)


def _forget_home(home: Path) -> None:
    """Leave no folder behind where there was none; one that is not empty is somebody's."""
    (home / "restore.lock").unlink(missing_ok=True)
    if not any(home.iterdir()):
        home.rmdir()


class _Restore:
    def __init__(
        self, order: RestoreOrder, unpacked: Unpacked, database: DatabaseAddress, staging: Path, token: str
    ) -> None:
        self._order = order
        self._unpacked = unpacked
        self._database = database
        self._staging = staging
        self._token = token
        self._home = order.settings.home

    def run(self) -> Restored:
        examined = examine(
            self._unpacked,
            passphrase=self._order.passphrase,
            checkpoint=self._order.checkpoint,
            log_key=self._order.log_key,
            tokens=self._order.tokens,
        )
        if examined.findings and not self._order.accept_findings:
            more = f", and {len(examined.findings) - 3} more" if len(examined.findings) > 3 else ""
            raise StateError(
                f"the backup is damaged: {'; '.join(examined.findings[:3])}{more}",
                why="nothing was restored",
                fix="take another backup, or look at all of it: chargepki backup verify",
            )
        if examined.token_problems and not self._order.accept_findings:
            raise SignerError(
                "; ".join(examined.token_problems[:3]),
                why="no backup holds the keys of a token: it must be there when its workspace is restored",
                fix="plug it in and set CHARGEPKI_PKCS11_MODULE; or, if its CAs are given up, pass --accept-findings",
            )
        record, voided, ended = self._amend(examined, self._approvals())
        config = self._put_config_apart()
        stamp = f"{self._order.now:%Y%m%dt%H%M%S}_{self._token[:6]}"
        journal = self._plan(record.id, stamp)
        if not self._order.rehearse:
            if self._order.replace:
                take_offline(self._database)
            write_journal(self._home, journal)
            carry_out(self._home, journal, self._order.settings.database)
        return Restored(
            id=record.id,
            header=self._unpacked.header,
            examined=examined,
            crl_floor=record.crl_floor,
            voided=voided,
            ended=ended,
            set_aside=tuple(target for _, target in journal.aside),
            set_aside_schema=journal.set_aside,
            unplaced_config=config,
        )

    def _approvals(self) -> dict[str, Any]:
        """Refuse what needs approvals and has too few; return those it has, for the log.

        The rule is the strictest of the workspace that is replaced and of the backup. Approvals are judged by who is
        registered in the one that is replaced, or, when there is none that can be read, in the backup.
        """
        order, act = self._order, "workspace.restore"
        if order.rehearse:
            return {}
        url = f"sqlite:///{self._unpacked.inventory.absolute()}"
        with contextlib.ExitStack() as opened:
            staged = opened.enter_context(Inventory.open(url, log_key=None, create=False))
            judge = staged
            with contextlib.suppress(StateError, UnavailableError):
                present = Inventory.open(order.settings.database, log_key=None, create=False)
                judge = opened.enter_context(present)
            rules = (order.four_eyes, FourEyes(load_approval_settings(self._unpacked.folder / CONFIG_FILE)))
            needed = max(rule.needed(reads, act) for rule in rules for reads in (staged, judge))
            if not needed and not order.four_eyes.approvals and not order.four_eyes.is_asking:
                return {}
            header = self._unpacked.header
            told = {"backup": header.id, "made_at": f"{header.made_at:%Y-%m-%dT%H:%M:%SZ}"}
            request = request_for(judge, act, {**told, "database": self._database.shown})
            if order.four_eyes.is_asking:
                raise ApprovalAsked(request, needed)
            held = verified_approvals(judge, request, order.four_eyes.approvals, now=order.now)
        if len(held) < needed:
            raise PolicyRefusal(
                f"{act} needs {needed} approvals and has {len(held)}",
                why=f"the four-eyes rule; the request is {request.sha256}",
                fix="repeat it with --request-approval FILE, have that signed (approval sign), and pass --approval",
            )
        return {"request": request.to_json(), "approvals": evidence_of(held)}

    def _amend(self, examined: Examined, approvals: dict[str, Any]) -> tuple[RestorationRecord, int, int]:
        """Make the restored inventory safe to go on with, in one entry of its log (see the module)."""
        order, header = self._order, self._unpacked.header
        url = f"sqlite:///{self._unpacked.inventory.absolute()}"
        with Inventory.open(url, log_key=AuditKey.load(self._unpacked.folder / "audit.key", order.tokens)) as inventory:
            head = inventory.audit_head()
            assert head is not None, "it was judged to have one"
            newest = max([header.made_at, *(entry.at for entry in inventory.list_audit(after_seq=head.count - 1))])
            if order.now + _SKEW < newest:
                raise StateError(
                    f"the clock says {order.now:%Y-%m-%d %H:%M} UTC, the backup is of {newest:%Y-%m-%d %H:%M} UTC",
                    why="numbers of revocation lists that were used before could be used again",
                    fix="set the clock right, then repeat",
                )
            floor = crl_floor(order.now, secrets.randbits(_RANDOM_BITS))
            found = (*examined.findings, *examined.token_problems)

            def work(tx: Transaction) -> tuple[RestorationRecord, int, int]:
                reserved = list(tx.list_reserved())
                for each in reserved:
                    void(tx, each, actor=order.actor, now=order.now, reason=_WHY_VOID)
                ended = tx.end_open_work("restored from a backup", now=order.now)
                numbers = [tx.next_crl_number(ca.id) for ca in tx.list_cas()]
                record = RestorationRecord(
                    id=secrets.token_hex(16),
                    restored_at=order.now,
                    restored_by=order.actor.name,
                    backup=header.id,
                    backed_up_at=header.made_at,
                    log_count=header.log_count,
                    crl_floor=max([floor, *numbers]),
                )
                tx.add_restoration(record)
                details = {
                    "backup": header.id,
                    "made_at": f"{header.made_at:%Y-%m-%dT%H:%M:%SZ}",
                    "log_count": header.log_count,
                    "crl_floor": record.crl_floor,
                    "voided": len(reserved),
                    "ended": ended,
                    **({"approved": approvals} if approvals else {}),
                    **({"findings": list(found[:20])} if found else {}),
                }
                tx.audit(order.actor, "workspace.restore", record.id, now=order.now, details=details)
                return record, len(reserved), ended

            return inventory.write(work)

    def _put_config_apart(self) -> str | None:
        """Keep the backup's configuration under another name where it would lead somewhere else.

        A drill on another machine must not go on with the database of the installation that it is a drill for.
        """
        staged, there = self._unpacked.folder / CONFIG_FILE, self._home / CONFIG_FILE
        if not staged.exists():
            return None
        try:
            named = tomllib.loads(staged.read_text("utf-8")).get("database")
        except (tomllib.TOMLDecodeError, UnicodeDecodeError):
            named = None
        own = f"sqlite:///{self._home / 'inventory.db'}"
        leads_away = (own if named is None else named) != self._order.settings.database
        is_kept = there.exists() and not self._order.replace and there.read_bytes() != staged.read_bytes()
        if not leads_away and not is_kept:
            return None
        name = f"{CONFIG_FILE}.restored"
        staged.rename(staged.with_name(name))
        return str(self._home / name)

    def _plan(self, restoration: str, stamp: str) -> Journal:
        order, home, folder = self._order, self._home, self._unpacked.folder
        kept = home / f"replaced-{stamp}"
        names = sorted(path.name for path in folder.iterdir())
        aside = [name for name in sorted({*names, *_OWN}) if _there(home / name)]
        if not order.replace:
            same = [name for name in aside if _alike(folder / name, home / name)]
            names = [name for name in names if name not in same]
            aside = [name for name in aside if name not in same]
            if aside:
                raise StateError(
                    f"there is already: {', '.join(str(home / name) for name in aside)}",
                    why="the backup holds something else of that name",
                    fix="move it away, or pass --replace to set it aside",
                )
        moves = [(str(home / name), str(kept / name)) for name in aside]
        placed = [(str(folder / name), str(home / name)) for name in names]
        if (path := self._database.path) is not None:
            path = path.absolute()
            for suffix in ("", "-wal", "-shm", "-journal"):
                old = path.with_name(path.name + suffix)
                if _there(old):
                    # Within its folder, as the new one: elsewhere may be another file system.
                    where = kept / old.name if path.parent == home else old.with_name(f"{old.name}.replaced-{stamp}")
                    moves.append((str(old), str(where)))
            placed.append((str(self._unpacked.inventory), str(path)))
        return Journal(
            restoration=restoration,
            backup=self._unpacked.header.id,
            database=self._database.shown,
            staging=str(self._staging),
            rows=str(self._unpacked.inventory),
            set_aside=f"replaced_{stamp}" if order.replace and self._database.path is None else None,
            aside=tuple(moves),
            placed=tuple(placed),
        )


def _there(path: Path) -> bool:
    return path.exists() or path.is_symlink()


def _alike(one: Path, other: Path) -> bool:
    return one.is_file() and other.is_file() and one.read_bytes() == other.read_bytes()
