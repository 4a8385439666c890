"""Judge files and folders: find the objects in them, judge each, against its issuer, and judge them together."""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from chargepki.pki.certificate_view import CertificateView, view_certificate, view_tbs
from chargepki.pki.crl_view import CrlContent, read_crl
from chargepki.pki.der import DerError
from chargepki.pki.errors import InputError
from chargepki.pki.lint.collection import Issuers, Kind, Member
from chargepki.pki.lint.csr_view import view_csr
from chargepki.pki.lint.engine import LintReport
from chargepki.pki.lint.guess import guess_profile, guess_request_profile
from chargepki.pki.lint.objects import judge_csr_view, lint_collection, lint_file, lint_hash_data, lint_ocsp_response
from chargepki.pki.lint.ocsp_view import OcspView, view_ocsp_response
from chargepki.pki.lint.run import judge_view, lint_crl, unreadable
from chargepki.pki.lint.settings import LintSettings
from chargepki.pki.lint.sniff import ObjectKind, kind_of
from chargepki.pki.pem import PemBlock, pem_blocks
from chargepki.pki.profiles.base import Profile

__all__ = ["LintInput", "LintSession", "ObjectReport", "as_text", "read_inputs"]

_MAX_BYTES: Final = 64 << 20
_BY_LABEL: Final = {
    "CERTIFICATE": ObjectKind.CERTIFICATE,
    "TRUSTED CERTIFICATE": ObjectKind.CERTIFICATE,
    "X509 CERTIFICATE": ObjectKind.CERTIFICATE,
    "X509 CRL": ObjectKind.CRL,
    "CERTIFICATE REQUEST": ObjectKind.CSR,
    "NEW CERTIFICATE REQUEST": ObjectKind.CSR,
    "OCSP RESPONSE": ObjectKind.OCSP_RESPONSE,
}
_CERTIFICATES: Final = (ObjectKind.CERTIFICATE, ObjectKind.TBS)


@dataclass(frozen=True, slots=True)
class LintInput:
    """One object that was found in a file or received from a peer."""

    name: str
    file: str
    kind: ObjectKind | None
    """``None`` for hash data, which is JSON."""
    der: bytes = b""
    value: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ObjectReport:
    """The report about one object, or about several together, and what they are called."""

    name: str
    file: str
    report: LintReport
    profile_reason: str = ""
    """Why a certificate was held against its profile: ``given``, or what the guess rests on."""
    der: bytes = b""

    def to_json(self) -> dict[str, object]:
        """Return the report as JSON-able values."""
        return {
            "object": as_text(self.name),
            "file": as_text(self.file),
            "profile_reason": self.profile_reason or None,
            **self.report.to_json(),
        }


def as_text(name: str) -> str:
    """Return *name* with octets of a file's name that are no UTF-8 as escapes, so that JSON can hold it."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def read_inputs(data: bytes, file: str) -> tuple[list[LintInput], list[PemBlock]]:
    """Return the objects in *data* (PEM, DER, base64 or JSON) and the PEM blocks, if it is PEM.

    Raises:
        InputError: nothing that the linter knows.
    """
    if b"-----BEGIN " in data and data[:1] != b"\x30":
        blocks = pem_blocks(data, max_bytes=_MAX_BYTES)
        found = [block for block in blocks if block.label in _BY_LABEL]
        inputs = [
            LintInput(file if len(found) == 1 else f"{file}#{number}", file, _BY_LABEL[block.label], block.der)
            for number, block in enumerate(found, start=1)
        ]
        if not blocks:
            raise _nothing(file)
        return inputs, blocks
    if data[:1] == b"\x30" and (kind := kind_of(data)) is not None:
        return [LintInput(file, file, kind, data)], []
    if data.lstrip()[:1] in (b"{", b"["):
        return list(_hash_data(data, file)), []
    raise _nothing(file)


def _nothing(file: str) -> InputError:
    return InputError(
        f"{file} holds nothing that can be judged",
        why="certificates, to-be-signed certificates, requests, CRLs and OCSP responses (PEM or DER) can, "
        "and certificate hash data (JSON)",
        fix="check the path; convert PKCS#12 or PKCS#7 with openssl first",
    )


def _hash_data(data: bytes, file: str) -> Iterator[LintInput]:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file} is not valid JSON", why=str(error)[:200]) from error
    waiting, found = deque([document]), []
    while waiting:
        value = waiting.popleft()
        if isinstance(value, dict):
            if "hashAlgorithm" in value or "issuerNameHash" in value:
                found.append(value)
            else:
                waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    if not found:
        raise _nothing(file)
    for number, value in enumerate(found, start=1):
        yield LintInput(file if len(found) == 1 else f"{file}#{number}", file, None, value=value)


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
        finder = Issuers([*members.values(), *self._given_issuers()])
        reports: list[ObjectReport] = []
        for position, each in enumerate(inputs):
            member = members.get(position)
            if member is not None:
                reports.append(self._certificate(each, member, finder))
            elif position in unread:
                reports.append(ObjectReport(each.name, each.file, unread[position], der=each.der))
            else:
                reports.append(self._other(each, [*members.values(), *self._given_issuers()]))
        reports += self._together(inputs, members, blocks)
        return [self._finish(report) for report in reports]

    def _finish(self, found: ObjectReport) -> ObjectReport:
        report = self.settings.apply(found.report)
        return ObjectReport(found.name, found.file, report, found.profile_reason, found.der)

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

    def _other(self, each: LintInput, cas: Sequence[Member]) -> ObjectReport:
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
        else:
            report = lint_hash_data(each.value)
        given = "given" if report.profile_id and self.profile else ""
        return ObjectReport(each.name, each.file, report, given, each.der)

    def _request(self, each: LintInput) -> ObjectReport:
        try:
            view = view_csr(each.der)
        except DerError as error:
            return ObjectReport(each.name, each.file, unreadable(error, "csr", self.profile), der=each.der)
        profile, reason = (self.profile, "given") if self.profile is not None else guess_request_profile(view)
        report = judge_csr_view(view, profile, self.settings.data)
        return ObjectReport(each.name, each.file, report, reason, each.der)

    def _crl_issuer(self, der: bytes, cas: Sequence[Member]) -> bytes | None:
        try:
            crl: CrlContent = read_crl(der)
        except DerError:
            return None
        named = [ca for ca in cas if ca.view.is_ca and ca.view.subject == crl.issuer]
        keyed = [ca for ca in named if ca.view.known.subject_key_id == crl.authority_key_id]
        best = next(iter([*keyed, *named]), None)
        return best.view.der if best else self.issuers[0] if len(self.issuers) == 1 else None

    def _ocsp_issuer(self, der: bytes, cas: Sequence[Member]) -> Member | None:
        """Return the CA whose key hash the first answer names."""
        try:
            response: OcspView = view_ocsp_response(der)
        except DerError:
            return None
        for single in response.singles[:1]:
            for ca in cas:
                if ca.view.is_ca and single.key_hash in _key_hashes(ca.view):
                    return ca
        return None

    def _together(
        self, inputs: Sequence[LintInput], members: Mapping[int, Member], blocks: Mapping[str, Sequence[PemBlock]]
    ) -> Iterable[ObjectReport]:
        for file, found in blocks.items():
            if len(found) > 1:
                yield ObjectReport(file, file, lint_file(found))
        files: dict[str, list[Member]] = {}
        for position, member in members.items():
            if inputs[position].kind is ObjectKind.CERTIFICATE:
                files.setdefault(inputs[position].file, []).append(member)
        for file, listed in files.items():
            if len(listed) > 1 or self.kind is not None:
                kind = self.kind or _kind(listed)
                yield ObjectReport(file, file, lint_collection(listed, kind=kind, now=self.now))
        everyone = [member for listed in files.values() for member in listed]
        if len(files) > 1:
            # Copies of one certificate in several files (a CA in every bundle) are one certificate.
            distinct = list({member.view.tbs: member for member in reversed(everyone)}.values())[::-1]
            yield ObjectReport("all files", "", lint_collection(distinct, kind=Kind.SET, now=self.now))


def _kind(members: Sequence[Member]) -> Kind:
    """A leaf makes a bundle, two make a set; roots alone are a store."""
    leaves = sum(not member.view.is_ca for member in members)
    if leaves == 1:
        return Kind.BUNDLE
    if leaves == 0 and all(member.is_self_issued for member in members):
        return Kind.STORE
    return Kind.SET if leaves else Kind.BUNDLE


def _key_hashes(view: CertificateView) -> set[bytes]:
    bits = view.key.bits
    return {hashlib.new(name, bits, usedforsecurity=False).digest() for name in ("sha1", "sha256", "sha384", "sha512")}
