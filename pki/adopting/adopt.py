"""Take over an existing CA: reserve its name, keep its key, record what it issued and revoked, and only then issue.

Each step is durable before the next one, and the same command continues from wherever a crash stopped it. Until all of
it is there, the CA is pending: it signs nothing, so that no list can lack what was revoked before. New serial numbers
are 159 random bits; new lists have a number above the newest of the old ones, which is recorded as its list.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import islice
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from chargepki.pki import keys, names
from chargepki.pki.adopting.estate import CaEstate, MissingCertificate
from chargepki.pki.authority.creation import check_label
from chargepki.pki.authority.four_eyes import FourEyes
from chargepki.pki.crl_entry import ReasonCode
from chargepki.pki.errors import Conflict, InputError, PolicyRefusal, SignerError, StateError
from chargepki.pki.inventory import Inventory, Transaction
from chargepki.pki.inventory.import_records import FoundCertificate
from chargepki.pki.inventory.records import (
    FOREIGN,
    Actor,
    CaRecord,
    CaState,
    CertificateRecord,
    CertificateState,
    CrlRecord,
)
from chargepki.pki.lint import lint_certificate
from chargepki.pki.profiles import get_profile
from chargepki.pki.profiles.base import Profile, RoleKind
from chargepki.pki.signer import KeyStores

__all__ = ["AdoptOrder", "Adopted", "adopt_ca", "check_keeping", "check_order"]

_BATCH: Final = 500
_WEAK: Final = frozenset({"e_roca", "e_debian_weak_key", "e_rsa_exponent", "e_ec_explicit_params", "e_md5_sha1"})
"""Rules of the linter about keys and digests: a CA that breaks one must not go on."""


@dataclass(frozen=True, slots=True)
class AdoptOrder:
    """An existing CA to take over."""

    name: str
    profile: str
    issuer: str | None = None
    """Name or id of the CA above it, which is on record here; ``None`` for a root, or to look for it."""
    public_url: str | None = None


@dataclass(frozen=True, slots=True)
class Adopted:
    """A CA that was taken over."""

    ca: CaRecord
    certificates: int
    """Put on record by this run."""
    revoked: int
    """Revocations put on record by this run."""
    crl_number: int | None
    """Number of its newest list; the next one is above it."""


def check_order(order: AdoptOrder, estate: CaEstate, inventory: Inventory | None, now: datetime) -> Profile:
    """Refuse a CA that could not issue here what relying parties believe; nothing is written.

    Raises:
        PolicyRefusal: no CA profile, the wrong one for a root or sub-CA, a key or digest that is too weak, expired.
        NotFound: its issuer is not on record.
        Conflict: the name or the key is taken.
    """
    check_label(order.name, "CA name")
    profile = get_profile(order.profile)
    if not profile.is_ca or profile.kind is RoleKind.CROSS:
        raise PolicyRefusal(
            f"{profile.id} is no profile of a CA", why=profile.clause, fix="see: chargepki profile list"
        )
    if profile.is_root is not estate.is_root:
        kind = "a root" if estate.is_root else "a sub-CA"
        raise PolicyRefusal(
            f"the CA is {kind}, {profile.id} is not the profile of one",
            why=profile.clause,
            fix="name another --profile",
        )
    _check_certificate(estate, now)
    algorithm = keys.algorithm_of(estate.key.public_key())
    if algorithm not in profile.keys.algorithms:
        raise PolicyRefusal(
            f"the CA's key is {algorithm.value}, which is not allowed in {profile.id}",
            why=profile.keys.clause,
            fix=f"name a profile that allows it, or create a new CA with one of {', '.join(profile.keys.algorithms)}",
        )
    report = lint_certificate(estate.facts.der, profile=profile)
    weak = [item for item in report.findings if item.rule in _WEAK]
    if weak and not (estate.is_root and {item.rule for item in weak} == {"e_md5_sha1"}):
        # A root's own signature proves nothing, and is believed by nobody for its digest.
        raise PolicyRefusal(
            f"the CA is too weak to go on: {weak[0].message}", why=weak[0].clause, fix="create a new CA, and move over"
        )
    number = estate.lists[-1].number if estate.lists else None
    if number is not None and number >= 1 << 62:
        raise PolicyRefusal(
            f"its newest list has the number {number}",
            why="numbers above it do not fit into the inventory",
            fix="create a new CA, and move over",
        )
    if inventory is not None:
        _check_free(order, estate, inventory)
        if not estate.is_root:
            _find_issuer(order, estate, inventory)
    return profile


def _check_certificate(estate: CaEstate, now: datetime) -> None:
    facts = estate.facts
    if not facts.not_before <= now <= facts.not_after:
        raise PolicyRefusal(
            f"the CA is valid from {facts.not_before:%Y-%m-%d} to {facts.not_after:%Y-%m-%d} only",
            why="what it issued now would be believed by nobody",
            fix="create a new CA, and move over",
        )
    try:
        extensions = estate.certificate.extensions
        if not extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            raise PolicyRefusal(
                "the certificate is none of a CA", why="basicConstraints says CA:FALSE", fix="name that of the CA"
            )
    except x509.ExtensionNotFound as exc:
        raise PolicyRefusal(
            "the certificate is none of a CA",
            why="it has no basicConstraints (RFC 5280 4.2.1.9)",
            fix="create a new CA",
        ) from exc
    except (ValueError, x509.DuplicateExtension) as exc:
        raise InputError("the extensions of the CA cannot be read", why=str(exc)[:200]) from exc
    try:
        usage = extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return
    if not (usage.key_cert_sign and usage.crl_sign):
        raise PolicyRefusal(
            "the CA may not sign certificates and lists both",
            why="its keyUsage lacks keyCertSign or cRLSign (RFC 5280 4.2.1.3)",
            fix="create a new CA, and move over",
        )


def _check_free(order: AdoptOrder, estate: CaEstate, inventory: Inventory) -> None:
    for other in inventory.list_cas():
        if other.name == order.name:
            if other.certificate_der != estate.facts.der:
                raise Conflict(
                    f"CA {other.name} exists already ({other.id}, {other.state.value})", fix="choose another name"
                )
        elif other.spki_sha256 == estate.facts.spki_sha256 and not other.is_external:
            raise Conflict(
                f"{other.id} has this key already",
                why="two CAs with one key cannot be revoked apart",
                fix=f"use that one, or import what is new into it: chargepki ca import {other.name}",
            )


def _find_issuer(order: AdoptOrder, estate: CaEstate, inventory: Inventory) -> CaRecord:
    found = [inventory.get_ca(order.issuer)] if order.issuer is not None else list(inventory.list_cas())
    for ca in found:
        if ca.subject_der != estate.facts.issuer_der or ca.certificate_der is None:
            continue
        try:
            estate.certificate.verify_directly_issued_by(x509.load_der_x509_certificate(ca.certificate_der))
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
            continue
        return ca
    raise PolicyRefusal(
        f"no CA here has issued it: {names.text(estate.facts.issuer_der)}",
        why="a chain ends at a root that is on record",
        fix="import that CA first, the root before all: chargepki ca import",
    )


def check_keeping(order: AdoptOrder, keystore: KeyStores) -> None:
    """Refuse to begin where the key could not be kept.

    Raises:
        PolicyRefusal: keys are made in a token, which takes none from outside.
    """
    if not keystore.uri(f"{order.name}@1").startswith("file:"):
        raise PolicyRefusal(
            "the key of this CA is not put into a token",
            why="a key that lay in a file has copies; those in the token were made there, and never leave it",
            fix="import it without key_token, as a file; then chargepki ca rollover makes its next key in the token",
        )


def adopt_ca(
    order: AdoptOrder,
    estate: CaEstate,
    *,
    inventory: Inventory,
    keystore: KeyStores,
    actor: Actor,
    now: datetime,
    four_eyes: FourEyes,
) -> Adopted:
    """Take over the CA, or what is new of one that was taken over; see the module for the order of steps.

    Raises:
        as `check_order`; and PolicyRefusal: it needs approvals, SignerError: the key cannot be kept, UnavailableError:
            the disk is full.
    """
    profile = check_order(order, estate, inventory, now)
    check_keeping(order, keystore)
    told = {"name": order.name, "profile": order.profile, "certificate_sha256": estate.facts.sha256}

    def approved(tx: Transaction) -> None:
        four_eyes.require(tx, "ca.import", told, actor=actor, now=now)

    ca = _reserve(order, estate, profile, inventory, keystore, actor, now, approved)
    label = ca.key_uri.removeprefix("file:").removesuffix(".key")
    if not keystore.exists(label):
        keystore.keep(label, estate.key)
    if keys.spki_sha256(keystore.open(ca.key_uri).spki_der) != estate.facts.spki_sha256:
        raise SignerError(f"the key file of {ca.id} is another key", fix="move it away, and repeat")
    added = revoked = 0
    for batch in _batches(_records(ca, estate, actor, now)):
        more, gone = inventory.write(partial(_store, ca=ca, batch=batch, estate=estate, actor=actor, now=now))
        added, revoked = added + more, revoked + gone
    return inventory.write(lambda tx: _finish(tx, ca, estate, actor, now, added, revoked))


def _reserve(
    order: AdoptOrder,
    estate: CaEstate,
    profile: Profile,
    inventory: Inventory,
    keystore: KeyStores,
    actor: Actor,
    now: datetime,
    approved: Callable[[Transaction], None],
) -> CaRecord:
    facts = estate.facts
    ca_id = f"{order.name}@1"
    record = CaRecord(
        id=ca_id,
        name=order.name,
        generation=1,
        profile=profile.id,
        issuer=None if estate.is_root else _find_issuer(order, estate, inventory).id,
        subject=names.text(facts.subject_der),
        subject_der=facts.subject_der,
        key_uri=keystore.uri(ca_id),
        state=CaState.PENDING,
        public_url=order.public_url,
        created_at=now,
        spki_sha256=facts.spki_sha256,
        certificate_der=facts.der,
        not_before=facts.not_before,
        not_after=facts.not_after,
    )

    def work(tx: Transaction) -> CaRecord:
        existing = tx.find_ca(order.name)
        if existing is not None:
            if existing.certificate_der != facts.der or existing.profile != profile.id:
                raise Conflict(
                    f"CA {existing.name} exists already ({existing.id}, {existing.state.value}, {existing.profile})",
                    fix="choose another name, or the profile of the first run",
                )
            return existing
        if keystore.exists(ca_id):
            raise Conflict(f"a key file for {ca_id} exists already", fix="move it away, or choose another name")
        approved(tx)
        tx.reserve_ca(record)
        tx.audit(
            actor, "ca.import-begin", ca_id, now=now, artefact_sha256=facts.sha256, details={"key": record.key_uri}
        )
        return record

    return inventory.write(work)


def _records(ca: CaRecord, estate: CaEstate, actor: Actor, now: datetime) -> Iterator[CertificateRecord]:
    above = ca.id if ca.issuer is None else ca.issuer
    own = _record(estate.facts, above, actor, now, request_key=f"ca:{ca.id}", profile=ca.profile)
    yield own
    for each in estate.issued:
        yield _record(each, ca.id, actor, now, request_key="imported", profile=FOREIGN)
    for missing in estate.missing:
        if missing.revocation is not None:
            yield _without_file(missing, ca, actor, now)


def _record(
    found: FoundCertificate, ca: str, actor: Actor, now: datetime, *, request_key: str, profile: str
) -> CertificateRecord:
    return CertificateRecord(
        id=f"{ca}:{found.serial}",
        ca=ca,
        serial=found.serial,
        profile=profile,
        state=CertificateState.ISSUED,
        subject=names.text(found.subject_der),
        subject_der=found.subject_der,
        spki_sha256=found.spki_sha256,
        not_before=found.not_before,
        not_after=found.not_after,
        request_key=request_key,
        requester=actor.name,
        reserved_at=now,
        der=found.der,
        sha256=found.sha256,
    )


def _without_file(missing: MissingCertificate, ca: CaRecord, actor: Actor, now: datetime) -> CertificateRecord:
    """Return the row of a revoked certificate of which only the serial number is known: lists must go on naming it."""
    assert missing.revocation is not None and ca.not_before is not None
    return CertificateRecord(
        id=f"{ca.id}:{missing.serial}",
        ca=ca.id,
        serial=missing.serial,
        profile=FOREIGN,
        state=CertificateState.ISSUED,
        subject="",
        subject_der=b"\x30\x00",
        spki_sha256=hashlib.sha256(b"").hexdigest(),
        not_before=ca.not_before,
        not_after=missing.not_after,
        request_key="imported",
        requester=actor.name,
        reserved_at=now,
    )


def _batches(records: Iterator[CertificateRecord]) -> Iterator[list[CertificateRecord]]:
    while batch := list(islice(records, _BATCH)):
        yield batch


def _store(
    tx: Transaction, *, ca: CaRecord, batch: Sequence[CertificateRecord], estate: CaEstate, actor: Actor, now: datetime
) -> tuple[int, int]:
    fresh = tx.import_issued(batch)
    revoked = 0
    for record in batch:
        fact = estate.revocations.get(record.serial) if record.ca == ca.id and record.profile == FOREIGN else None
        if fact is None or (known := tx.get_certificate(record.id)).state is CertificateState.REVOKED:
            continue
        tx.revoke_certificate(
            known.id, min(fact.revoked_at, now), ReasonCode(fact.reason).value, invalidity_date=fact.invalidity_date
        )
        revoked += 1
    if fresh or revoked:
        tx.audit(actor, "ca.import", ca.id, now=now, details={"certificates": fresh, "revoked": revoked})
    return fresh, revoked


def _finish(
    tx: Transaction, ca: CaRecord, estate: CaEstate, actor: Actor, now: datetime, added: int, revoked: int
) -> Adopted:
    current = tx.get_ca(ca.id)
    newest = next((view for view in reversed(estate.lists) if view.number is not None), None)
    number = newest.number if newest is not None else None
    changed = False
    if newest is not None and number is not None and number >= tx.next_crl_number(ca.id):
        record = CrlRecord(
            id=f"{ca.id}/{number}",
            ca=ca.id,
            number=number,
            this_update=newest.this_update,
            next_update=newest.next_update or newest.this_update,
            entries=len(newest.entries),
            sha256=hashlib.sha256(newest.der).hexdigest(),
            der=newest.der,
        )
        tx.add_crl(record)
        changed = True
    if current.state is CaState.PENDING:
        current = tx.update_ca(ca.id, state=CaState.ACTIVE)
        changed = True
    elif current.state is not CaState.ACTIVE:
        raise StateError(f"{ca.id} is {current.state.value}", why="nothing is imported into it any more")
    if changed:
        tx.audit(
            actor,
            "ca.import-end",
            ca.id,
            now=now,
            artefact_sha256=estate.facts.sha256,
            details={"profile": ca.profile, "subject": ca.subject, "key": ca.key_uri, "crl_number": number},
        )
    return Adopted(current, added, revoked, number)
