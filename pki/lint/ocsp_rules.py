"""Rules about OCSP responses (RFC 6960)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from chargepki.pki import keys, names, oids
from chargepki.pki.certificate_view import CertificateView, view_certificate
from chargepki.pki.der import DerError
from chargepki.pki.errors import InputError, printable_number
from chargepki.pki.findings import Severity
from chargepki.pki.lint.engine import Needs, NotEvaluated, Problem, Registry, Verdict
from chargepki.pki.lint.ocsp_view import OcspView
from chargepki.pki.lint.standards import ISO20, V2G
from chargepki.pki.profiles.base import Standard

__all__ = ["OCSP_RESPONSES", "OcspContext"]

_WEEK: Final = timedelta(days=7)
_WEAK: Final = frozenset({oids.MD5_WITH_RSA, oids.SHA1_WITH_RSA, oids.ECDSA_WITH_SHA1})


@dataclass(frozen=True, slots=True)
class OcspContext:
    """Everything that a rule about OCSP responses may look at."""

    view: OcspView
    standard: Standard | None = None
    issuer: CertificateView | None = None
    now: datetime | None = None
    responders: tuple[bytes, ...] = ()
    """SubjectPublicKeyInfo (DER) of responders that the operator trusts for every issuer."""


OCSP_RESPONSES: Final[Registry[OcspContext]] = Registry("ocsp-response")


@OCSP_RESPONSES.rule(
    "e_der_strict", "X.690; RFC 6960 4.2.1", "the response is DER", hint="encode it in DER and send nothing after it"
)
def der_strict(context: OcspContext) -> Verdict:
    """Report what the reader noted on its way."""
    return [
        Problem(f"{problem.what} (rule {problem.rule})", f"offset {problem.offset}")
        for problem in context.view.problems
    ]


@OCSP_RESPONSES.rule(
    "w_ocsp_unsuccessful",
    "RFC 6960 4.2.2.3",
    "the response is successful",
    hint="ask the responder's operator: an unsigned error is no answer about any certificate",
    where="responseStatus",
)
def unsuccessful(context: OcspContext) -> Verdict:
    """Errors are not signed, so nobody may conclude anything from them."""
    return None if context.view.status == 0 else f"responseStatus is {printable_number(context.view.status)}"


@OCSP_RESPONSES.rule(
    "w_ocsp_too_long",
    "[V2G20-1021]; ISO 15118-2 [V2G2-649]",
    "a response is valid for a week at most",
    hint="sign responses with nextUpdate at most 7 days after thisUpdate",
    standards=V2G,
    where="tbsResponseData.responses",
    severity_by_standard=dict.fromkeys(ISO20, Severity.ERROR),
)
def too_long(context: OcspContext) -> Verdict:
    """ISO 15118-2 demands a weekly refresh and names no bound, hence the warning there."""
    problems = []
    for single in context.view.singles:
        start, end = single.this_update.value, single.next_update.value if single.next_update else None
        if single.next_update is None:
            problems.append(Problem(f"the answer about {single.serial:x} has no nextUpdate"))
        elif start and end and end - start > _WEEK:
            problems.append(Problem(f"the answer about {single.serial:x} is valid for {(end - start).days} days"))
    return problems


@OCSP_RESPONSES.rule(
    "e_ocsp_window",
    "RFC 6960 4.2.2.1",
    "times are GeneralizedTime, thisUpdate before nextUpdate",
    hint="check the responder's clock",
    where="tbsResponseData.responses",
)
def window(context: OcspContext) -> Verdict:
    """An empty window makes the answer stale at once."""
    problems = []
    for single in context.view.singles:
        times = [single.this_update] + ([single.next_update] if single.next_update else [])
        if any(time.value is None or time.tag != 0x18 for time in times):
            problems.append(Problem(f"a time of the answer about {single.serial:x} is malformed"))
            continue
        values = [time.value for time in times if time.value]
        if values[-1] < values[0]:
            problems.append(Problem(f"the answer about {single.serial:x} ends {values[-1]}, begins {values[0]}"))
    return problems


@OCSP_RESPONSES.rule(
    "e_ocsp_stale",
    "RFC 6960 4.2.2.1",
    "the response is current",
    hint="fetch a fresh one",
    where="tbsResponseData.responses",
    needs=Needs(now=True),
)
def stale(context: OcspContext) -> Verdict:
    """Also finds answers from the future."""
    problems, now = [], context.now
    for single in context.view.singles if now else ():
        start, end = single.this_update.value, single.next_update.value if single.next_update else None
        if now and end and now > end:
            problems.append(Problem(f"the answer about {single.serial:x} is stale since {end}"))
        elif now and start and start > now:
            problems.append(Problem(f"the answer about {single.serial:x} is from the future, {start}"))
    return problems


@OCSP_RESPONSES.rule(
    "e_ocsp_signer",
    "RFC 6960 4.2.2.2",
    "signed by the issuer, by its delegate with id-kp-OCSPSigning, or by a responder configured locally",
    hint="let the issuing CA itself certify the responder's key under common/ocsp-signer",
    where="signature",
    needs=Needs(issuer=True),
)
def signer(context: OcspContext) -> Verdict:
    """The signature is verified with the key that is found."""
    view, issuer = context.view, context.issuer
    if issuer is None or view.status != 0:
        return NotEvaluated("the response is not successful, so it is not signed")
    if _signed(view, issuer.key.der) or any(_signed(view, key) for key in context.responders):
        return None
    for der in view.certificates:
        try:
            delegate = view_certificate(der)
        except DerError:
            continue
        if _signed(view, delegate.key.der):
            return _delegated(delegate, issuer)
    return "no signer: the signature verifies neither with the issuer's key nor with that of an embedded certificate"


def _delegated(delegate: CertificateView, issuer: CertificateView) -> str | None:
    if oids.EKU_OCSP_SIGNING not in (delegate.known.extended_key_usage or ()):
        return "the signer's certificate lacks id-kp-OCSPSigning"
    direct = names.same(delegate.issuer, issuer.subject) and _verifies(
        issuer.key.der, delegate.signature or b"", delegate.tbs, delegate.signature_algorithm
    )
    return None if direct else "the signer's certificate was not issued by the CA of the certificate in question"


def _signed(view: OcspView, spki: bytes) -> bool:
    return _verifies(spki, view.signature, view.tbs, view.signature_algorithm)


def _verifies(spki: bytes, signature: bytes, data: bytes, algorithm: bytes) -> bool:
    try:
        return keys.verify(keys.load_public_key(spki), signature, data, algorithm)
    except InputError:
        return False


@OCSP_RESPONSES.rule(
    "e_md5_sha1",
    "OCPP 2.0.1 A00; ISO 15118-2 Annex F",
    "no MD2, MD4, MD5 or SHA-1 signature",
    hint="sign with SHA-256 or better",
    where="signatureAlgorithm",
)
def md5_sha1(context: OcspContext) -> Verdict:
    """Of the signature only: SHA-1 in a CertID is an identifier."""
    algorithm = context.view.signature_algorithm_oid
    return f"signed with {oids.name_of(algorithm)}" if algorithm in _WEAK else None
