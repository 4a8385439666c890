"""The entry points for what is no certificate or CRL: requests, OCSP responses, collections, files, hash data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from chargepki.pki.der import DerError
from chargepki.pki.lint.collection import Collection, Kind, Member
from chargepki.pki.lint.collection_rules import COLLECTIONS
from chargepki.pki.lint.container_rules import PKCS7S, PKCS12S, PRIVATE_KEYS, KeyContext
from chargepki.pki.lint.csr_rules import CSRS, CsrContext
from chargepki.pki.lint.csr_view import CsrView, view_csr
from chargepki.pki.lint.engine import NO_DATA, LintData, LintReport, available_data, judge, tokens_of
from chargepki.pki.lint.key_protection import KeyProtection, read_private_key
from chargepki.pki.lint.ocsp_rules import OCSP_RESPONSES, OcspContext
from chargepki.pki.lint.ocsp_view import view_ocsp_response
from chargepki.pki.lint.other_rules import FILES, HASH_DATA, FileContext, HashDataContext
from chargepki.pki.lint.pkcs7_view import Pkcs7View, view_pkcs7
from chargepki.pki.lint.pkcs12_view import Pkcs12View, view_pkcs12
from chargepki.pki.lint.run import check_aware, unreadable, view_issuer
from chargepki.pki.pem import PemBlock
from chargepki.pki.profiles.base import Profile, Standard

__all__ = [
    "judge_carrier",
    "judge_csr_view",
    "lint_collection",
    "lint_csr",
    "lint_file",
    "lint_hash_data",
    "lint_ocsp_response",
    "lint_pkcs7",
    "lint_pkcs12",
    "lint_private_key",
]

_ANY = frozenset({"any"})


def lint_csr(der: bytes, *, profile: Profile | None = None, data: LintData = NO_DATA) -> LintReport:
    """Judge a certification request (DER); *profile* is that of the certificate that is asked for.

    A fault in *der* is a finding, never an error. Whether a policy grants the request is `chargepki csr check`'s.
    """
    try:
        view = view_csr(der)
    except DerError as error:
        return unreadable(error, "csr", profile)
    return judge_csr_view(view, profile, data)


def judge_csr_view(view: CsrView, profile: Profile | None, data: LintData = NO_DATA) -> LintReport:
    """Judge a request that has been read already."""
    available = available_data(data, issuer=False, now=False, signature=True)
    standard = None if profile is None else profile.standard
    plan = CSRS.plan(standard, tokens_of(profile, is_ca=False), available)
    return judge(plan, CsrContext(view, profile, data), "csr", None if profile is None else profile.id)


def lint_ocsp_response(
    der: bytes,
    *,
    issuer_der: bytes | None = None,
    standard: Standard | None = None,
    now: datetime | None = None,
    responders: Sequence[bytes] = (),
) -> LintReport:
    """Judge an OCSP response (DER).

    Args:
        issuer_der: certificate (DER) of the CA that issued what the response is about.
        standard: the document that the checked chain follows, if any.
        responders: SubjectPublicKeyInfo (DER) of responders that are trusted by configuration.

    Raises like `lint_certificate`.
    """
    check_aware(now)
    issuer = None if issuer_der is None else view_issuer(issuer_der)
    try:
        view = view_ocsp_response(der)
    except DerError as error:
        return unreadable(error, "ocsp-response")
    available = available_data(NO_DATA, issuer=issuer is not None, now=now is not None, signature=True)
    plan = OCSP_RESPONSES.plan(standard, _ANY, available)
    return judge(plan, OcspContext(view, standard, issuer, now, tuple(responders)), "ocsp-response")


def lint_collection(members: Sequence[Member], *, kind: Kind, now: datetime | None = None) -> LintReport:
    """Judge several certificates together; each alone, and against its issuer, is `lint_certificate`'s."""
    check_aware(now)
    collection = Collection(tuple(members), kind, now)
    available = available_data(NO_DATA, issuer=False, now=now is not None, signature=True)
    plan = COLLECTIONS.plan(_standard(collection), collection.tokens, available)
    profile = collection.profile if kind in (Kind.BUNDLE, Kind.CONTAINER) else None
    return judge(plan, collection, kind.value, None if profile is None else profile.id)


def _standard(collection: Collection) -> Standard | None:
    """A store or a set follows a document when all its members do whose profile is known."""
    if collection.kind in (Kind.BUNDLE, Kind.CONTAINER):
        return collection.standard
    found = {member.profile.standard for member in collection.members if member.profile is not None}
    return found.pop() if len(found) == 1 else None


def lint_file(blocks: Sequence[PemBlock]) -> LintReport:
    """Judge what lies together in one PEM file."""
    return judge(FILES.plan(None, _ANY, frozenset()), FileContext(blocks), "file")


def lint_pkcs7(der: bytes) -> LintReport:
    """Judge a PKCS#7 bundle (DER or BER) itself; the certificates in it are `LintSession`'s."""
    try:
        view = view_pkcs7(der)
    except DerError as error:
        return unreadable(error, "pkcs7")
    return judge_carrier(view)


def lint_pkcs12(der: bytes, passphrases: Sequence[bytes] = ()) -> LintReport:
    """Judge a PKCS#12 file (DER or BER) itself; the certificates in it are `LintSession`'s."""
    try:
        view = view_pkcs12(der, passphrases)
    except DerError as error:
        return unreadable(error, "pkcs12")
    return judge_carrier(view)


def judge_carrier(view: Pkcs7View | Pkcs12View) -> LintReport:
    """Judge a bundle that has been read already."""
    if isinstance(view, Pkcs7View):
        return judge(PKCS7S.plan(None, _ANY, frozenset()), view, "pkcs7")
    return judge(PKCS12S.plan(None, _ANY, frozenset()), view, "pkcs12")


def lint_private_key(der: bytes, *, mode: int | None = None, old_encryption: bool = False) -> LintReport:
    """Judge how a private key (PKCS#8, SEC 1 or PKCS#1 in DER) is kept; the key itself is never opened.

    Args:
        mode: permissions of its file.
        old_encryption: *der* is the ciphertext of OpenSSL's old PEM form (``Proc-Type: 4,ENCRYPTED``).
    """
    if old_encryption:
        protection = KeyProtection(True, "its passphrase is hashed once, with MD5 (the old form of PEM)")
    else:
        try:
            protection = read_private_key(der)
        except DerError as error:
            return unreadable(error, "private-key")
    return judge(PRIVATE_KEYS.plan(None, _ANY, frozenset()), KeyContext(protection, mode), "private-key")


def lint_hash_data(value: Mapping[str, object]) -> LintReport:
    """Judge OCPP's CertificateHashDataType (or OCSPRequestDataType) as it is written on the wire."""
    return judge(HASH_DATA.plan(None, _ANY, frozenset()), HashDataContext(value), "hash-data")
