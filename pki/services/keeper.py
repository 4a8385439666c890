"""Background work with one leader: CRLs at half life, OCSP signers and prepared answers; take-over when it dies."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from chargepki.pki.authority import Authority
from chargepki.pki.authority.ocsp import PRESIGNED_HASHES, OcspAuthority, ocsp_cas
from chargepki.pki.errors import ChargePkiError, Conflict, SignerError, UnavailableError
from chargepki.pki.inventory import Transaction
from chargepki.pki.inventory.ocsp_records import OcspResponseRecord
from chargepki.pki.inventory.reads_revocation import ListState
from chargepki.pki.inventory.records import AuditEntry

__all__ = ["ROLE", "Keeper"]

_log = logging.getLogger(__name__)

ROLE: Final = "services"
LEASE: Final = timedelta(seconds=15)
"""A dead leader is succeeded after this time; one that stops resigns at once."""
_EXTEND_SECONDS: Final = 5.0
_ROUND_SECONDS: Final = 30.0
_CHECK_SECONDS: Final = 5.0
_SWEEP_SECONDS: Final = 600.0
_CHUNK: Final = 500
_MAX_FOLLOWED: Final = 5000


_QUIET: Final = frozenset({"certificate.reserve", "certificate.issue", "certificate.deliver"})


@dataclass(frozen=True, slots=True)
class _News:
    certificates: tuple[str, ...] = ()
    statuses: bool = False
    """Whether a list may be out of date."""
    everything: bool = False
    """Too much to follow, or the first look: sweep."""


class Keeper:
    """Does the background work while it leads; every process that holds the keys may run one.

    Args:
        owner: names this process in the lease.
        check_keys: raises when a key that was opened cannot be used any more: told before it is needed.
    """

    def __init__(
        self,
        authority: Authority,
        *,
        owner: str,
        clock: Callable[[], float] = time.monotonic,
        check_keys: Callable[[], None] = lambda: None,
    ) -> None:
        self._authority = authority
        self._inventory = authority.inventory
        self._signing = OcspAuthority(authority)
        self._owner = owner
        self._clock = clock
        self._fence: int | None = None
        self._extended = -_EXTEND_SECONDS
        self._check_keys = check_keys
        self._round = self._sweep = self._checked = float("-inf")
        self._seq = -1
        self.gauges: dict[str, float] = {"leader": 0.0}
        self._failures: tuple[str, ...] = ()
        self._lost: tuple[str, ...] = ()
        self._stop = threading.Event()

    @property
    def failures(self) -> tuple[str, ...]:
        """What cannot be done at present, each behind the name of the duty."""
        return (*self._lost, *self._failures)

    @property
    def leads(self) -> bool:
        """Whether this process does the work at present."""
        return self._fence is not None

    def run(self, stop: threading.Event) -> None:
        """Work until *stop*; whatever fails is reported and tried again."""
        watcher, self._stop = None, stop
        while not stop.is_set():
            try:
                if watcher is None:
                    watcher = self._inventory.watch()
                self.step()
                watcher.wait(0.25)
            except ChargePkiError as error:
                self._lose(f"the inventory cannot be used: {error}")
                if watcher is not None:
                    watcher.close()
                    watcher = None
                stop.wait(0.5)
        if watcher is not None:
            watcher.close()
        self.resign()

    def step(self) -> None:
        """Take or keep the lead, then do what is due.

        Raises:
            UnavailableError: the inventory cannot be reached.
        """
        if not self._lead():
            return
        news = self._changes()
        now = self._clock()
        swept = news.everything or now - self._sweep >= _SWEEP_SECONDS
        failures: list[str] = []
        try:
            if news.certificates:
                self._duty("ocsp", failures, lambda: self._presign_changed(news.certificates))
            if swept or news.statuses or failures or now - self._round >= _ROUND_SECONDS:
                self._round = now
                self._duty("crl", failures, self._refresh_lists)
                self._duty("ocsp-signer", failures, self._renew_signers)
                if swept or self._failures:
                    self._sweep = now
                    self._duty("ocsp", failures, self._presign_all)
                self._measure()
                if tuple(failures) != self._failures:
                    for failure in failures:
                        _log.error("background work: %s", failure, extra={"alert": "background"})
                self._failures = tuple(failures)
            if now - self._checked >= _CHECK_SECONDS:
                self._checked = now
                self._look_after_keys()
            self.gauges["background_failures"] = float(len(self.failures))
        except Conflict as error:
            self._lose(str(error))

    def resign(self) -> None:
        """Let a successor take over at once."""
        fence, self._fence = self._fence, None
        if fence is not None:
            try:
                self._inventory.write(lambda tx: tx.resign_leadership(ROLE, fence))
            except ChargePkiError as error:
                _log.info("the lead ends with its lease: %s", error)
        self.gauges["leader"] = 0.0

    def _lead(self) -> bool:
        if self._fence is not None and self._clock() - self._extended < _EXTEND_SECONDS:
            return True
        if self._fence is None and self._clock() - self._extended < 1.0:
            return False
        self._extended = self._clock()
        now = self._authority.now()
        fence = self._inventory.write(
            lambda tx: tx.take_leadership(ROLE, owner=self._owner, until=now + LEASE, now=now)
        )
        if fence != self._fence:
            if fence is not None:
                _log.info("this process does the background work (fence %s)", fence)
                self._round = self._sweep = float("-inf")
                self._seq = -1
            elif self._fence is not None:
                self._lose("another process has it")
        self._fence = fence
        self.gauges["leader"] = float(fence is not None)
        return fence is not None

    def _lose(self, why: str) -> None:
        if self._fence is not None:
            _log.warning("this process does the background work no more: %s", why)
        self._fence = None
        self.gauges["leader"] = 0.0

    def _changes(self) -> _News:
        """Return what changed since the last call."""
        if self._seq < 0:
            self._seq = self._inventory.change_count()
            return _News(everything=True)
        entries = self._inventory.list_audit(after_seq=self._seq, limit=_MAX_FOLLOWED)
        if not entries:
            return _News()
        self._seq = entries[-1].seq
        if len(entries) == _MAX_FOLLOWED:
            self._seq = self._inventory.change_count()
            return _News(everything=True)
        return _news(entries)

    def _duty(self, name: str, failures: list[str], work: Callable[[], Iterable[ChargePkiError] | None]) -> None:
        try:
            failures += [f"{name}: {error}" for error in work() or ()]
        except (Conflict, UnavailableError):
            raise
        except ChargePkiError as error:
            # One CA whose key is lost must not stop the lists and answers of all the others.
            failures.append(f"{name}: {error}")

    def _look_after_keys(self) -> None:
        """Say that a key is lost, and that it is back: nothing may be due for days that would need it."""
        try:
            self._check_keys()
        except SignerError as error:
            if not self._lost:
                _log.error("background work: keys: %s", error, extra={"alert": "background"})
            self._lost = (f"keys: {error}",)
        else:
            if self._lost:
                _log.info("background work: the keys can be used again")
            self._lost = ()

    def _refresh_lists(self) -> None:
        for crl in self._authority.refresh_crls():
            _log.info("published CRL %s", crl.id)

    def _renew_signers(self) -> Iterable[ChargePkiError]:
        return self._signing.renew_signers()

    def _presign_changed(self, certificates: Sequence[str]) -> Iterable[ChargePkiError]:
        by_ca: dict[str, list[str]] = {}
        for certificate in certificates:
            by_ca.setdefault(certificate.rpartition(":")[0], []).append(certificate)
        failures: list[ChargePkiError] = []
        now = self._authority.now()
        for ca in ocsp_cas(self._inventory, now):
            subjects = [self._inventory.find_ocsp_subject(each) for each in by_ca.get(ca.id, ())]
            told = [each for each in subjects if each is not None and each.status and each.not_after > now]
            try:
                for hash_name in PRESIGNED_HASHES if told else ():
                    records = self._signing.sign_batch(ca, told, hash_name, now)
                    self._inventory.write(lambda tx, records=records: self._store(tx, records))  # type: ignore[misc]  # a default binds the loop's value
            except (Conflict, UnavailableError):
                raise
            except ChargePkiError as error:
                failures.append(error)
        return failures

    def _store(self, tx: Transaction, records: Sequence[OcspResponseRecord]) -> None:
        assert self._fence is not None
        tx.check_leadership(ROLE, self._fence)
        tx.put_ocsp_responses(records)

    def _presign_all(self) -> Iterable[ChargePkiError]:
        failures: list[ChargePkiError] = []
        for ca in ocsp_cas(self._inventory, self._authority.now()):
            try:
                # In portions: a hundred thousand answers must neither outlast the lease nor hold up a stop.
                while not self._stop.is_set() and self._lead() and self._fence is not None:
                    if self._signing.presign(ca, leadership=(ROLE, self._fence), limit=_CHUNK) < _CHUNK:
                        break
            except (Conflict, UnavailableError):
                raise
            except ChargePkiError as error:
                failures.append(error)
        self._inventory.write(lambda tx: tx.prune_ocsp_responses(self._authority.now()))
        return failures

    def _measure(self) -> None:
        now = self._authority.now()
        soonest, count = self._inventory.soonest_ocsp_expiry()
        self.gauges["ocsp_prepared"] = float(count)
        if soonest is not None:
            self.gauges["ocsp_soonest_expiry_seconds"] = (soonest - now).total_seconds()
        lists, deltas = [], []
        for ca in self._authority.crl_issuers():
            states = self._inventory.list_states(ca.id)
            scopes = (None, *(shard.number for shard in self._inventory.list_crl_shards(ca.id)))
            lists += [_seconds_left(states.get(scope), now) for scope in scopes]
            if ca.crl_delta_hours is not None:
                deltas.append(_seconds_left(self._inventory.delta_state(ca.id), now))
        for name, left in (("crl", lists), ("delta_crl", deltas)):
            if left:
                self.gauges[f"{name}_soonest_expiry_seconds"] = min(left)
            else:
                self.gauges.pop(f"{name}_soonest_expiry_seconds", None)


def _seconds_left(state: ListState | None, now: datetime) -> float:
    """Return for how long a list is still valid; 0 for one that is missing."""
    return 0.0 if state is None else (state.next_update - now).total_seconds()


def _news(entries: Iterable[AuditEntry]) -> _News:
    found: dict[str, None] = {}
    statuses = False
    for entry in entries:
        found |= dict.fromkeys(key for table, key, _ in entry.effects if table == "certificate")
        # Issuing changes no list; whatever else touches a certificate or a CA may.
        statuses |= entry.action not in _QUIET and any(table in ("certificate", "ca") for table, _, _ in entry.effects)
    return _News(tuple(found), statuses=statuses)
