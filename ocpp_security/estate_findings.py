"""What the questions about everything find, as findings with clause and cure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

from chargepki.ocpp_security.drift import find_drift
from chargepki.ocpp_security.trust_reconcile import RootFinding
from chargepki.pki.findings import Finding, Severity
from chargepki.pki.inventory.filters import Filter
from chargepki.pki.inventory.reads import Reads
from chargepki.pki.questions import (
    CliffRule,
    KeyReuse,
    KeyReuseKind,
    Provenance,
    Publication,
    RevocationEffect,
    expiry_timeline,
    find_key_reuse,
    find_orphans,
    list_authorities,
    revocation_effects,
)

__all__ = ["estate_findings"]

_GRACE: Final = timedelta(hours=1)
"""How long a revocation may wait for its list before that is an error."""
_CA_NOTICE: Final = timedelta(days=180)
"""How long before its end a CA's certificate is told of: its successor has to reach every station before."""
_MOST_KEYS: Final = 1_000_000


def estate_findings(reads: Reads, now: datetime, *, wanted: Filter, rule: CliffRule) -> Iterator[tuple[str, Finding]]:
    """Yield what is found about everything together: the name of what it is about, and the finding.

    Args:
        wanted: only certificates that this filter asks for; CAs, revocations and stations are always looked at.
        rule: what counts as a cliff.
    """
    yield from _expiring_cas(reads, now)
    yield from _cliffs(reads, now, wanted, rule)
    for reuse in find_key_reuse(reads, now, wanted=wanted, limit=_MOST_KEYS):
        yield reuse.examples[0] if reuse.examples else reuse.key_sha256, _shared_key(reuse)
    for orphan in find_orphans(reads):
        if orphan.provenance is Provenance.IMPORTED:
            continue  # each of them is told by itself
        yield (
            orphan.certificate,
            Finding(
                rule="w_orphan",
                severity=Severity.WARNING,
                message=f"its issuer {orphan.issuer} is not in the inventory",
                clause="RFC 5280 6.1",
                hint="import the certificate of its issuer: chargepki inventory import FILE",
            ),
        )
    for effect in revocation_effects(reads, now):
        finding = _unpublished(effect, now)
        if finding is not None:
            yield effect.certificate, finding
    yield from _drift(reads)


def _expiring_cas(reads: Reads, now: datetime) -> Iterator[tuple[str, Finding]]:
    for each in list_authorities(reads):
        end = each.not_after
        if each.ca is None or end is None or end > now + _CA_NOTICE:
            continue
        is_over = end < now
        yield (
            each.label,
            Finding(
                rule="e_ca_expired" if is_over else "w_ca_expires",
                severity=Severity.ERROR if is_over else Severity.WARNING,
                message=f"its certificate {'ended' if is_over else 'ends'} on {end:%Y-%m-%d}",
                clause="RFC 5280 4.1.2.5; ISO 15118-20 [V2G20-1004]",
                hint=f"see who depends on it: chargepki inventory impact {each.label} --at {end:%Y-%m-%d}",
            ),
        )


def _cliffs(reads: Reads, now: datetime, wanted: Filter, rule: CliffRule) -> Iterator[tuple[str, Finding]]:
    for cliff in expiry_timeline(reads, now, wanted=wanted, rule=rule).cliffs:
        yield (
            cliff.profile,
            Finding(
                rule="w_expiry_cliff",
                severity=Severity.WARNING,
                message=f"{cliff.certificates} certificates, {cliff.share:.0%} of what is valid, "
                f"expire from {cliff.begin} to {cliff.end}",
                clause=f"cliff: {rule.share:.0%} of a profile, {rule.minimum} at least, within {rule.window} days",
                hint="renew them in waves before: chargepki campaign create NAME --kind trigger-renewal --all",
            ),
        )


_KEY_TEXTS: Final = {
    KeyReuseKind.ACROSS_STATIONS: (
        *("w_key_across_stations", Severity.WARNING, "OCPP 2.0.1 A00.FR.801 (unique credentials)"),
        "let each station make its own key: chargepki station trigger-renewal",
    ),
    KeyReuseKind.CA_KEY: (
        *("w_ca_key_shared", Severity.WARNING, "RFC 5280 4.2.1.9 (whether a key may verify certificates)"),
        "find out who else holds the key of the CA; replace the CA if anybody does",
    ),
    KeyReuseKind.ACROSS_SUBJECTS: (
        *("w_key_across_subjects", Severity.WARNING, "RFC 5280 4.1.2.6 (a subject is who holds the key)"),
        "replace all of them but one with certificates for new keys",
    ),
    KeyReuseKind.REQUESTED: (
        *("n_key_requested_again", Severity.NOTICE, "OCPP 2.0.1 A02.FR.02 (a new key pair with each renewal)"),
        "ask for a new key before the request is approved, if a renewal should have one",
    ),
    KeyReuseKind.RENEWED: (
        *("n_key_kept", Severity.NOTICE, "OCPP 2.0.1 A02.FR.02 (a new key pair with each renewal)"),
        "let the station make a new key when it renews",
    ),
}


def _shared_key(reuse: KeyReuse) -> Finding:
    rule, severity, clause, hint = _KEY_TEXTS[reuse.kind]
    more = f" of {reuse.stations} stations" if reuse.stations > 1 else ""
    message = f"{reuse.certificates} certificates{more} have the key {reuse.key_sha256[:16]}"
    return Finding(rule=rule, severity=severity, message=message, clause=clause, hint=hint)


def _unpublished(effect: RevocationEffect, now: datetime) -> Finding | None:
    if effect.publication is Publication.STALE_ANSWER:
        return Finding(
            rule="e_stale_ocsp_answer",
            severity=Severity.ERROR,
            message="a prepared OCSP response still says that it is good",
            clause="RFC 6960 2.2",
            hint="let the responder prepare it anew: chargepki ocsp presign",
        )
    if effect.publication is not Publication.UNPUBLISHED:
        return None
    is_late = effect.revoked_at < now - _GRACE
    return Finding(
        rule="e_unpublished_revocation" if is_late else "n_unpublished_revocation",
        severity=Severity.ERROR if is_late else Severity.NOTICE,
        message=f"it was revoked on {effect.revoked_at:%Y-%m-%d}, and no list that was published since tells it",
        clause="RFC 5280 3.3",
        hint=f"chargepki crl publish --ca {effect.ca}",
    )


_DRIFT: Final = {
    RootFinding.MISSING: (Severity.WARNING, "the station does not list a root that we installed", "install it again"),
    RootFinding.RETURNED: (Severity.WARNING, "the station lists a root that we deleted", "delete it again"),
    RootFinding.UNMANAGED: (Severity.NOTICE, "the station has a root that we did not install", "delete it if unwanted"),
    RootFinding.UNEXPLAINED: (Severity.WARNING, "the station lists a root that nobody knows", "find out what it is"),
}


def _drift(reads: Reads) -> Iterator[tuple[str, Finding]]:
    for each in find_drift(reads):
        severity, message, cure = _DRIFT[each.status.finding]
        letter = {Severity.WARNING: "w", Severity.NOTICE: "n"}[severity]
        label = f" ({each.status.label})" if each.status.label else ""
        yield (
            each.station,
            Finding(
                rule=f"{letter}_root_{each.status.finding}",
                severity=severity,
                message=f"{message}: {each.status.use}{label}",
                clause="OCPP 2.0.1 M03, M04, M05",
                hint=f"{cure}; see chargepki station roots {each.station} --explain",
            ),
        )
