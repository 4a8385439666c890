"""Judge certificates of the inventory, one range of ids at a time: linter, path, and whether row and bytes agree."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, NamedTuple

from chargepki.pki import oids
from chargepki.pki.certificate_view import CertificateView, view_certificate
from chargepki.pki.chain import ChainVerifier, PathRefusal, WorkBudget
from chargepki.pki.checking.tally import Tally
from chargepki.pki.der import DerError
from chargepki.pki.findings import Finding, Severity
from chargepki.pki.inventory.codec import decode_time
from chargepki.pki.inventory.filter_fields import FIELDS
from chargepki.pki.inventory.filters import And, Compare, Filter
from chargepki.pki.inventory.reads import Reads
from chargepki.pki.inventory.records import FOREIGN
from chargepki.pki.keys import spki_sha256
from chargepki.pki.lint.catalogue import all_rules
from chargepki.pki.lint.guess import guess_profile
from chargepki.pki.lint.run import judge_view, unreadable
from chargepki.pki.lint.settings import LintSettings
from chargepki.pki.profiles import get_profile
from chargepki.pki.profiles.base import Profile
from chargepki.pki.questions.authorities import AuthorityCertificate, Signers, has_signed, list_authorities

__all__ = ["RangeJudge", "RangeResult"]

_COLUMNS: Final = (
    *("id", "ca", "serial", "profile", "state", "subject_der", "spki_sha256", "not_after", "sha256", "der"),
)
_BLOCK: Final = 100
"""Certificates that are judged together; what was read of them is held in memory meanwhile."""
# What a certificate of a CA above may say that binds everything below: then every path is walked to its root.
_BINDING: Final = (
    oids.NAME_CONSTRAINTS,
    oids.POLICY_CONSTRAINTS,
    oids.INHIBIT_ANY_POLICY,
    oids.POLICY_MAPPINGS,
)


@dataclass(frozen=True, slots=True)
class RangeResult:
    """What came of one range."""

    judged: int
    """Certificates that were linted."""
    paths: int
    """Paths that were validated: of what is valid at the instant of the check."""
    findings: list[dict[str, Any]]
    """As `Tally.to_json`."""


@dataclass(frozen=True, slots=True)
class _Issuer:
    """Who signed the certificates of one CA of the inventory."""

    view: CertificateView | None
    """``None``: the inventory has no certificate whose key did it."""
    verifier: ChainVerifier | None
    refusal: PathRefusal | None
    """Why the issuer itself has no valid path."""
    is_revoked: bool = False


class _Subject(NamedTuple):
    """A certificate that is being judged."""

    name: str
    row: Sequence[Any]
    view: CertificateView
    profile: Profile | None
    issuer: _Issuer
    is_live: bool


class RangeJudge:
    """Judges certificates against the CAs that the inventory has; made once for each process.

    A path is valid when it leads to any self-signed root of the inventory. The path from an issuer to its root is
    validated once for all that it issued, unless something on it (name or policy constraints, or a path length that is
    exceeded) binds each of them.
    """

    def __init__(self, reads: Reads, settings: LintSettings, now: datetime, wanted: Filter, examples: int) -> None:
        """Read the certificates of CAs.

        Args:
            now: instant at which validity is judged.
            examples: how many of each finding are named.
        """
        self._reads, self._settings, self._now, self._wanted, self._most = reads, settings, now, wanted, examples
        self._authorities = list_authorities(reads, revoked=True)
        self._budget = WorkBudget(certificates=len(self._authorities) + 1)
        good = [each for each in self._authorities if not each.is_revoked]
        anchors, bag = [each.der for each in good if each.is_root], [each.der for each in good]
        self._whole = ChainVerifier(anchors, bag, budget=self._budget)
        self._signers = Signers(self._authorities)
        self._own = {each.ca: each for each in self._authorities if each.ca is not None}
        self._issuers: dict[str, _Issuer] = {}
        self._unverified = frozenset(rule.id for rule in all_rules() if rule.unverified)

    def judge(self, after: str | None, last: str) -> RangeResult:
        """Judge the certificates behind the id *after*, up to and with *last*."""
        tally = Tally(self._most)
        judged = paths = 0
        wanted = And((Compare(FIELDS["id"], "<=", last), self._wanted))
        for page in self._reads.scan_certificates(wanted, _COLUMNS, after=after):
            rows = [row for row in page if row[-1] is not None]
            for first in range(0, len(rows), _BLOCK):
                paths += self._judge(rows[first : first + _BLOCK], tally)
            judged += len(rows)
        return RangeResult(judged, paths, tally.to_json())

    def _judge(self, rows: Sequence[Sequence[Any]], tally: Tally) -> int:
        """Judge some certificates, one question after the other; return how many paths were validated.

        Reading, the rules and the arithmetic of signatures drive each other out of the processor's caches: in turn for
        each certificate, they take a third longer.
        """
        subjects = [subject for row in rows if (subject := self._read(row, tally)) is not None]
        for subject in subjects:
            fault = _disagreement(subject.row, subject.view)
            if fault:
                tally.add(subject.name, _mismatch(fault))
        for subject in subjects:
            self._lint(subject, tally)
        return sum([self._path(subject, tally) for subject in subjects])

    def _read(self, row: Sequence[Any], tally: Tally) -> _Subject | None:
        name, ca, _, profile_id, state, *_, der = row
        profile = None if profile_id == FOREIGN else get_profile(profile_id)
        try:
            view = view_certificate(bytes(der))
        except DerError as error:
            self._keep(name, unreadable(error, "certificate", profile).findings, tally)
            return None
        if profile is None:
            profile = guess_profile(view)[0]
        is_live = state == "issued" and decode_time(row[7]) >= self._now
        return _Subject(name, row, view, profile, self._issuer_of(ca, view), is_live)

    def _lint(self, subject: _Subject, tally: Tally) -> None:
        report = judge_view(
            subject.view,
            "certificate",
            subject.profile,
            # What has ended is judged as it was made: that it has expired is no fault of it.
            now=self._now if subject.is_live else None,
            issuer=subject.issuer.view,
            data=self._settings.data,
        )
        self._keep(subject.name, report.findings, tally)

    def _keep(self, name: str, findings: Sequence[Finding], tally: Tally) -> None:
        """Count findings with the severities of the operator's settings (as `LintSettings.apply`, but per finding)."""
        wanted = self._settings.severity
        for finding in findings:
            if finding.rule in wanted:
                severity = wanted[finding.rule]
                if severity is not None:
                    tally.add(name, replace(finding, severity=severity))
            elif self._settings.unverified or finding.rule not in self._unverified:
                tally.add(name, finding)

    def _path(self, subject: _Subject, tally: Tally) -> bool:
        """Judge who signed a certificate; say whether its path was validated."""
        name, issuer = subject.name, subject.issuer
        if issuer.view is None:
            tally.add(name, _NO_ISSUER)
            return False
        if not subject.is_live:
            if not has_signed(issuer.view, subject.view):
                tally.add(name, _BAD_SIGNATURE)
            return False
        if issuer.is_revoked:
            tally.add(name, _REVOKED_ISSUER)
            return True
        if issuer.refusal is not None:
            tally.add(name, _refused(issuer.refusal, "its issuer: "))
            return True
        verifier = issuer.verifier or self._whole
        try:
            verifier.verify(bytes(subject.row[-1]), at=self._now)
        except PathRefusal as refusal:
            tally.add(name, _refused(refusal))
        return True

    def _issuer_of(self, ca: str, view: CertificateView) -> _Issuer:
        found = self._issuers.get(ca)
        if found is None:
            found = self._find_issuer(ca, view)
            # What one certificate with a broken signature did not show, the next may.
            if found.view is not None:
                self._issuers[ca] = found
        return found

    def _find_issuer(self, ca: str, view: CertificateView) -> _Issuer:
        """Return the issuer of a CA's certificates: of ours by record, of imported ones by the key that signed one."""
        own = self._own.get(ca)
        # One of ours is the issuer whatever a signature says: path validation judges each.
        candidates = (own,) if own is not None else self._signers.of(view)
        first: PathRefusal | None = None
        for candidate in candidates:
            if candidate.is_revoked:
                continue
            try:
                return self._with_path(candidate)
            except PathRefusal as refusal:
                first = first or refusal
        if not candidates:
            return _Issuer(None, None, None)
        return _Issuer(candidates[0].view, None, first, is_revoked=first is None)

    def _with_path(self, candidate: AuthorityCertificate) -> _Issuer:
        """Validate an issuer's own path.

        Raises:
            PathRefusal: it has none.
        """
        chain = self._whole.verify(candidate.der, at=self._now)
        views = [view_certificate(each) for each in chain.certificates]
        is_bound = any(view.extension(oid) is not None for view in views for oid in _BINDING) or any(
            # So many CAs stand between this one and what the candidate issues: more than it allows.
            (bounds := view.known.basic_constraints) is not None
            and bounds.path_length is not None
            and bounds.path_length < below
            for below, view in enumerate(views)
        )
        verifier = None if is_bound else ChainVerifier([candidate.der], budget=self._budget)
        return _Issuer(candidate.view, verifier, None)


def _disagreement(row: Sequence[Any], view: CertificateView) -> str:
    """Return which column says another thing than the certificate, or nothing."""
    _, _, serial, _, _, subject, spki, not_after, sha256, der = row
    end = view.not_after.value
    told = {
        "serial": f"{view.serial:x}" == serial,
        "subject": view.subject == bytes(subject),
        "key": spki_sha256(view.key.der) == spki,
        "not_after": end is None or end == decode_time(not_after),
        "sha256": hashlib.sha256(bytes(der)).hexdigest() == sha256,
    }
    return ", ".join(name for name, agrees in told.items() if not agrees)


def _mismatch(columns: str) -> Finding:
    return Finding(
        rule="e_row_mismatch",
        severity=Severity.ERROR,
        message=f"the inventory says another {columns} than the certificate",
        clause="the row is made from the certificate",
        hint="look for who changed it: chargepki audit verify; then restore the backup",
        where=columns,
    )


_NO_ISSUER: Final = Finding(
    rule="w_issuer_unknown",
    severity=Severity.WARNING,
    message="no CA certificate of the inventory has the key that signed it",
    clause="RFC 5280 6.1",
    hint="import the certificate of its issuer, or find out who runs that CA",
)
_REVOKED_ISSUER: Final = Finding(
    rule="e_path_issuer_revoked",
    severity=Severity.ERROR,
    message="the certificate of its issuer is revoked",
    clause="RFC 5280 6.1.3 (a)(3)",
    hint="replace it under a CA that is not revoked, and revoke it",
)
_BAD_SIGNATURE: Final = Finding(
    rule="e_signature",
    severity=Severity.ERROR,
    message="it was not signed with its issuer's key",
    clause="RFC 5280 4.1.1.3",
    hint="look for who changed it: chargepki audit verify",
)


def _refused(refusal: PathRefusal, prefix: str = "") -> Finding:
    return Finding(
        rule=f"e_path_{refusal.rule.replace('-', '_')}",
        severity=Severity.ERROR,
        message=f"{prefix}{refusal.what}",
        clause=refusal.clause or "RFC 5280 6.1",
        hint=refusal.fix or "reissue it, or the certificate that is at fault",
    )
