"""RFC 5280 section 5: rules about certificate revocation lists."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from itertools import islice
from typing import Final, NamedTuple

from chargepki.pki import names, oids
from chargepki.pki.certificate_view import CertificateView, TimeView
from chargepki.pki.crl_view import CrlContent, EntryContent
from chargepki.pki.errors import InputError, printable_number
from chargepki.pki.findings import Severity
from chargepki.pki.lint.engine import NO_DATA, Needs, Plan, Problem, Registry, Rule, Verdict, available_data
from chargepki.pki.lint.standards import has_bits
from chargepki.pki.profiles.base import KeyUsageBit

__all__ = ["CRLS", "CrlContext", "choose_crl_rules", "list_crl_rules"]

_MOST_REPORTED: Final = 20
"""A broken list of a million entries gives no million findings."""

_UTC_TIME: Final = 0x17
_REASONS: Final = frozenset({1, 2, 3, 4, 5, 6, 8, 9, 10})
_KNOWN: Final = frozenset(
    {oids.AUTHORITY_KEY_IDENTIFIER, oids.CRL_NUMBER, oids.DELTA_CRL_INDICATOR, oids.ISSUING_DISTRIBUTION_POINT}
)


class CrlContext(NamedTuple):
    """Everything that a CRL rule may look at."""

    crl: CrlContent
    issuer: CertificateView | None = None
    now: datetime | None = None


CRLS: Final[Registry[CrlContext]] = Registry("crl")
_CRL: Final = frozenset({"crl"})
_Check = Callable[[CrlContext], Verdict]


def _rule(
    rule_id: str, clause: str, title: str, hint: str, *, where: str, needs: Needs | None = None
) -> Callable[[_Check], _Check]:
    return CRLS.rule(rule_id, clause, title, hint=hint, applies=("crl",), where=where, needs=needs)


def list_crl_rules() -> tuple[Rule[CrlContext], ...]:
    """Return every CRL rule, sorted by id."""
    return CRLS.rules()


def choose_crl_rules(*, with_issuer: bool, with_now: bool, with_signature: bool) -> Plan[CrlContext]:
    """Choose the rules that can run, in registration order."""
    available = available_data(NO_DATA, issuer=with_issuer, now=with_now, signature=with_signature)
    return CRLS.plan(None, _CRL, available)


def _entries(context: CrlContext, broken: Callable[[EntryContent], str | None]) -> list[Problem]:
    """Return the first complaints of *broken* about the entries."""
    found = ((entry, broken(entry)) for entry in context.crl.entries)
    problems = (Problem(message, f"entry at offset {entry.offset}") for entry, message in found if message)
    return list(islice(problems, _MOST_REPORTED))


@_rule("e_der_strict", "X.690; RFC 5280 5.1", "the CRL is DER", "encode it in DER", where="")
def der_strict(context: CrlContext) -> Verdict:
    """Report what the reader noted on its way."""
    return [
        Problem(f"{problem.what} (rule {problem.rule})", f"offset {problem.offset}")
        for problem in context.crl.problems[:_MOST_REPORTED]
    ]


@_rule("e_crl_version_v2", "RFC 5280 5.1.2.1", "the version is v2", "set version to 1, which means v2", where="version")
def version_v2(context: CrlContext) -> Verdict:
    """Extensions exist in v2 only."""
    return None if context.crl.version == 1 else f"version field is {printable_number(context.crl.version)}, v2 is 1"


@_rule(
    "e_crl_sigalg_mismatch", "RFC 5280 5.1.1.2", "the two signature algorithm fields are equal",
    "write the same AlgorithmIdentifier in both places", where="signatureAlgorithm", needs=Needs(signature=True),
)  # fmt: skip
def sigalg_mismatch(context: CrlContext) -> Verdict:
    """Compared byte for byte."""
    crl = context.crl
    return None if crl.outer_algorithm == crl.signature_algorithm else "signatureAlgorithm is not tbsCertList.signature"


@_rule("e_crl_issuer_empty", "RFC 5280 5.1.2.3", "the issuer has a name", "write the CA's subject", where="issuer")
def issuer_empty(context: CrlContext) -> Verdict:
    """An empty issuer cannot be matched with a certificate."""
    return "the issuer name is empty" if context.crl.issuer == b"\x30\x00" else None


@_rule(
    "e_crl_number_missing", "RFC 5280 5.2.3", "a non-negative CRL number of at most 20 octets, not critical",
    "number the lists of a CA 1, 2, 3 …", where="crlExtensions.cRLNumber",
)  # fmt: skip
def number_missing(context: CrlContext) -> Verdict:
    """Relying parties find out with it which of two lists is newer."""
    extension, number = context.crl.extension(oids.CRL_NUMBER), context.crl.number
    if extension is None or number is None:
        return "the CRL number is missing"
    if number < 0 or number.bit_length() > 159:
        return f"the CRL number {printable_number(number)} is out of range"
    return "the CRL number is critical" if extension.critical else None


@_rule(
    "e_crl_aki_missing", "RFC 5280 5.2.1", "AuthorityKeyIdentifier with a keyIdentifier",
    "copy the CA's SubjectKeyIdentifier", where="crlExtensions.authorityKeyIdentifier",
)  # fmt: skip
def aki_missing(context: CrlContext) -> Verdict:
    """Demanded of every CRL issuer, so that the right key of a CA with several is found."""
    return None if context.crl.authority_key_id else "AuthorityKeyIdentifier has no keyIdentifier, or is missing"


@_rule("e_crl_next_update_missing", "RFC 5280 5.1.2.5", "nextUpdate is present", "set it", where="nextUpdate")
def next_update_missing(context: CrlContext) -> Verdict:
    """Without it nobody knows when the list is stale."""
    return "nextUpdate is missing" if context.crl.next_update is None else None


@_rule(
    "e_crl_time_form", "RFC 5280 5.1.2.4 to 5.1.2.6", "times in the form of RFC 5280",
    "UTCTime through 2049, GeneralizedTime from 2050, with seconds and Z", where="thisUpdate",
)  # fmt: skip
def time_form(context: CrlContext) -> Verdict:
    """Of the list and of its entries."""
    crl = context.crl
    problems = [
        Problem(f"{name} is {time.text.decode('latin-1')!r}", name)
        for name, time in (("thisUpdate", crl.this_update), ("nextUpdate", crl.next_update))
        if time is not None and not _well_formed(time)
    ]

    def broken(entry: EntryContent) -> str | None:
        time = entry.revoked_at
        return None if _well_formed(time) else f"revocationDate is {time.text.decode('latin-1')!r}"

    return problems + _entries(context, broken)


def _well_formed(time: TimeView) -> bool:
    return time.value is not None and (time.tag == _UTC_TIME or time.value.year >= 2050)


@_rule(
    "e_crl_window_inverted", "RFC 5280 5.1.2.5", "nextUpdate is after thisUpdate", "check the clock", where="nextUpdate"
)
def window_inverted(context: CrlContext) -> Verdict:
    """An empty window makes every answer stale."""
    start = context.crl.this_update.value
    end = context.crl.next_update.value if context.crl.next_update else None
    return f"thisUpdate {start} is not before nextUpdate {end}" if start and end and start >= end else None


@_rule(
    "e_crl_expired", "RFC 5280 6.3.3", "the CRL is current", "fetch or publish the next one",
    where="nextUpdate", needs=Needs(now=True),
)  # fmt: skip
def expired(context: CrlContext) -> Verdict:
    """Also finds a list from the future."""
    crl, now = context.crl, context.now
    end = crl.next_update.value if crl.next_update else None
    if now and end and now > end:
        return f"stale since {end}"
    start = crl.this_update.value
    return f"thisUpdate {start} lies in the future" if now and start and start > now else None


@_rule(
    "e_crl_reason_code", "RFC 5280 5.3.1", "reason codes are 1 to 6 and 8 to 10",
    "leave reason 0 out; 7 is not assigned", where="revokedCertificates",
)  # fmt: skip
def reason_code(context: CrlContext) -> Verdict:
    """0 (unspecified) is expressed by absence."""
    return _entries(
        context,
        lambda entry: None if entry.reason is None or entry.reason in _REASONS else f"reason code {entry.reason}",
    )


@_rule(
    "e_crl_remove_outside_delta", "RFC 5280 5.3.1", "removeFromCRL only in a delta CRL",
    "drop the entry from the full CRL", where="revokedCertificates",
)  # fmt: skip
def remove_outside_delta(context: CrlContext) -> Verdict:
    """A full list just leaves the certificate out."""
    if context.crl.extension(oids.DELTA_CRL_INDICATOR) is not None:
        return None
    return _entries(context, lambda entry: "removeFromCRL in a full CRL" if entry.reason == 8 else None)


@_rule(
    "e_crl_serial_duplicate", "RFC 5280 5.1.2.6", "an entry per serial number", "merge the entries",
    where="revokedCertificates",
)  # fmt: skip
def serial_duplicate(context: CrlContext) -> Verdict:
    """Two entries may contradict each other in date and reason."""
    if len({entry.serial for entry in context.crl.entries}) == len(context.crl.entries):
        return None
    seen: set[int] = set()

    def again(entry: EntryContent) -> str | None:
        if entry.serial in seen:
            return f"serial {entry.serial:x} appears again"
        seen.add(entry.serial)
        return None

    return _entries(context, again)


@_rule(
    "e_crl_serial_positive", "RFC 5280 4.1.2.2", "serial numbers are positive, of at most 20 octets",
    "list the serial number as it stands in the certificate", where="revokedCertificates",
)  # fmt: skip
def serial_positive(context: CrlContext) -> Verdict:
    """No conforming certificate has another one."""
    return _entries(
        context, lambda entry: None if entry.serial > 0 and entry.serial_octets <= 20 else "serial number out of range"
    )


@_rule(
    "e_crl_empty_list", "RFC 5280 5.1.2.6", "revokedCertificates is left out when nothing is revoked",
    "leave the empty SEQUENCE out", where="revokedCertificates",
)  # fmt: skip
def empty_list(context: CrlContext) -> Verdict:
    """The field must be absent then."""
    return "revokedCertificates is an empty list" if context.crl.has_empty_list else None


@_rule(
    "w_crl_revoked_after_this_update", "RFC 5280 5.1.2.6", "revocation dates are not after thisUpdate",
    "check the clock", where="revokedCertificates",
)  # fmt: skip
def revoked_after_this_update(context: CrlContext) -> Verdict:
    """A list cannot know the future."""
    limit = context.crl.this_update.value
    if limit is None:
        return None
    return _entries(
        context,
        lambda entry: (
            f"serial {entry.serial:x} revoked {entry.revoked_at.value}"
            if entry.revoked_at.value and entry.revoked_at.value > limit
            else None
        ),
    )


@_rule(
    "e_crl_unknown_critical_ext", "RFC 5280 5.2, 5.3", "no unknown critical extension", "leave it out or uncritical",
    where="crlExtensions",
)  # fmt: skip
def unknown_critical_ext(context: CrlContext) -> Verdict:
    """A relying party must not use such a list. IssuingDistributionPoint must be critical, others must not."""
    problems = [
        Problem(f"critical extension {oids.name_of(extension.oid)}")
        for extension in context.crl.extensions
        if extension.critical and extension.oid not in _KNOWN
    ]
    for oid in (oids.ISSUING_DISTRIBUTION_POINT, oids.DELTA_CRL_INDICATOR):
        extension = context.crl.extension(oid)
        if extension is not None and not extension.critical:
            problems.append(Problem(f"{oids.name_of(oid)} is not critical"))
    return problems + _entries(
        context,
        lambda entry: (
            f"critical entry extension {oids.name_of(entry.unknown_critical)}" if entry.unknown_critical else None
        ),
    )


@_rule(
    "e_crl_issuer_mismatch", "RFC 5280 6.3.3 (b)", "the issuer name is the CA's subject",
    "copy the bytes of the CA's subject", where="issuer", needs=Needs(issuer=True),
)  # fmt: skip
def issuer_mismatch(context: CrlContext) -> Verdict:
    """We issue no indirect CRLs."""
    if context.issuer is None or context.crl.issuer == context.issuer.subject:
        return None
    try:
        if names.same(context.crl.issuer, context.issuer.subject):
            return [Problem("the issuer name is encoded in another way than in the CA", severity=Severity.WARNING)]
    except InputError:
        pass
    return "the issuer name is not the subject of the given CA"


@_rule(
    "e_crl_aki_mismatch", "RFC 5280 5.2.1", "the AuthorityKeyIdentifier is the CA's SubjectKeyIdentifier",
    "copy the CA's SubjectKeyIdentifier", where="crlExtensions.authorityKeyIdentifier", needs=Needs(issuer=True),
)  # fmt: skip
def aki_mismatch(context: CrlContext) -> Verdict:
    """It says which key of the CA signs."""
    expected = context.issuer.known.subject_key_id if context.issuer else None
    found = context.crl.authority_key_id
    return None if not expected or not found or expected == found else f"{found.hex()}, the CA has {expected.hex()}"


@_rule(
    "e_crl_issuer_ku", "RFC 5280 4.2.1.3, 6.3.3 (f)", "the CA asserts cRLSign", "issue the CA certificate with cRLSign",
    where="issuer", needs=Needs(issuer=True),
)  # fmt: skip
def issuer_ku(context: CrlContext) -> Verdict:
    """Relying parties refuse the list otherwise."""
    issuer = context.issuer
    if issuer is None or issuer.known.key_usage is None or has_bits(issuer, KeyUsageBit.CRL_SIGN):
        return None
    return "the CA's keyUsage lacks cRLSign"
