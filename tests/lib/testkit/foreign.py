"""Independent judges of our certificates and revocation lists: openssl, GnuTLS, Java and pyhanko-certvalidator.

A tool that is missing is a visible skip with its reason (a failure under CI). Every judge uses the machine's clock,
because certtool knows no other; no judge opens a network connection.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path

import pytest
from asn1crypto import crl as asn1_crl
from asn1crypto import x509 as asn1_x509
from cryptography import x509
from pyhanko_certvalidator import CertificateValidator, ValidationContext
from pyhanko_certvalidator.errors import PathBuildingError, ValidationError

from testkit.layout import ROOT

__all__ = [
    "ChainCase",
    "CrlCase",
    "FileCase",
    "Tool",
    "Verdict",
    "java_program",
    "judge_by_nss",
    "judge_by_strongswan",
    "judge_chains",
    "judge_crls",
    "judge_files",
    "missing",
    "need",
    "node_program",
    "run",
]

JAVA_SOURCES = ROOT / "tests" / "interop" / "java"


class Tool(StrEnum):
    """An independent implementation of path validation."""

    OPENSSL = "openssl"
    OPENSSL_STRICT = "openssl-strict"
    """`openssl verify -x509_strict`: also refuses what RFC 5280 forbids but most software lets pass."""
    GNUTLS = "gnutls"
    JAVA = "java"
    PYHANKO = "pyhanko"


COMMANDS: Mapping[Tool, tuple[str, str]] = {
    Tool.OPENSSL: ("openssl", "openssl"),
    Tool.OPENSSL_STRICT: ("openssl", "openssl"),
    Tool.GNUTLS: ("certtool", "gnutls-bin"),
    Tool.JAVA: ("javac", "default-jdk-headless"),
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a tool said; `reason` is its own text, empty when it accepted."""

    accepted: bool
    reason: str


@dataclass(frozen=True, slots=True)
class ChainCase:
    """One question: is this chain valid now?"""

    id: str
    chain: tuple[bytes, ...]
    """DER, leaf first, without the root (a root alone is a chain of itself)."""
    root: bytes
    crls: tuple[bytes, ...] | None = None
    """DER. With lists the status of every certificate must be known from them; ``None`` leaves revocation out."""
    extended_key_usage: str | None = None
    """Dotted OID of the purpose that the leaf must be good for."""
    beside: tuple[bytes, ...] = ()
    """DER of certificates that lie beside the chain, say of who signed a list."""


@dataclass(frozen=True, slots=True)
class CrlCase:
    """One question: does this issuer's key verify this list?"""

    id: str
    crl: bytes
    issuer_chain: tuple[bytes, ...]
    """DER, the CRL's issuer first, root last."""


@dataclass(frozen=True, slots=True)
class FileCase:
    """One question: are all certificates of this file read?"""

    id: str
    content: bytes
    certificates: int


def missing(command: str, package: str) -> str | None:
    """Return why *command* cannot be used, or ``None`` when it is there."""
    if shutil.which(command):
        return None
    return f"{command} is not installed; on Debian: apt-get install {package}"


def need(*tools: Tool) -> None:
    """Skip the calling test, visibly, when one of *tools* is not on this machine."""
    for tool in tools:
        if tool in COMMANDS and (reason := missing(*COMMANDS[tool])):
            pytest.skip(reason)


def run(*arguments: str | Path, text: str = "", timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """Run a tool without a shell, without a terminal and in the C locale; never raise for its exit code."""
    return subprocess.run(
        [str(argument) for argument in arguments],
        input=text,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env={**os.environ, "LC_ALL": "C", "OPENSSL_CONF": os.devnull},
    )


@cache
def _java_classes(name: str) -> Path:
    """Compile one of our Java programs, once for all processes of the tests: it takes longer than a run of it."""
    source = JAVA_SOURCES / f"{name}.java"
    digest = hashlib.sha256(source.read_bytes()).hexdigest()[:16]
    kept = ROOT / ".pytest_cache" / "java" / f"{name}-{digest}"
    if kept.is_dir():
        return kept
    kept.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=kept.parent))
    done = run("javac", "-encoding", "UTF-8", "-d", folder, source, timeout=110)
    if done.returncode != 0:
        shutil.rmtree(folder)
        pytest.fail(f"javac ended with {done.returncode}: {done.stderr[-2000:]}")
    try:
        folder.rename(kept)
    except OSError:
        shutil.rmtree(folder)  # another process was faster
    return kept


def java_program(name: str) -> tuple[str | Path, ...]:
    """Return the command that runs ``tests/interop/java/NAME.java``; its arguments follow."""
    return ("java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", _java_classes(name), name)


def node_program(name: str, *, package: str) -> tuple[str | Path, ...]:
    """Return the command that runs ``tests/interop/node/NAME``, which uses *package* of npm; skip without it."""
    folder = ROOT / "tests" / "interop" / "node"
    if reason := missing("node", "nodejs"):
        pytest.skip(reason)
    if not (folder / "node_modules" / package).is_dir():
        pytest.skip(f"{package} is not installed; run: npm ci --prefix tests/interop/node")
    return ("node", folder / name)


def judge_chains(tool: Tool, cases: Sequence[ChainCase]) -> dict[str, Verdict]:
    """Ask *tool* about every case; the answers are by case id."""
    if tool is Tool.JAVA:
        return _ask_java([_java_path(case) for case in cases])
    with tempfile.TemporaryDirectory() as folder:
        judge = {
            Tool.OPENSSL: _openssl_chain,
            Tool.OPENSSL_STRICT: _openssl_strict_chain,
            Tool.GNUTLS: _gnutls_chain,
            Tool.PYHANKO: _pyhanko_chain,
        }[tool]
        return {case.id: judge(case, Path(folder)) for case in cases}


def judge_crls(tool: Tool, cases: Sequence[CrlCase]) -> dict[str, Verdict]:
    """Ask *tool* whether it can read each list and verify its signature; the answers are by case id."""
    if tool is Tool.JAVA:
        return _ask_java([("crl", case.id, _b64(case.crl), _b64(case.issuer_chain[0])) for case in cases])
    with tempfile.TemporaryDirectory() as folder:
        judge = {
            Tool.OPENSSL: _openssl_crl,
            Tool.OPENSSL_STRICT: _openssl_crl,
            Tool.GNUTLS: _gnutls_crl,
            Tool.PYHANKO: _pyhanko_crl,
        }[tool]
        return {case.id: judge(case, Path(folder)) for case in cases}


def judge_files(tool: Tool, cases: Sequence[FileCase]) -> dict[str, Verdict]:
    """Ask openssl or Java how many certificates it reads of each file; the answers are by case id."""
    if tool is Tool.JAVA:
        return _ask_java([("file", case.id, _b64(case.content), str(case.certificates)) for case in cases])
    with tempfile.TemporaryDirectory() as folder:
        return {case.id: _openssl_file(case, Path(folder) / "file") for case in cases}


def _pem(label: str, *blocks: bytes) -> str:
    return "".join(
        f"-----BEGIN {label}-----\n{base64.encodebytes(der).decode()}-----END {label}-----\n" for der in blocks
    )


def _write(folder: Path, name: str, label: str, *blocks: bytes) -> Path:
    path = folder / name
    path.write_text(_pem(label, *blocks), encoding="ascii")
    return path


# -- openssl -----------------------------------------------------------------------------------------------------------

PURPOSES = {"1.3.6.1.5.5.7.3.1": "sslserver", "1.3.6.1.5.5.7.3.2": "sslclient"}


def _openssl_chain(case: ChainCase, folder: Path, *options: str) -> Verdict:
    arguments: list[str | Path] = ["openssl", "verify", "-no-CApath", "-no-CAstore", *options]
    arguments += ["-CAfile", _write(folder, "root.pem", "CERTIFICATE", case.root)]
    if len(case.chain) > 1:
        arguments += ["-untrusted", _write(folder, "issuers.pem", "CERTIFICATE", *case.chain[1:], *case.beside)]
    if case.crls is not None:
        arguments += ["-crl_check_all"]
        for number, der in enumerate(case.crls):
            arguments += ["-CRLfile", _write(folder, f"{number}.crl.pem", "X509 CRL", der)]
    if case.extended_key_usage in PURPOSES:
        arguments += ["-purpose", PURPOSES[case.extended_key_usage]]
    done = run(*arguments, _write(folder, "leaf.pem", "CERTIFICATE", case.chain[0]))
    errors = [line for line in done.stderr.splitlines() if line.startswith("error ")]
    return Verdict(done.returncode == 0, "; ".join(errors) or done.stderr.strip().replace("\n", " "))


def _openssl_strict_chain(case: ChainCase, folder: Path) -> Verdict:
    return _openssl_chain(case, folder, "-x509_strict")


def _openssl_file(case: FileCase, path: Path) -> Verdict:
    path.write_bytes(case.content)
    bundle = run("openssl", "crl2pkcs7", "-nocrl", "-certfile", path)
    count = run("openssl", "pkcs7", "-print_certs", text=bundle.stdout).stdout.count("BEGIN CERTIFICATE")
    return Verdict(count == case.certificates, f"{count} certificates {bundle.stderr.strip()}".replace("\n", " "))


def _openssl_crl(case: CrlCase, folder: Path) -> Verdict:
    issuer = _write(folder, "issuer.pem", "CERTIFICATE", case.issuer_chain[0])
    crl = _write(folder, "list.pem", "X509 CRL", case.crl)
    done = run("openssl", "crl", "-noout", "-CAfile", issuer, "-no-CApath", "-no-CAstore", "-verify", "-in", crl)
    # Exit code 0 is no proof: some releases print "verify failure" and end with 0.
    return Verdict(done.returncode == 0 and "verify OK" in done.stderr, done.stderr.strip().replace("\n", " "))


# -- GnuTLS ------------------------------------------------------------------------------------------------------------


def _gnutls_chain(case: ChainCase, folder: Path) -> Verdict:
    root = _write(folder, "root.pem", "CERTIFICATE", case.root)
    chain = _write(folder, "chain.pem", "CERTIFICATE", *case.chain)
    arguments: list[str | Path] = ["certtool", "--verify", "--load-ca-certificate", root, "--infile", chain]
    if case.crls is not None:
        arguments += ["--load-crl", _write(folder, "lists.pem", "X509 CRL", *case.crls)]
    if case.extended_key_usage is not None:
        arguments += ["--verify-purpose", case.extended_key_usage]
    done = run(*arguments)
    outcome = next((line for line in done.stdout.splitlines() if "Chain verification output" in line), "")
    accepted = done.returncode == 0 and "Verified. The certificate is trusted." in outcome
    return Verdict(accepted, "" if accepted else outcome.strip() or (done.stderr + done.stdout).strip()[-300:])


def _gnutls_crl(case: CrlCase, folder: Path) -> Verdict:
    issuers = _write(folder, "issuers.pem", "CERTIFICATE", *case.issuer_chain)
    crl = _write(folder, "list.pem", "X509 CRL", case.crl)
    done = run("certtool", "--verify-crl", "--load-ca-certificate", issuers, "--infile", crl)
    accepted = done.returncode == 0 and "Verified." in done.stdout
    return Verdict(accepted, "" if accepted else (done.stderr + done.stdout).strip()[-300:])


# -- Java --------------------------------------------------------------------------------------------------------------


def _b64(*blocks: bytes) -> str:
    return ",".join(base64.b64encode(der).decode() for der in blocks) or "-"


def _java_path(case: ChainCase) -> tuple[str, ...]:
    return (
        "path",
        case.id,
        str(time.time_ns() // 1_000_000),
        "off" if case.crls is None else "require",
        case.extended_key_usage or "-",
        _b64(*case.chain),
        _b64(case.root),
        _b64(*(case.crls or ())),
        _b64(*case.beside),
    )


def _ask_java(questions: Sequence[tuple[str, ...]]) -> dict[str, Verdict]:
    """Start one Java machine for all questions."""
    text = "".join("\t".join(question) + "\n" for question in questions)
    done = run(*java_program("ValidateChains"), text=text, timeout=110)
    if done.returncode != 0:
        pytest.fail(f"ValidateChains ended with {done.returncode}: {done.stderr[-2000:]}")
    verdicts = {}
    for line in done.stdout.splitlines():
        case_id, outcome, reason = line.split("\t", 2)
        verdicts[case_id] = Verdict(outcome == "accepted", reason)
    return verdicts


# -- pyhanko-certvalidator ---------------------------------------------------------------------------------------------

EKU_NAMES = {
    "1.3.6.1.5.5.7.3.1": "server_auth",
    "1.3.6.1.5.5.7.3.2": "client_auth",
    "1.3.6.1.5.5.7.3.3": "code_signing",
    "1.3.6.1.5.5.7.3.9": "ocsp_signing",
}


def _pyhanko_chain(case: ChainCase, folder: Path) -> Verdict:
    del folder  # It works on objects.
    logging.getLogger("pyhanko_certvalidator").setLevel(logging.ERROR)
    certificates = [asn1_x509.Certificate.load(der) for der in case.chain]
    context = ValidationContext(
        trust_roots=[asn1_x509.Certificate.load(case.root)],
        crls=[asn1_crl.CertificateList.load(der) for der in case.crls or ()],
        allow_fetching=False,
        # Only "require" consults lists that were handed in when the certificates name no distribution point.
        revocation_mode="soft-fail" if case.crls is None else "require",
    )
    validator = CertificateValidator(certificates[0], certificates[1:], validation_context=context)
    usage = {EKU_NAMES[case.extended_key_usage]} if case.extended_key_usage else None
    try:
        if usage:
            judging = validator.async_validate_usage(  # type: ignore[no-untyped-call]  # pyhanko left it untyped
                set(), usage, extended_optional=True
            )
            asyncio.run(judging)
        else:
            asyncio.run(validator.async_validate_path())
    except (PathBuildingError, ValidationError) as refusal:
        return Verdict(False, f"{type(refusal).__name__}: {refusal}".replace("\n", " "))
    return Verdict(True, "")


def _pyhanko_crl(case: CrlCase, folder: Path) -> Verdict:
    """Let asn1crypto, pyhanko's parser, read the list; its signature is judged with the chains that need it."""
    del folder
    try:
        parsed = asn1_crl.CertificateList.load(case.crl, strict=True)
        issuer = x509.load_der_x509_certificate(case.issuer_chain[0]).subject.public_bytes()
        same_issuer = parsed.issuer.dump() == issuer and parsed.native is not None
    except ValueError as refusal:
        return Verdict(False, str(refusal))
    return Verdict(same_issuer, "" if same_issuer else "the list names another issuer")


# -- strongSwan and NSS ------------------------------------------------------------------------------------------------


def judge_by_strongswan(cases: Sequence[ChainCase]) -> dict[str, Verdict]:
    """Ask strongSwan's ``pki --verify`` about every case; with lists, it refuses what they name."""
    if reason := missing("pki", "strongswan-pki"):
        pytest.skip(reason)
    found = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for case in cases:
            arguments: list[str | Path] = ["pki", "--verify", "--in", _binary(folder, "leaf", case.chain[0])]
            above = [case.root, *case.chain[1:], *case.beside]
            for number, der in enumerate(above):
                arguments += ["--cacert", _binary(folder, f"ca{number}", der)]
            for number, der in enumerate(case.crls or ()):
                arguments += ["--crl", _binary(folder, f"list{number}", der)]
            done = run(*arguments)
            said = [line.strip() for line in (done.stderr + done.stdout).splitlines() if "failed to load" not in line]
            found[case.id] = Verdict(done.returncode == 0, "" if done.returncode == 0 else " / ".join(said)[-400:])
    return found


def judge_by_nss(cases: Sequence[ChainCase], usage: str = "C") -> dict[str, Verdict]:
    """Ask NSS about every case by its ``certutil -V``, all in one process; lists are left out.

    Args:
        usage: of the leaf, as certutil calls it: C, an SSL client; L, a CA of SSL; O, an OCSP responder.
    """
    if reason := missing("certutil", "libnss3-tools"):
        pytest.skip(reason)
    found = {}
    with tempfile.TemporaryDirectory() as name:
        for number, case in enumerate(cases):
            # A database each: NSS finds issuers by name, and chains of several cases share names.
            folder = Path(name) / str(number)
            folder.mkdir()
            run("certutil", "-N", "-d", f"sql:{folder}", "--empty-password")
            lines = []
            for place, der in enumerate((case.root, *case.chain, *case.beside)):
                trust = "CT,C,C" if place == 0 else ",,"
                if place and der == case.root:
                    continue
                lines.append(f"-A -n c{place} -t {trust} -i {_binary(folder, f'c{place}', der)}")
            lines.append(f"-V -n {'c1' if case.chain[0] != case.root else 'c0'} -u {usage}")
            batch = folder / "batch"
            batch.write_text("".join(f"{line} -d sql:{folder}\n" for line in lines))
            done = run("certutil", "-B", "-i", batch, "-d", f"sql:{folder}")
            text = (done.stdout + done.stderr).strip().replace("\n", " / ")
            found[case.id] = Verdict("certificate is valid" in text, "" if "certificate is valid" in text else text)
    return found


def _binary(folder: Path, name: str, der: bytes) -> Path:
    path = folder / name
    path.write_bytes(der)
    return path
