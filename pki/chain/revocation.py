"""Find the status of each certificate of a path in the given lists and responses: good, revoked, unknown or stale."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from chargepki.pki import oids
from chargepki.pki.chain.certificate import PathCertificate, same_name
from chargepki.pki.chain.crls import ALL_REASONS, Listed, RevocationList, implied_point, not_current
from chargepki.pki.chain.evidence import CertificateStatus, Revocation, RevocationMode, Status
from chargepki.pki.chain.ocsp import (
    OcspAnswer,
    OcspResponse,
    is_about,
    is_responder,
    read_ocsp_response,
    why_no_delegate,
)
from chargepki.pki.chain.policy import PolicyInputs, WorkBudget
from chargepki.pki.chain.pool import Pool, SignatureChecker
from chargepki.pki.chain.processing import check_path
from chargepki.pki.chain.refusals import PathRefusal, RevocationRefusal, SearchRecord, place
from chargepki.pki.chain.search import Search
from chargepki.pki.der import DerError
from chargepki.pki.key_usage import KeyUsageBit

__all__ = ["StatusFinder"]

_CRL_SIGN: Final = KeyUsageBit.CRL_SIGN.bit
_HOLD: Final = 6
_MAX_NOTES: Final = 12
_REASONS: Final = (
    "unspecified",
    "keyCompromise",
    "cACompromise",
    "affiliationChanged",
    "superseded",
    "cessationOfOperation",
    "certificateHold",
    "",
    "removeFromCRL",
    "privilegeWithdrawn",
    "aACompromise",
)


@dataclass(slots=True)
class _Findings:
    """What was found about one certificate until now."""

    good: str = ""
    revoked: tuple[Listed, str] | None = None
    stale_revoked: tuple[Listed, str] | None = None
    stale: bool = False
    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        if len(self.notes) < _MAX_NOTES and text not in self.notes:
            self.notes.append(text)

    def status(self, label: str) -> CertificateStatus:
        listed = self.revoked
        if listed is None and self.stale_revoked is not None:
            # A hold may have been taken back since; every other revocation is for good.
            is_hold = self.stale_revoked[0].reason == _HOLD
            listed = None if is_hold and self.good else self.stale_revoked
        notes = tuple(self.notes)
        if listed is not None:
            entry, source = listed
            reason = _REASONS[entry.reason] if 0 <= entry.reason < len(_REASONS) else str(entry.reason)
            return CertificateStatus(label, Status.REVOKED, source, entry.revoked_at, reason, notes)
        if self.good:
            return CertificateStatus(label, Status.GOOD, self.good, notes=notes)
        return CertificateStatus(label, Status.STALE if self.stale else Status.UNKNOWN, notes=notes)


class StatusFinder:
    """Answers for one validation; verified lists and statuses are remembered within it."""

    def __init__(
        self, pool: Pool, checker: SignatureChecker, budget: WorkBudget, revocation: Revocation, at: datetime
    ) -> None:
        self._pool, self._checker, self._budget = pool, checker, budget
        self._revocation, self._at = revocation, at
        self._known: dict[tuple[bytes, bytes, bytes], CertificateStatus] = {}
        self._signatures: dict[tuple[int, bytes], bool] = {}
        self._in_progress: set[bytes] = set()
        unusable: list[str] = []
        self._lists = _read_all(revocation.crls, RevocationList, "a CRL", unusable)
        self._responses = _read_all(revocation.ocsp_responses, read_ocsp_response, "an OCSP response", unusable)
        # The newest answer is the one that counts.
        self._lists.sort(key=lambda each: str(each.content.this_update.value), reverse=True)
        self._deltas = [each for each in self._lists if each.is_delta]
        self._lists = [each for each in self._lists if not each.is_delta]
        self.unusable = tuple(unusable)

    def check(self, path: Sequence[PathCertificate]) -> tuple[CertificateStatus, ...]:
        """Return the statuses below the anchor, leaf first.

        Raises:
            RevocationRefusal: one of them does not satisfy the mode; the one closest to the anchor is named.
        """
        statuses: list[CertificateStatus] = []
        for position in range(len(path) - 2, -1, -1):
            status = self.status(path, position)
            if not self._satisfies(status.status):
                raise _refusal(path[position], position, status, self.unusable)
            statuses.append(status)
        return tuple(reversed(statuses))

    def _satisfies(self, status: Status) -> bool:
        return status is Status.GOOD or (
            status is Status.UNKNOWN and self._revocation.mode is RevocationMode.IF_PRESENT
        )

    def status(self, path: Sequence[PathCertificate], position: int) -> CertificateStatus:
        """Return the status of the certificate at *position*, whose issuer stands above it in *path*."""
        target = path[position]
        identity = target.der, path[position + 1].der, path[-1].der
        known = self._known.get(identity)
        if known is not None:
            return known
        self._in_progress.add(target.der)
        try:
            findings = _Findings()
            self._ask_responses(path, position, findings)
            if findings.revoked is None:
                self._ask_lists(path, position, findings)
        except DerError as error:
            findings.note(f"its distribution points cannot be decoded: {error.what}")
        finally:
            self._in_progress.discard(target.der)
        status = findings.status(target.label)
        # What is found while another question is open may lack what that one would have brought.
        if not self._in_progress or status.status in (Status.GOOD, Status.REVOKED):
            self._known[identity] = status
        return status

    # ------------------------------------------------------------ revocation lists

    def _ask_lists(self, path: Sequence[PathCertificate], position: int, findings: _Findings) -> None:
        target = path[position]
        covered: frozenset[int] = frozenset()
        sources: list[str] = []
        for point in (*target.distribution_points, implied_point(target)):
            for each in self._lists:
                scope = each.scope(target, point, allow_indirect=self._revocation.allow_indirect)
                if not scope.reasons:
                    if scope.why_not != "another issuer":
                        findings.note(f"{each.label} is not used: {scope.why_not}")
                    continue
                if scope.reasons <= covered:
                    continue
                signer = self._signer(each, path, position, findings, may_be_target=bool(point.crl_issuers))
                if signer is not None and self._apply(each, signer, target, findings):
                    covered |= scope.reasons
                    sources.append(each.label)
                if findings.revoked is not None:
                    return
            if covered >= ALL_REASONS:
                findings.good = ", ".join(sources)
                return

    def _apply(
        self, base: RevocationList, signer: PathCertificate, target: PathCertificate, findings: _Findings
    ) -> bool:
        """Look *target* up in a verified list and its newest delta; return whether their silence means good."""
        revocation = self._revocation
        delta = next((each for each in self._deltas if self._is_usable_delta(each, base, signer)), None)
        listed = base.find(target)
        update = delta.find(target) if delta is not None else None
        if update is not None:
            listed = None if update.is_removal else update
        newest = delta or base
        late = newest.why_not_current(self._at, revocation.max_age, revocation.skew)
        if listed is not None:
            if late:
                findings.stale_revoked = listed, newest.label
                findings.stale = True
            else:
                findings.revoked = listed, newest.label
            return False
        if late:
            findings.stale = True
            findings.note(f"{newest.label} is not current: {late}")
            return False
        unknown = base.unknown_critical or (delta.unknown_critical if delta else "")
        if unknown:
            findings.note(f"{base.label} has critical extension {unknown}, which is not understood (RFC 5280 5.2)")
        return not unknown

    def _is_usable_delta(self, delta: RevocationList, base: RevocationList, signer: PathCertificate) -> bool:
        revocation = self._revocation
        return (
            delta.is_delta_of(base)
            and not delta.why_not_current(self._at, revocation.max_age, revocation.skew)
            and self._verifies(delta, signer)
        )

    def _signer(
        self,
        found: RevocationList,
        path: Sequence[PathCertificate],
        position: int,
        findings: _Findings,
        *,
        may_be_target: bool,
    ) -> PathCertificate | None:
        """Return the certificate whose key made the list and that may do so (6.3.3 (f), (g)).

        Args:
            may_be_target: a CRL issuer may answer for itself, because its CA named it for that (PKITS 4.14.30).
        """
        above = path[position + 1 :]
        why = "no certificate of its issuer verifies its signature"
        for candidate in self._named(found.content.issuer, above):
            if not self._verifies(found, candidate):
                continue
            if not candidate.may(_CRL_SIGN):
                why = "KeyUsage of its issuer lacks cRLSign (RFC 5280 4.2.1.3)"
                continue
            if any(candidate.der == each.der for each in above):
                return candidate
            if may_be_target and candidate.der == path[position].der:
                return candidate
            trouble = self._why_not_trusted(candidate, path)
            if not trouble:
                return candidate
            why = f"its signer {candidate.label} is not trusted: {trouble}"
        findings.note(f"{found.label} is not used: {why}")
        return None

    def _named(self, name: bytes, above: Sequence[PathCertificate]) -> Iterator[PathCertificate]:
        seen: set[bytes] = set()
        spelt = [name, *self._pool.spellings(name)]
        pool = [each for spelling in spelt for each in self._pool.named(spelling)]
        for candidate in (*(each for each in above if same_name(each.subject, name)), *pool):
            if candidate.der not in seen:
                seen.add(candidate.der)
                yield candidate

    def _verifies(self, found: RevocationList, candidate: PathCertificate) -> bool:
        pair = id(found), candidate.spki
        if pair not in self._signatures:
            content = found.content
            self._signatures[pair] = self._checker.verifies(
                candidate.load_key(), content.signature or b"", content.tbs, content.signature_algorithm
            )
        return self._signatures[pair]

    def _why_not_trusted(self, signer: PathCertificate, path: Sequence[PathCertificate]) -> str:
        """Validate the signer's own path, which must end at the anchor of the target's (RFC 5280 6.3.3 (f))."""
        if signer.der in self._in_progress:
            return "its own status is still open"
        why = "it does not chain to the same anchor"
        search = Search(self._pool, self._checker, self._budget, SearchRecord())
        for candidate in search.paths(signer):
            if candidate[-1].der != path[-1].der:
                continue
            try:
                check_path(candidate, self._at, PolicyInputs())
                self.check(candidate)
            except PathRefusal as refusal:
                if refusal.rule == "work-budget":
                    raise
                why = refusal.what
                continue
            return ""
        return why

    # ------------------------------------------------------------ OCSP responses

    def _ask_responses(self, path: Sequence[PathCertificate], position: int, findings: _Findings) -> None:
        target, issuer = path[position], path[position + 1]
        for response in self._responses:
            for answer in response.answers:
                if not is_about(answer, target, issuer):
                    continue
                trouble = self._why_not_usable(response, answer) or self._why_no_authority(response, path, position)
                if trouble:
                    findings.note(f"an OCSP response is not used: {trouble}")
                else:
                    self._take(answer, findings)

    def _why_not_usable(self, response: OcspResponse, answer: OcspAnswer) -> str:
        unknown = response.unknown_critical or answer.unknown_critical
        if unknown:
            return f"critical extension {unknown} is not understood (RFC 6960 4.4)"
        if self._revocation.nonce is not None and response.nonce != self._revocation.nonce:
            return "its nonce is not the one of the request (RFC 6960 4.4.1)"
        return ""

    def _take(self, answer: OcspAnswer, findings: _Findings) -> None:
        revocation = self._revocation
        source = f"OCSP response of {answer.this_update:%Y-%m-%d %H:%M:%S}Z"
        late = not_current(answer.this_update, answer.next_update, self._at, revocation.max_age, revocation.skew)
        listed = Listed(answer.revoked_at, answer.reason)
        if late:
            findings.stale = True
            findings.note(f"an OCSP response is not current: {late}")
            if answer.status == "revoked":
                findings.stale_revoked = listed, source
        elif answer.status == "revoked":
            findings.revoked = listed, source
        elif answer.status == "good":
            findings.good = source
        else:
            findings.note("the OCSP responder does not know the certificate")

    def _why_no_authority(self, response: OcspResponse, path: Sequence[PathCertificate], position: int) -> str:
        """Return why nobody entitled signed the response, or the empty string (RFC 6960 4.2.2.2)."""
        issuer = path[position + 1]
        if is_responder(response, issuer) and self._signed(response, issuer):
            return ""
        why = "it is signed neither by the certificate's issuer nor by a responder that the issuer delegated"
        for candidate in self._delegates(response):
            if (
                not is_responder(response, candidate)
                or not same_name(candidate.issuer, issuer.subject)
                or not self._checker.issued(issuer, candidate)
                or not self._signed(response, candidate)
            ):
                continue
            why = why_no_delegate(candidate, self._at) or self._why_delegate_revoked(candidate, path, position)
            if not why:
                return ""
        return why

    def _delegates(self, response: OcspResponse) -> Iterator[PathCertificate]:
        for der in response.certificates:
            try:
                yield PathCertificate(der)
            except DerError:
                continue  # a broken companion is of no use, and does no harm
        yield from self._pool.certificates

    def _signed(self, response: OcspResponse, candidate: PathCertificate) -> bool:
        pair = id(response), candidate.spki
        if pair not in self._signatures:
            self._signatures[pair] = self._checker.verifies(
                candidate.load_key(), response.signature, response.tbs, response.algorithm
            )
        return self._signatures[pair]

    def _why_delegate_revoked(self, delegate: PathCertificate, path: Sequence[PathCertificate], position: int) -> str:
        if delegate.extension(oids.OCSP_NO_CHECK) is not None:
            return ""
        if delegate.der in self._in_progress:
            return "the status of its signer is still open"
        status = self.status((delegate, *path[position + 1 :]), 0).status
        return "" if self._satisfies(status) else f"its signer has no ocspNoCheck, and its own status is {status}"


def _read_all(data: Sequence[bytes], read: Any, what: str, unusable: list[str]) -> list[Any]:
    found = []
    for each in dict.fromkeys(data):
        try:
            found.append(read(each))
        except DerError as error:
            unusable.append(f"{what} cannot be used: {error.what}")
    return found


_CURES: Final = {
    Status.REVOKED: "do not use it; ask its holder for the certificate that replaced it",
    Status.UNKNOWN: "give the CRL of its issuer, or an OCSP response for it",
    Status.STALE: "fetch the current CRL or OCSP response of its issuer, and check the clock",
}


def _refusal(
    certificate: PathCertificate, position: int, status: CertificateStatus, unusable: Sequence[str]
) -> RevocationRefusal:
    where = f"{certificate.label} ({place(certificate, position)})"
    hints = "; ".join((*status.notes, *unusable))
    if status.status is Status.REVOKED:
        what = f"revoked: {where}"
        when = f" since {status.revoked_at:%Y-%m-%d %H:%M:%S}Z" if status.revoked_at else ""
        why = f"{status.source} lists it{when} for the reason {status.reason}"
    elif status.status is Status.STALE:
        what, why = f"revocation status is stale: {where}", hints
    else:
        what = f"revocation status is unknown: {where}"
        why = hints or "no given CRL or OCSP response is about it"
    return RevocationRefusal(
        what,
        status=status.status,
        clause="RFC 5280 6.1.3 (a) (3), 6.3; RFC 6960 4.2.2",
        why=why,
        fix=_CURES[status.status],
        certificate=certificate.label,
        position=position,
    )
