"""Sign revocation lists, record them, and put them where relying parties fetch them.

A CA has one full list of everything that it and its other generations revoked (`generations`). A CA with shards
(`CaRecord.crl_shard_size`) also has one list for each shard, and a CA with deltas (`CaRecord.crl_delta_hours`) the
delta list to its full ones. All of them take their numbers from one sequence of the CA.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from chargepki.pki.authority.generations import CrlGenerations, relatives, tells_of_relatives
from chargepki.pki.authority.issuance import Issuer
from chargepki.pki.crl import assemble_crl, build_crl_tbs
from chargepki.pki.crl_entry import ReasonCode, RevokedEntry, encode_entry
from chargepki.pki.errors import ProfileViolation, StateError
from chargepki.pki.inventory import Inventory, Transaction
from chargepki.pki.inventory.codec import sha256_hex
from chargepki.pki.inventory.reads import Reads
from chargepki.pki.inventory.reads_revocation import ListState
from chargepki.pki.inventory.records import Actor, CaRecord, CrlDeltaRecord, CrlRecord, CrlSegmentRecord
from chargepki.pki.keys import signature_algorithm
from chargepki.pki.lint import lint_crl

__all__ = ["CRL_VALIDITY", "Published", "due_lists", "needs_crl", "publish_lists"]

_LOST_CLOCK = timedelta(days=1)
"""A clock that is behind by less is taken for one that was set right."""
CRL_VALIDITY = timedelta(days=7)
"""thisUpdate to nextUpdate; a week is also the bound that ISO 15118-20 sets for OCSP answers (V2G20-1021)."""


@dataclass(frozen=True, slots=True)
class Published:
    """What one act of publishing signed; empty when nothing was due."""

    full: CrlRecord | None = None
    delta: CrlDeltaRecord | None = None
    shards: tuple[CrlRecord, ...] = ()

    @property
    def lists(self) -> tuple[CrlRecord | CrlDeltaRecord, ...]:
        """All of them."""
        return tuple(found for found in (self.full, self.delta, *self.shards) if found is not None)


@dataclass(frozen=True, slots=True)
class DueLists:
    """Which lists of a CA are missing, miss a change, or have less than half of their life before them."""

    full: bool
    delta: bool
    shards: tuple[int, ...]

    def __bool__(self) -> bool:
        return self.full or self.delta or bool(self.shards)


def due_lists(reader: Reads, ca: CaRecord, now: datetime, generations: CrlGenerations = CrlGenerations.ALL) -> DueLists:
    """Return which lists of *ca* must be signed anew at *now*."""
    states = reader.list_states(ca.id)
    last = reader.last_change(ca.id)
    shards = [shard.number for shard in reader.list_crl_shards(ca.id)]
    known = [state.changes or 0 for number in shards if (state := states.get(number)) is not None]
    changed = reader.changed_shards(ca.id, min(known, default=0)) if shards else {}
    delta = ca.crl_delta_hours is not None and _is_due(reader.delta_state(ca.id), last, now)
    others = relatives(reader, ca, generations, now)
    return DueLists(
        full=_is_due(states.get(None), last, now) or not tells_of_relatives(reader, ca, others),
        delta=delta,
        shards=tuple(number for number in shards if _is_due(states.get(number), changed.get(number, 0), now)),
    )


def _is_due(state: ListState | None, last_change: int, now: datetime) -> bool:
    if state is None or state.changes is None or state.changes < last_change:
        return True
    return now >= state.this_update + (state.next_update - state.this_update) / 2


def needs_crl(
    inventory: Inventory, ca_id: str, now: datetime, generations: CrlGenerations = CrlGenerations.ALL
) -> bool:
    """Say whether a list of a CA is missing, misses a change, or has less than half its life left."""
    return bool(due_lists(inventory, inventory.get_ca(ca_id), now, generations))


def publish_lists(
    inventory: Inventory,
    issuer: Issuer,
    *,
    actor: Actor,
    now: datetime,
    only_due: bool,
    validity: timedelta = CRL_VALIDITY,
    generations: CrlGenerations = CrlGenerations.ALL,
) -> Published:
    """Sign and record the lists of *issuer*: all of them, or only those that are due.

    A revoked CA signs too, when it is asked to: its last list still tells those who have not heard of its own
    revocation. Nothing renews such a list by itself, so that they too stop believing the CA when it expires.

    The lists are signed inside the transaction that numbers them: no revocation can be committed between reading the
    entries and recording the list, and a number is never used twice (RFC 5280 5.2.3).

    Raises:
        StateError: the CA has expired.
        ProfileViolation: a list would break a rule; nothing was published.
    """
    return inventory.write(
        lambda tx: _Publication(tx, issuer, actor, now, validity, generations).run(only_due=only_due)
    )


def _check_not_expired(ca: CaRecord, now: datetime) -> datetime:
    assert ca.not_after is not None
    if now >= ca.not_after:
        raise StateError(
            f"CA {ca.id} expired on {ca.not_after:%Y-%m-%d %H:%M:%S} UTC",
            why="a list that it signs now could be checked by nobody",
            fix="nothing needs to be published for it any more",
        )
    if ca.not_before is not None and now < ca.not_before - _LOST_CLOCK:
        # The list would have ended long ago, and its number would be used up.
        raise StateError(
            f"the clock says {now:%Y-%m-%d %H:%M:%S} UTC, and CA {ca.id} begins on {ca.not_before:%Y-%m-%d %H:%M:%S}",
            why="whoever checks a list from before its CA began takes it for an old one",
            fix="set the clock right, then repeat",
        )
    return ca.not_after


@dataclass(slots=True)
class _Publication:
    """One act of publishing, inside one transaction."""

    tx: Transaction
    issuer: Issuer
    actor: Actor
    now: datetime
    validity: timedelta
    generations: CrlGenerations
    ca: CaRecord = field(init=False)
    others: tuple[str, ...] = field(init=False)
    changes: int = field(init=False)

    def run(self, *, only_due: bool) -> Published:
        # The row as it is now: how its lists are cut may have been changed since the key was opened.
        self.ca = self.tx.get_ca(self.issuer.ca.id)
        _check_not_expired(self.ca, self.now)
        self.others = relatives(self.tx, self.ca, self.generations, self.now)
        for each in (self.ca.id, *self.others):
            self._check_entries(each)
        self.changes = self.tx.last_change(self.ca.id)
        shards = {shard.number: shard.url for shard in self.tx.list_crl_shards(self.ca.id)}
        deltas = self.ca.crl_delta_hours is not None
        due = (
            due_lists(self.tx, self.ca, self.now, self.generations)
            if only_due
            else DueLists(True, deltas, tuple(shards))
        )
        full = self._publish_complete(None, None) if due.full else None
        # A delta that is signed together with the full list has its number (RFC 5280 5.2.4).
        delta = self._publish_delta(full.number if full else None) if deltas and (due.delta or due.full) else None
        return Published(full, delta, tuple(self._publish_complete(number, shards[number]) for number in due.shards))

    def _check_entries(self, ca: str) -> None:
        """Make stored entries for certificates that were revoked before entries were stored; refuse a difference."""
        stored = self.tx.count_stored_entries(ca)
        revoked = self.tx.count_revoked(ca)
        if stored == 0 and revoked:
            self.tx.rebuild_crl_segments(ca)
        elif stored != revoked:
            raise StateError(
                f"{ca} has {revoked} revoked certificates, but {stored} entries are stored for its lists",
                why="the inventory was changed behind our back; nothing was published",
                fix=f"run: chargepki crl check --ca {ca} --repair",
            )

    def _next_number(self) -> int:
        # Milliseconds since 1970: after an old backup was put back, numbers go on above all that were ever published,
        # and relying parties never take a new list for an older one (RFC 5280 5.2.3).
        return max(self.tx.next_crl_number(self.ca.id), int(self.now.timestamp() * 1000))

    def _segments(self, shard: int | None) -> list[CrlSegmentRecord]:
        segments = list(self.tx.list_crl_segments(self.ca.id, shard))
        for other in self.others if shard is None else ():
            segments += self.tx.list_crl_segments(other)
        return segments

    def _publish_complete(self, shard: int | None, url: str | None) -> CrlRecord:
        segments = self._segments(shard)
        for segment in segments:
            if hashlib.sha256(segment.content).hexdigest() != segment.sha256:
                raise StateError(
                    f"the stored entries {segment.id} are damaged",
                    why="they do not have the digest that they were stored with",
                    fix=f"run: chargepki crl check --ca {segment.ca} --repair",
                )
        number = self._next_number()
        # The list ends with its issuer: nobody can check it later.
        next_update = min(self.now + self.validity, _check_not_expired(self.ca, self.now))
        der = self._sign(
            b"".join([segment.content for segment in segments]),
            number,
            next_update,
            # Read instead of trusted when the clock went back: an entry may then lie in the future.
            judged=all(segment.newest is None or segment.newest <= self.now for segment in segments),
            url=url,
            freshest_url=self._delta_url() if shard is None else None,
        )
        record = CrlRecord(
            id=f"{self.ca.id}/{number}",
            ca=self.ca.id,
            number=number,
            this_update=self.now,
            next_update=next_update,
            entries=sum(segment.count for segment in segments),
            sha256=sha256_hex(der),
            der=der,
            shard=shard,
            changes=self.changes,
        )
        self.tx.add_crl(record)
        self._audit("crl.publish", record, {"shard": shard} if shard is not None else {})
        return record

    def _publish_delta(self, number: int | None) -> CrlDeltaRecord | None:
        base = self.tx.find_delta_base(self.ca.id, self.now)
        if base is None:
            return None
        base_number, since = base
        assert self.ca.crl_delta_hours is not None
        number = number or self._next_number()
        entries = list(self._delta_entries(since))
        end = _check_not_expired(self.ca, self.now)
        next_update = min(self.now + timedelta(hours=self.ca.crl_delta_hours), end)
        der = self._sign(b"".join(entries), number, next_update, judged=False, delta_base=base_number)
        record = CrlDeltaRecord(
            id=f"{self.ca.id}/{number}",
            ca=self.ca.id,
            number=number,
            base=base_number,
            this_update=self.now,
            next_update=next_update,
            entries=len(entries),
            sha256=sha256_hex(der),
            der=der,
            changes=self.changes,
        )
        self.tx.add_delta_crl(record)
        self._audit("crl.publish-delta", record, {"base": base_number})
        return record

    def _delta_entries(self, since: int) -> Iterable[bytes]:
        """Yield what became of each certificate that changed after change *since*.

        A release is told even where the base does not have the hold: a list in between may have had it
        (RFC 5280 5.2.4).
        """
        last = {change.certificate: change.entry for change in self.tx.list_changes(self.ca.id, since)}
        for certificate, entry in last.items():
            serial = int(certificate.rpartition(":")[2], 16)
            yield entry or encode_entry(RevokedEntry(serial, self.now, ReasonCode.REMOVE_FROM_CRL), in_delta=True)

    def _delta_url(self) -> str | None:
        base = self.issuer.ca.public_url
        return (
            f"{base.rstrip('/')}/crl/{self.ca.id}-delta.crl" if base and self.ca.crl_delta_hours is not None else None
        )

    def _sign(
        self,
        entries: bytes,
        number: int,
        next_update: datetime,
        *,
        judged: bool,
        url: str | None = None,
        delta_base: int | None = None,
        freshest_url: str | None = None,
    ) -> bytes:
        """Build, sign and lint one list; nothing is written yet."""
        algorithm = signature_algorithm(self.issuer.signer.algorithm).der
        tbs = build_crl_tbs(
            issuer_name_der=self.ca.subject_der,
            authority_key_id=self.issuer.info.key_identifier,
            number=number,
            this_update=self.now,
            next_update=next_update,
            encoded_entries=entries,
            signature_algorithm_der=algorithm,
            distribution_point_url=url,
            delta_base=delta_base,
            freshest_url=freshest_url,
        )
        der = assemble_crl(tbs, algorithm, self.issuer.signer.sign(tbs))
        report = lint_crl(der, issuer_der=self.ca.certificate_der, now=self.now, entries_judged=judged)
        if report.errors:
            first = report.errors[0]
            raise ProfileViolation(
                f"the CRL would be malformed: {first.message}",
                why=f"{first.clause} ({first.rule}); it was not published",
                fix=first.hint,
                findings=report.errors,
            )
        return der

    def _audit(self, action: str, record: CrlRecord | CrlDeltaRecord, more: dict[str, object]) -> None:
        self.tx.audit(
            self.actor,
            action,
            record.id,
            now=self.now,
            artefact_sha256=record.sha256,
            details={
                "number": record.number,
                "entries": record.entries,
                "next_update": record.next_update.isoformat(),
                **more,
            },
        )
