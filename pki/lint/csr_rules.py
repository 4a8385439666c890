"""Rules about certification requests (PKCS#10): what a CA should see before it issues."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, cast

from chargepki.pki import keys, oids
from chargepki.pki.errors import InputError
from chargepki.pki.lint import hygiene, iso15118_2, rfc5280
from chargepki.pki.lint.csr_view import CsrView
from chargepki.pki.lint.engine import (
    CERTIFICATES,
    NO_DATA,
    CertificateContext,
    LintData,
    Problem,
    Registry,
    Rule,
    Verdict,
)
from chargepki.pki.lint.standards import ISO2
from chargepki.pki.pem import to_pem
from chargepki.pki.profiles.base import KeyUsageBit, Profile, Standard

__all__ = ["CSRS", "CsrContext"]

_MAX_PEM_CHARACTERS: Final = 5500


@dataclass(frozen=True, slots=True)
class CsrContext:
    """Everything that a rule about requests may look at."""

    view: CsrView
    profile: Profile | None
    data: LintData = NO_DATA

    @property
    def standard(self) -> Standard | None:
        """The document that the certificate will be held against, if one is known."""
        return None if self.profile is None else self.profile.standard


CSRS: Final[Registry[CsrContext]] = Registry("csr")


@CSRS.rule("e_der_strict", "X.690; RFC 2986 4", "the request is DER", hint="encode it in DER and send nothing after it")
def der_strict(context: CsrContext) -> Verdict:
    """Report what the reader noted on its way; a written-out ``critical FALSE`` is common and harmless."""
    return [
        Problem(f"{problem.what} (rule {problem.rule})", f"offset {problem.offset}")
        for problem in context.view.problems
        if problem.rule != "default-encoded"
    ]


@CSRS.rule(
    "e_csr_sig",
    "RFC 2986 3 (proof of possession)",
    "the request is signed with its own key",
    hint="sign the request with the private key of the public key in it, with SHA-256 or better",
    where="signature",
)
def csr_sig(context: CsrContext) -> Verdict:
    """Without it anyone could have another's key certified."""
    view = context.view
    try:
        key = keys.load_public_key(view.key.der)
        proven = keys.verify(key, view.signature, view.info, view.signature_algorithm)
    except InputError as error:
        return f"the signature proves nothing: {error.what}"
    return None if proven else "the signature does not verify with the key of the request"


@CSRS.rule(
    "e_csr_ca_true",
    "RFC 5280 4.2.1.9; field reports (P-23)",
    "a request asks for no CA",
    hint="leave cA TRUE and keyCertSign out; a CA that copies extensions would grant them",
    where="attributes.extensionRequest",
)
def csr_ca_true(context: CsrContext) -> Verdict:
    """Public code was seen to copy requested extensions verbatim."""
    known = context.view.known
    if known.basic_constraints is not None and known.basic_constraints.ca:
        return "the request asks for cA TRUE"
    if known.key_usage is not None and known.key_usage.has(KeyUsageBit.KEY_CERT_SIGN.bit):
        return "the request asks for keyCertSign"
    return None


@CSRS.rule(
    "w_csr_dc",
    "ISO 15118-2 [V2G2-925]; field reports (P-1)",
    "a request for an SECC certificate has DC=CPO",
    hint="write DC=CPO into the subject: not every CA adds it, and an EV refuses the certificate without it",
    standards=ISO2,
    applies=("secc",),
    where="subject",
)
def csr_dc(context: CsrContext) -> Verdict:
    """The CA decides, but several copy the subject."""
    found = context.view.subject_values(oids.DOMAIN_COMPONENT)
    return None if found == ["CPO"] else f"DC is {', '.join(found)[:80] or 'absent'}"


@CSRS.rule(
    "e_ocpp_field_size",
    "OCPP SignCertificate.csr (schema)",
    "the request fits OCPP's field",
    hint="use an EC key and shorten the subject",
    where="",
)
def field_size(context: CsrContext) -> Verdict:
    """Characters of PEM."""
    size = len(to_pem("CERTIFICATE REQUEST", context.view.der))
    return f"{size} characters of PEM, the field holds {_MAX_PEM_CHARACTERS}" if size > _MAX_PEM_CHARACTERS else None


def _share(*checks: Callable[[CertificateContext], Verdict]) -> None:
    """Let rules about the key of a certificate judge the key of a request as well.

    Of the context they look at `standard`, `data`, and the key and algorithm of the view, which requests have too.
    """
    shared = {check: entry for entry in CERTIFICATES.rules() for check in checks if entry.check is check}
    for check in checks:
        entry = shared[check]
        CSRS.add(
            Rule(
                entry.id,
                entry.severity,
                entry.title,
                entry.clause,
                entry.hint,
                entry.standards,
                entry.applies,
                cast("Callable[[CsrContext], Verdict]", check),
                entry.where.replace("tbsCertificate.signature", "signatureAlgorithm").replace(
                    "tbsCertificate.subjectPublicKeyInfo", "subjectPKInfo"
                ),
                entry.severity_by_standard,
                entry.needs,
                "csr",
                entry.unverified,
            )
        )


_share(
    rfc5280.ec_explicit_params,
    rfc5280.ec_point_compressed,
    rfc5280.ec_point_not_on_curve,
    hygiene.rsa_lt_2048,
    hygiene.rsa_in_v2g,
    hygiene.rsa_params_not_null,
    hygiene.rsa_exponent,
    hygiene.roca,
    hygiene.debian_weak_key,
    hygiene.md5_sha1,
    hygiene.weak_curve,
    iso15118_2.curve,
)
