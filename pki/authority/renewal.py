"""Renewal: when a certificate is due for a successor, and the order for one with the same name and new dates."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from chargepki.pki import names
from chargepki.pki.authority.orders import IssueOrder
from chargepki.pki.csr import parse_csr
from chargepki.pki.errors import Conflict, PolicyRefusal, StateError
from chargepki.pki.inventory import Inventory
from chargepki.pki.inventory.records import CertificateRecord, CertificateState, Delivery
from chargepki.pki.profiles import get_profile
from chargepki.pki.template import Criticality
from chargepki.pki.validity import Window

__all__ = [
    "LONGEST_WINDOW",
    "due_at",
    "find_due",
    "find_renewal",
    "find_successor",
    "renewal_order",
    "renewal_window",
]

LONGEST_WINDOW: Final = timedelta(days=30)
"""A station renews by itself when its certificate expires within one month (OCPP A03.FR.02)."""
_SHARE: Final = 3
_SPREAD: Final = 1 << 32
_RENEWED_ELSEWHERE: Final = {
    "common/ocsp-signer": ("the responder renews its signers by itself", "keep chargepki serve running"),
    "iso15118-2/contract": ("a vehicle asks for it with its own key", "run: chargepki contract offer EMAID"),
    "iso15118-20/contract": ("a vehicle asks for it with its own key", "run: chargepki contract offer EMAID"),
    "iso15118-20-a1/contract": ("a vehicle asks for it with its own key", "run: chargepki contract offer EMAID"),
}


def renewal_window(record: CertificateRecord) -> timedelta:
    """Return how long before its end *record* may be renewed: the last third of its life, at most a month."""
    return min(LONGEST_WINDOW, (record.not_after - record.not_before) / _SHARE)


def due_at(record: CertificateRecord) -> datetime:
    """Return the instant from which *record* is due.

    Certificates that were issued together are not due together: each has a place of its own, always the same, in the
    first half of its window.
    """
    window = renewal_window(record)
    place = int.from_bytes(hashlib.sha256(record.id.encode()).digest()[:4]) / _SPREAD
    return record.not_after - window + window / 2 * place


def find_due(
    inventory: Inventory, now: datetime, *, ca: str | None = None, profile: str | None = None
) -> Iterator[tuple[CertificateRecord, CertificateRecord | None]]:
    """Yield the certificates that are due at *now*, by id, each with its successor if it has one already.

    Left out are CAs, what renews itself or is renewed by others (OCSP signers, contracts), what another one has
    superseded, and what has expired: who has let that happen is to be asked first.

    Args:
        ca: id of a generation.
    """
    for record in inventory.list_certificates(
        ca=ca, profile=profile, state=CertificateState.ISSUED, not_after_before=now + LONGEST_WINDOW
    ):
        if record.not_after < now or now < due_at(record) or record.origin != "issued":
            continue
        if record.delivery is Delivery.SUPERSEDED:
            continue
        if record.profile not in _RENEWED_ELSEWHERE and not get_profile(record.profile).is_ca:
            yield record, find_successor(inventory, record)


def find_successor(inventory: Inventory, record: CertificateRecord) -> CertificateRecord | None:
    """Return the certificate that was issued in place of *record*: for its station, by `renewal_order`, or for its key.

    A valid certificate of the same profile that lasts longer, or as long and is younger: near the end of their CA all
    end with it. One on hold or revoked is no successor.
    """
    renewed = find_renewal(inventory, record)
    if renewed is not None and renewed.state is CertificateState.ISSUED:
        return renewed
    found: Iterable[CertificateRecord]
    if record.station is not None:
        found = inventory.list_certificates(station=record.station, profile=record.profile)
    else:
        found = inventory.list_certificates_of_key(record.spki_sha256)
    better = [
        each
        for each in found
        if each.state is CertificateState.ISSUED
        and each.profile == record.profile
        and (each.not_after, each.not_before) > (record.not_after, record.not_before)
    ]
    return max(better, key=lambda each: each.not_after, default=None)


def find_renewal(inventory: Inventory, record: CertificateRecord) -> CertificateRecord | None:
    """Return the newest certificate that an order of `renewal_order` for *record* was answered with."""
    return inventory.find_certificate_by_request_key(f"id:{_request_id(record)}")


def renewal_order(
    record: CertificateRecord,
    *,
    ca: str,
    ca_window: Window,
    now: datetime,
    csr: bytes | None = None,
    spki: bytes | None = None,
    validity: timedelta | None = None,
    criticality: Criticality = "profile",
    again: bool = False,
) -> IssueOrder:
    """Return the order for the successor of *record*: same profile, subject, names, station and length of life.

    A repeat of it is answered with the same certificate; another renewal of *record* is a `Conflict` unless *again*.

    Args:
        ca: name of the CA; its newest generation signs.
        ca_window: the validity of that generation.
        csr: a request for a new key (PEM or DER); its subject may leave things out, not change them.
        spki: a new key (DER SubjectPublicKeyInfo) in place of a request; with neither the key stays.
        validity: another length of life.
        again: make another one although *record* was renewed already.

    Raises:
        PolicyRefusal: it is a CA, or renewed in another way.
        StateError: it was revoked, or never issued.
        Conflict: the request is for another subject.
    """
    _check_renewable(record)
    assert record.der is not None
    certificate = x509.load_der_x509_certificate(record.der)
    subject = tuple(names.attributes(record.subject_der))
    if csr is not None:
        request = parse_csr(csr)
        _check_subject(dict(request.subject), dict(subject), record)
    elif spki is None:
        spki = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    lasts: timedelta | None = validity
    if lasts is None:
        lasted = Window(record.not_before, record.not_after).duration
        # Else the profile's default, which is cut to the end of the CA.
        lasts = lasted if now + lasted <= ca_window.not_after else None
    return IssueOrder(
        ca=ca,
        profile=record.profile,
        csr=csr,
        spki=None if csr is not None else spki,
        subject=subject,
        validity=lasts,
        dns_names=_dns_names(certificate),
        criticality=criticality,
        request_id=_request_id(record),
        again=again,
        station=record.station,
    )


def _request_id(record: CertificateRecord) -> str:
    return f"renew {record.id}"


def _check_renewable(record: CertificateRecord) -> None:
    if record.origin != "issued":
        raise PolicyRefusal(
            f"{record.id} was imported: its CA is not ours", why="only its CA can renew it", fix="ask that CA"
        )
    if record.profile in _RENEWED_ELSEWHERE:
        why, fix = _RENEWED_ELSEWHERE[record.profile]
        raise PolicyRefusal(f"{record.id} ({record.profile}) is not renewed by hand", why=why, fix=fix)
    if get_profile(record.profile).is_ca:
        raise PolicyRefusal(
            f"{record.id} is the certificate of a CA",
            why="its successor is a new generation, which relying parties must be told of first",
            fix="run: chargepki ca create NAME …",
        )
    if record.state is CertificateState.REVOKED:
        raise StateError(
            f"{record.id} was revoked ({record.revocation_reason})",
            why="a renewal would undo that",
            fix="issue a new certificate for a new request: chargepki cert issue",
        )
    if record.state is not CertificateState.ISSUED:
        raise StateError(f"{record.id} is {record.state.value}", why="only what was issued can be renewed")


def _check_subject(asked: dict[str, str], ours: dict[str, str], record: CertificateRecord) -> None:
    differing = [f"{name}={value}"[:80] for name, value in asked.items() if name in ours and ours[name] != value]
    if differing:
        raise Conflict(
            f"the request is for {', '.join(differing)}, and {record.id} for {record.subject}",
            why="a renewal changes key and dates, not whose certificate it is",
            fix="make the request with the subject of the old certificate, or use: chargepki cert issue",
        )


def _dns_names(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return tuple(found.get_values_for_type(x509.DNSName))
