"""The entry points that read objects from strangers: each takes octets and may raise nothing but `ChargePkiError`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib.resources import files
from pathlib import Path

from chargepki.cli.describing import describe_certificate, describe_crl
from chargepki.pki import csr, keys, names, policy, private_keys
from chargepki.pki.certificate_view import view_certificate, view_tbs
from chargepki.pki.chain import (
    AnchorUse,
    Identity,
    Purpose,
    Revocation,
    RevocationMode,
    TrustAnchor,
    order_chain,
    verify_chain,
)
from chargepki.pki.crl import crl_contains, parse_crl
from chargepki.pki.der import check_strict, decode_der_or_pem
from chargepki.pki.der import parse as parse_der
from chargepki.pki.hashdata import CertificateHashData
from chargepki.pki.keys import KeyAlgorithm
from chargepki.pki.lint import (
    LintSession,
    lint_certificate,
    lint_crl,
    lint_csr,
    lint_ocsp_response,
    lint_pkcs7,
    lint_pkcs12,
    lint_private_key,
    lint_tbs,
    read_inputs,
)
from chargepki.pki.lint.sarif import sarif_log
from chargepki.pki.pem import to_pem
from chargepki.pki.pointers import Pointers
from chargepki.pki.profiles import get_profile
from chargepki.pki.template import IssuerInfo, build_tbs, tbs_of
from chargepki.pki.validity import Window
from fixtures.lint.others import LEAF, SUB1, SUB2, V2G_ROOT
from testkit.command_line import CommandLine, Done
from testkit.fuzz.corpus import FuzzKind

__all__ = ["COMMANDS", "LIBRARY", "Command", "library_targets", "prepare", "run_command"]

NOW = datetime(2026, 1, 2, tzinfo=UTC)
PKITS_TIME = datetime(2022, 5, 1, tzinfo=UTC)
SECC, VEHICLE = "iso15118-2/secc", "iso15118-20/vehicle"
Target = Callable[[bytes], object]


@cache
def pkits(name: str) -> bytes:
    """Return a file of NIST's suite; a mutant of one of its certificates still finds its way to this root."""
    return (files("cryptography_vectors") / "x509" / "PKITS_data" / name).read_bytes()


def _root() -> bytes:
    return pkits("certs/TrustAnchorRootCertificate.crt")


def _sub() -> bytes:
    return pkits("certs/GoodCACert.crt")


def _leaf() -> bytes:
    return pkits("certs/ValidCertificatePathTest1EE.crt")


def _session(data: bytes, profile: str | None = None) -> None:
    found, blocks = read_inputs(data, "mutant")
    session = LintSession(profile=get_profile(profile) if profile else None, now=NOW)
    reports = session.judge(found, {"mutant": blocks} if blocks else {})
    sarif_log(reports, tool_version="0")


def _as_leaf(data: bytes) -> None:
    verify_chain(data, [_sub()], [_root()], at=PKITS_TIME)


def _as_leaf_of_v2g(data: bytes) -> None:
    verify_chain(data, [SUB2, SUB1], [V2G_ROOT], at=NOW, purpose=Purpose.SECC)


def _as_station(data: bytes) -> None:
    anchor = TrustAnchor(data, frozenset({AnchorUse.CSO}))
    verify_chain(
        data, [], [anchor], at=NOW, purpose=Purpose.CHARGING_STATION,
        identity=Identity("station.example", "S1", "Acme"),
    )  # fmt: skip


def _as_untrusted(data: bytes) -> None:
    verify_chain(_leaf(), [data, _sub()], [_root()], at=PKITS_TIME)


def _as_trust(data: bytes) -> None:
    verify_chain(_leaf(), [_sub()], [data, _root()], at=PKITS_TIME)


def _as_crl(data: bytes) -> None:
    evidence = Revocation(RevocationMode.REQUIRE, (data, pkits("crls/TrustAnchorRootCRL.crl")), allow_indirect=True)
    verify_chain(_leaf(), [_sub()], [_root()], at=PKITS_TIME, revocation=evidence)


def _as_ocsp(data: bytes) -> None:
    evidence = Revocation(RevocationMode.IF_PRESENT, (), (data,))
    verify_chain(LEAF, [SUB2, SUB1], [V2G_ROOT], at=NOW, revocation=evidence)


def _check_request(data: bytes) -> None:
    request = csr.parse_csr(data)
    for profile in (SECC, "ocpp/charging-station"):
        policy.judge_request(request, get_profile(profile))


def _template(data: bytes) -> None:
    """What a CA would sign for the request, read again by our own linter."""
    request, profile = csr.parse_csr(data), get_profile("ocpp/charging-station")
    tbs = build_tbs(
        profile,
        issuer=IssuerInfo(names.name_der(names.parse_rdns("CN=CA")), b"key id", KeyAlgorithm.SECP256R1),
        serial=77,
        subject_der=names.name_der(policy.choose_subject(profile, request, defaults={"O": "Acme", "CN": "S1"})),
        spki_der=request.spki_der,
        window=Window(NOW, NOW + timedelta(days=60)),
        pointers=Pointers(),
    )
    view_tbs(tbs)
    lint_tbs(tbs, profile=profile)


def _names(data: bytes) -> None:
    view = view_certificate(data)
    names.text(view.subject)
    names.same(view.subject, view.issuer)


def _hash_data(data: bytes) -> None:
    CertificateHashData.of(data, data)


def _any_key(data: bytes) -> None:
    private_keys.load_private_key(data)


def _locked_key(data: bytes) -> None:
    private_keys.decrypt_private_key(to_pem("ENCRYPTED PRIVATE KEY", data).encode(), b"password")


def _public_key(data: bytes) -> None:
    keys.load_public_key(data)


LIBRARY: dict[FuzzKind, tuple[Target, ...]] = {
    FuzzKind.CERTIFICATE: (
        lambda data: lint_certificate(data, profile=None, now=NOW, issuer_der=V2G_ROOT),
        lambda data: lint_certificate(data, profile=get_profile(SECC), now=NOW),
        lambda data: lint_certificate(data, profile=get_profile(VEHICLE), now=NOW),
        lambda data: lint_certificate(LEAF, profile=None, issuer_der=data),
        lambda data: lint_tbs(data, profile=get_profile(SECC)),
        lambda data: _session(data, SECC),
        describe_certificate, tbs_of, _names, _hash_data, _as_leaf, _as_leaf_of_v2g, _as_station, _as_untrusted,
        _as_trust,
        lambda data: order_chain(data, [LEAF, data, SUB2, _sub()]),
        lambda data: decode_der_or_pem(data, ("CERTIFICATE",), "certificate", 1 << 20),
    ),
    FuzzKind.CSR: (
        lambda data: lint_csr(data, profile=get_profile(SECC)), lint_csr, _check_request,
        _template,
        lambda data: csr.check_possession(csr.parse_csr(data)),
    ),
    FuzzKind.CRL: (
        lambda data: lint_crl(data, now=NOW, issuer_der=V2G_ROOT), parse_crl, describe_crl,
        lambda data: crl_contains(data, 77), _as_crl,
    ),
    FuzzKind.OCSP_RESPONSE: (
        lambda data: lint_ocsp_response(data, now=NOW, issuer_der=SUB2),
        lambda data: lint_ocsp_response(data, standard=get_profile(VEHICLE).standard), _as_ocsp,
    ),
    FuzzKind.PKCS7: (lint_pkcs7, lint_pkcs12, lint_private_key),
    FuzzKind.PKCS8: (lint_private_key, _any_key, _locked_key, _public_key),
    FuzzKind.PKCS12: (
        lint_pkcs12, lint_pkcs7, lambda data: lint_pkcs12(data, [b"password", b"cryptography", b"\xff\xfe"]),
    ),
}  # fmt: skip
_ANY: tuple[Target, ...] = (_session, parse_der, check_strict)


def library_targets(kind: FuzzKind) -> tuple[Target, ...]:
    """Return what reads objects of *kind*, and what reads anything."""
    return (*_ANY, *LIBRARY[kind])


# ---------------------------------------------------------------- the command line


class Command:
    """One command with the place of the file among its arguments."""

    def __init__(self, name: str, *arguments: str, codes: frozenset[int] = frozenset({0, 1, 4})) -> None:
        self.name, self.arguments, self.codes = name, arguments, codes

    def __repr__(self) -> str:
        return self.name

    def on(self, file: Path, folder: Path) -> list[str]:
        """Return the arguments with FILE and FOLDER filled in."""
        return [each.replace("FILE", str(file)).replace("FOLDER", str(folder)) for each in self.arguments]


_VERIFY = ("cert", "verify", "--at", "2022-05-01T00:00:00Z")
_CHAIN = ("--trust", "FOLDER/root.crt", "--untrusted", "FOLDER/sub.crt")
_SHOW = frozenset({0, 3, 4})
COMMANDS = (
    Command("lint", "lint", "FILE"),
    Command("lint --profile", "lint", "FILE", "--profile", SECC, "--format", "sarif"),
    Command("lint --issuer", "lint", "FOLDER/leaf.crt", "--issuer", "FILE", "--json"),
    Command("lint folder", "lint", "FILE", "FOLDER", "--json"),
    Command("cert show", "cert", "show", "FILE", codes=_SHOW),
    Command("crl show", "crl", "show", "FILE", codes=_SHOW),
    Command("csr check", "csr", "check", "FILE", "--profile", SECC),
    Command("cert verify LEAF", *_VERIFY, *_CHAIN, "FILE"),
    Command("cert verify --untrusted", *_VERIFY, *_CHAIN, "--untrusted", "FILE", "FOLDER/leaf.crt"),
    Command("cert verify --trust", *_VERIFY, *_CHAIN, "--trust", "cso=FILE", "FOLDER/leaf.crt"),
    Command("cert verify --crl", *_VERIFY, *_CHAIN, "--crl", "FILE", "FOLDER/leaf.crt"),
    Command("cert verify --ocsp-response", *_VERIFY, *_CHAIN, "--ocsp-response", "FILE", "--json", "FOLDER/leaf.crt"),
)


def prepare(folder: Path) -> CommandLine:
    """Write the files that the commands name beside the mutant."""
    place = folder / "beside"
    place.mkdir()
    for name, data in (("root.crt", _root()), ("sub.crt", _sub()), ("leaf.crt", _leaf())):
        (place / name).write_bytes(data)
    return CommandLine(folder / "home")


def run_command(run: CommandLine, folder: Path, command: Command, data: bytes) -> Done:
    """Run *command* on *data*.

    Raises:
        AssertionError: a code that the command may not have, or an error that is no proper one.
    """
    file = folder / "mutant"
    file.write_bytes(data)
    done = run.run(*command.on(file, folder / "beside"))
    assert done.code in command.codes, (command.name, done.code, done.stderr[-600:])
    assert "Traceback" not in done.stderr and "bug in chargepki" not in done.stderr, (command.name, done.stderr[-600:])
    return done
