"""Verify an OCSP response or a CRL about a serial number of a known issuer, without the certificate itself.

For whoever is asked by hash data: the certificate is somebody else's, and only its issuer is at hand. What is believed
is the same as in path validation: signed by the issuer or by its delegate, current, and about exactly this serial.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from chargepki.pki import keys, oids
from chargepki.pki.chain.certificate import PathCertificate, same_name
from chargepki.pki.chain.crls import RevocationList, not_current
from chargepki.pki.chain.ocsp import OcspAnswer, OcspResponse, is_responder, read_ocsp_response, why_no_delegate
from chargepki.pki.chain.policy import WorkBudget
from chargepki.pki.chain.pool import SignatureChecker
from chargepki.pki.der import DerError
from chargepki.pki.errors import ChargePkiError, RevocationError
from chargepki.pki.ocsp import issuer_hashes
from chargepki.pki.profiles.base import KeyUsageBit

__all__ = ["StatusEvidence", "verify_crl_status", "verify_ocsp_status"]

_SKEW: Final = timedelta(minutes=5)
_CRL_SIGN: Final = KeyUsageBit.CRL_SIGN.bit


@dataclass(frozen=True, slots=True)
class StatusEvidence:
    """What verified evidence says about one serial number; only the functions of this module make it."""

    status: str
    """``good``, ``revoked`` or ``unknown``."""
    this_update: datetime
    next_update: datetime | None
    revoked_at: datetime | None
    der: bytes
    """The OCSP response or CRL."""


def verify_ocsp_status(
    response_der: bytes, issuer_der: bytes, serial: int, *, at: datetime, max_age: timedelta
) -> StatusEvidence:
    """Return what a response says about *serial* under *issuer*.

    Args:
        max_age: greatest age of a response without nextUpdate.

    Raises:
        RevocationError: it cannot be read, is not about this certificate, not signed by whoever may answer for the
            issuer, or not current; never for a status that is read.

    Clause: RFC 6960 3.2, 4.2.2.2.
    """
    try:
        response, issuer = read_ocsp_response(response_der), PathCertificate(issuer_der)
        found = [each for each in response.answers if _is_about(each, issuer, serial)]
        if not found:
            raise _unusable("it is about other certificates")
        why = _why_no_authority(response, issuer, at)
    except DerError as error:
        raise _unusable(error.what) from error
    if why:
        raise _unusable(why)
    answer = found[0]
    unknown = response.unknown_critical or answer.unknown_critical
    if unknown:
        raise _unusable(f"critical extension {unknown} is not understood (RFC 6960 4.4)")
    bound = max_age if answer.next_update is None else None
    late = not_current(answer.this_update, answer.next_update, at, bound, _SKEW)
    if late:
        raise _unusable(late)
    return StatusEvidence(answer.status, answer.this_update, answer.next_update, answer.revoked_at, response_der)


def _is_about(answer: OcspAnswer, issuer: PathCertificate, serial: int) -> bool:
    if answer.serial != serial or not answer.hash_name:
        return False
    return (answer.name_hash, answer.key_hash) == issuer_hashes(answer.hash_name, issuer.subject, issuer.spki)


def _why_no_authority(response: OcspResponse, issuer: PathCertificate, at: datetime) -> str:
    checker = SignatureChecker(WorkBudget())

    def signed(candidate: PathCertificate) -> bool:
        return checker.verifies(candidate.load_key(), response.signature, response.tbs, response.algorithm)

    if is_responder(response, issuer) and signed(issuer):
        return ""
    why = "it is signed neither by the issuer nor by a responder that the issuer delegated"
    for encoded in response.certificates:
        try:
            candidate = PathCertificate(encoded)
        except DerError:
            continue  # a broken companion is of no use, and does no harm
        if not is_responder(response, candidate) or not same_name(candidate.issuer, issuer.subject):
            continue
        if not checker.issued(issuer, candidate) or not signed(candidate):
            continue
        why = why_no_delegate(candidate, at)
        if not why and candidate.extension(oids.OCSP_NO_CHECK) is None:
            # Its own status would need evidence that nobody has asked for.
            why = "its signer has no ocspNoCheck (RFC 6960 4.2.2.2.1)"
        if not why:
            return ""
    return why


def verify_crl_status(
    crl_der: bytes, issuer_der: bytes, serial: int, *, at: datetime, max_age: timedelta
) -> StatusEvidence:
    """Return what a complete CRL of *issuer* says about *serial*: ``revoked`` or, not being on it, ``good``.

    Raises:
        RevocationError: it cannot be read, is another's, a delta, limited in what it covers, not signed by the issuer,
            or not current.

    Clause: RFC 5280 6.3.3; M07.FR.06, FR.07.
    """
    try:
        found, issuer = RevocationList(crl_der), PathCertificate(issuer_der)
    except DerError as error:
        raise _unusable(error.what) from error
    content, point = found.content, found.point
    if not same_name(content.issuer, issuer.subject):
        raise _unusable("it is the list of another issuer")
    limited = point is not None and (point.indirect or point.reasons is not None or point.only_attributes)
    if found.is_delta or limited:
        raise _unusable("it is not a complete list of this issuer")
    if found.unknown_critical:
        raise _unusable(f"critical extension {found.unknown_critical} is not understood (RFC 5280 5.2)")
    signature = content.signature or b""
    if not issuer.may(_CRL_SIGN) or not _verifies(issuer, signature, content.tbs, content.signature_algorithm):
        raise _unusable("it is not signed by the issuer")
    late = found.why_not_current(at, max_age if content.next_update is None else None, _SKEW)
    if late:
        raise _unusable(late)
    entry = next((each for each in content.entries if each.serial == serial), None)
    this_update, next_update = content.this_update.value, content.next_update and content.next_update.value
    assert this_update is not None  # `why_not_current` would have said so
    if entry is None:
        return StatusEvidence("good", this_update, next_update, None, crl_der)
    return StatusEvidence("revoked", this_update, next_update, entry.revoked_at.value, crl_der)


def _verifies(issuer: PathCertificate, signature: bytes, data: bytes, algorithm: bytes) -> bool:
    key = issuer.load_key()
    try:
        return key is not None and keys.verify(key, signature, data, algorithm)
    except ChargePkiError:
        return False


def _unusable(why: str) -> RevocationError:
    return RevocationError(
        "the revocation evidence is not used", status="unknown", why=why, fix="ask a responder of the issuer"
    )
