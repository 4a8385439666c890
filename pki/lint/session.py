"""Judge files and folders: find the objects in them, judge each, against its issuer, and judge them together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from chargepki.pki.certificate_view import view_certificate, view_tbs
from chargepki.pki.crl_view import CrlContent, read_crl
from chargepki.pki.der import DerError
from chargepki.pki.lint.collection import Authorities, Issuers, Kind, Member
from chargepki.pki.lint.csr_view import view_csr
from chargepki.pki.lint.engine import LintReport
from chargepki.pki.lint.guess import guess_profile, guess_request_profile
from chargepki.pki.lint.objects import (
    judge_carrier,
    judge_csr_view,
    lint_collection,
    lint_file,
    lint_hash_data,
    lint_ocsp_response,
    lint_pkcs7,
    lint_pkcs12,
    lint_private_key,
)
from chargepki.pki.lint.ocsp_view import OcspView, view_ocsp_response
from chargepki.pki.lint.pkcs12_view import Pkcs12View
from chargepki.pki.lint.reading import LintInput, as_text
from chargepki.pki.lint.run import judge_view, lint_crl, unreadable
from chargepki.pki.lint.settings import LintSettings
from chargepki.pki.lint.sniff import ObjectKind
from chargepki.pki.pem import PemBlock
from chargepki.pki.profiles.base import Profile

__all__ = ["LintSession", "ObjectReport"]

_CERTIFICATES: Final = (ObjectKind.CERTIFICATE, ObjectKind.TBS)


@dataclass(frozen=True, slots=True)
class ObjectReport:
    """The report about one object, or about several together, and what they are called."""

    name: str
    file: str
    report: LintReport
    profile_reason: str = ""
    """Why a certificate was held against its profile: ``given``, or what the guess rests on."""
    der: bytes = field(default=b"", repr=False)
    note: str = ""
    """What else a reader should know, as that a private key itself was not judged."""

    def to_json(self) -> dict[str, object]:
        """Return the report as JSON-able values."""
        return {
            "object": as_text(self.name),
            "file": as_text(self.file),
            "profile_reason": self.profile_reason or None,
            "note": self.note or None,
            **self.report.to_json(),
        }


@dataclass(slots=True)
class LintSession:
    """One run of the linter over any number of files.

    Args:
        profile: given for every leaf (and for a certificate that comes alone); otherwise each is guessed.
        issuers: certificates (DER) that are not judged, but against which others are.
        kind: what the certificates of one file are; otherwise told from their order and kind.
    """

    profile: Profile | None = None
    now: datetime | None = None
    issuers: Sequence[bytes] = ()
    settings: LintSettings = field(default_factory=LintSettings)
    kind: Kind | None = None

    def judge(self, inputs: Sequence[LintInput], blocks: Mapping[str, Sequence[PemBlock]]) -> list[ObjectReport]:
        """Judge every object, then the certificates of each file together, then those of all files.

        Args:
            blocks: the PEM blocks of each file that has any.
        """
        members, unread = self._read(inputs)
        candidates = [*members.values(), *self._given_issuers()]
        finder, authorities = Issuers(candidates), Authorities(candidates)
        reports: list[ObjectReport] = []
        for position, each in enumerate(inputs):
            member = members.get(position)
            if member is not None:
                reports.append(self._certificate(each, member, finder))
            elif position in unread:
                reports.append(ObjectReport(each.name, each.file, unread[position], der=each.der))
            else:
                reports.append(self._other(each, authorities))
        reports += self._together(inputs, members, blocks)
        return [self._finish(report) for report in reports]

    def _finish(self, found: ObjectReport) -> ObjectReport:
        report = self.settings.apply(found.report)
        return replace(found, report=report)

    def _read(self, inputs: Sequence[LintInput]) -> tuple[dict[int, Member], dict[int, LintReport]]:
        """Read the certificates; what cannot be followed is judged already."""
        members: dict[int, Member] = {}
        unread: dict[int, LintReport] = {}
        alone = sum(each.kind in _CERTIFICATES for each in inputs) == 1
        for position, each in enumerate(inputs):
            if each.kind not in _CERTIFICATES:
                continue
            try:
                view = (view_tbs if each.kind is ObjectKind.TBS else view_certificate)(each.der)
            except DerError as error:
                unread[position] = unreadable(error, str(each.kind), self.profile)
                continue
            given = self.profile is not None and (alone or view.is_ca == self.profile.is_ca)
            members[position] = Member(each.name, view, self.profile if given else guess_profile(view)[0])
        return members, unread

    def _given_issuers(self) -> list[Member]:
        return [Member("--issuer", view_certificate(der)) for der in self.issuers]

    def _certificate(self, each: LintInput, member: Member, finder: Issuers) -> ObjectReport:
        view = member.view
        issuer = finder.of(member)
        issuer_view = issuer.view if issuer else view if view.is_self_issued and view.is_ca else None
        if issuer_view is None and len(self.issuers) == 1:
            issuer_view = view_certificate(self.issuers[0])  # the operator says so, even if the names disagree
        kind = "tbs-certificate" if each.kind is ObjectKind.TBS else "certificate"
        report = judge_view(view, kind, member.profile, now=self.now, issuer=issuer_view, data=self.settings.data)
        reason = "given" if member.profile is self.profile and self.profile else guess_profile(view)[1]
        return ObjectReport(each.name, each.file, report, reason, each.der)

    def _other(self, each: LintInput, cas: Authorities) -> ObjectReport:
        if each.kind is ObjectKind.CRL:
            report = lint_crl(each.der, issuer_der=self._crl_issuer(each.der, cas), now=self.now)
        elif each.kind is ObjectKind.CSR:
            return self._request(each)
        elif each.kind is ObjectKind.OCSP_RESPONSE:
            issuer = self._ocsp_issuer(each.der, cas)
            guessed = None if issuer is None else issuer.profile
            profile = self.profile or guessed
            report = lint_ocsp_response(
                each.der,
                issuer_der=None if issuer is None else issuer.view.der,
                standard=None if profile is None else profile.standard,
                now=self.now,
            )
        elif each.kind is None:
            report = lint_hash_data(each.value)
        else:
            return self._kept(each)
        given = "given" if report.profile_id and self.profile else ""
        return ObjectReport(each.name, each.file, report, given, each.der)

    @staticmethod
    def _kept(each: LintInput) -> ObjectReport:
        """Judge a bundle or the keeping of a private key; what a bundle carries is judged as the inputs after it."""
        if each.kind is ObjectKind.PRIVATE_KEY:
            report = lint_private_key(each.der, mode=each.mode, old_encryption=each.old_encryption)
            return ObjectReport(each.name, each.file, report, note="a private key, not judged: only how it is kept")
        if each.carrier is None:
            report = lint_pkcs7(each.der) if each.kind is ObjectKind.PKCS7 else lint_pkcs12(each.der)
            return ObjectReport(each.name, each.file, report)
        carrier = each.carrier
        counts = [f"{len(carrier.certificates)} certificates", f"{len(carrier.crls)} CRLs"]
        if isinstance(carrier, Pkcs12View):
            counts.append(f"{len(carrier.keys)} private keys, not judged")
            counts += [carrier.closed] if carrier.closed else []
        return ObjectReport(each.name, each.file, judge_carrier(carrier), note=", ".join(counts))

    def _request(self, each: LintInput) -> ObjectReport:
        try:
            view = view_csr(each.der)
        except DerError as error:
            return ObjectReport(each.name, each.file, unreadable(error, "csr", self.profile), der=each.der)
        profile, reason = (self.profile, "given") if self.profile is not None else guess_request_profile(view)
        report = judge_csr_view(view, profile, self.settings.data)
        return ObjectReport(each.name, each.file, report, reason, each.der)

    def _crl_issuer(self, der: bytes, cas: Authorities) -> bytes | None:
        try:
            crl: CrlContent = read_crl(der)
        except DerError:
            return None
        best = cas.of_list(crl.issuer, crl.authority_key_id)
        return best.view.der if best else self.issuers[0] if len(self.issuers) == 1 else None

    def _ocsp_issuer(self, der: bytes, cas: Authorities) -> Member | None:
        """Return the CA whose key hash the first answer names."""
        try:
            response: OcspView = view_ocsp_response(der)
        except DerError:
            return None
        return cas.with_key_hash(response.singles[0].key_hash) if response.singles else None

    def _together(
        self, inputs: Sequence[LintInput], members: Mapping[int, Member], blocks: Mapping[str, Sequence[PemBlock]]
    ) -> Iterable[ObjectReport]:
        for file, found in blocks.items():
            if len(found) > 1:
                yield ObjectReport(file, file, lint_file(found))
        files: dict[str, list[Member]] = {}
        loose: set[str] = set()  # files with a certificate that no bundle carries
        for position, member in members.items():
            each = inputs[position]
            if each.kind is ObjectKind.CERTIFICATE:
                files.setdefault(each.file, []).append(member)
            if not each.carried:
                loose.add(each.file)
        for file, listed in files.items():
            if len(listed) > 1 or self.kind is not None:
                kind = self.kind or _kind(listed, carried=file not in loose)
                yield ObjectReport(file, file, lint_collection(listed, kind=kind, now=self.now))
        everyone = [member for listed in files.values() for member in listed]
        if len(files) > 1:
            # Copies of one certificate in several files (a CA in every bundle) are one certificate.
            distinct = list({member.view.tbs: member for member in reversed(everyone)}.values())[::-1]
            yield ObjectReport("all files", "", lint_collection(distinct, kind=Kind.SET, now=self.now))


def _kind(members: Sequence[Member], *, carried: bool = False) -> Kind:
    """A leaf makes a bundle, two make a set; roots alone are a store. The order in a *carried* bundle says nothing."""
    bundle = Kind.CONTAINER if carried else Kind.BUNDLE
    leaves = sum(not member.view.is_ca for member in members)
    if leaves == 1:
        return bundle
    if leaves == 0 and all(member.is_self_issued for member in members):
        return Kind.STORE
    return Kind.SET if leaves else bundle
