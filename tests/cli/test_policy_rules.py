"""Every rule of the request policy in every mode: what `csr check` says, whether `cert issue` refuses, what is kept."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from chargepki.pki import names
from chargepki.pki.keys import KeyAlgorithm
from chargepki.pki.policy_settings import KNOWN_RULES, Mode
from testkit.authorities import make_key
from testkit.command_line import CommandLine
from testkit.requests import make_csr

STATION = "CN=CS-0001,O=Acme Charging"
FIXED = ("possession", "key-algorithm", "ca-request", "compromised-key")
ONLY_HARDER = ("subject", "extension")

Provoke = Callable[[CommandLine, Path], bytes]


def fresh_key(subject: str = STATION, *extensions: x509.ExtensionType, algorithm: KeyAlgorithm | None = None) -> bytes:
    key = make_key() if algorithm is None else make_key(algorithm)
    return make_csr(names.parse_rdns(subject), key, extensions=[(each, True) for each in extensions])


def of_record(run: CommandLine, place: Path) -> bytes:
    """A request that was answered twice: one certificate is live, one was superseded."""
    return (place / "station.csr").read_bytes()


def revoked(reason: str) -> Provoke:
    def provoke(run: CommandLine, place: Path) -> bytes:
        run("cert", "revoke", place / "live.pem", "--reason", reason)
        return of_record(run, place)

    return provoke


def forged(run: CommandLine, place: Path) -> bytes:
    request = bytearray(fresh_key())
    request[-1] ^= 1
    return bytes(request)


def listed(run: CommandLine, place: Path) -> bytes:
    request = fresh_key()
    spki = x509.load_der_x509_csr(request).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    (place / "home" / "weak.txt").write_text(hashlib.sha256(spki).hexdigest() + "\n")
    return request


PROVOKE: dict[str, Provoke] = {
    "possession": forged,
    "key-algorithm": lambda *_: fresh_key(algorithm=KeyAlgorithm.ED448),
    "ca-request": lambda *_: fresh_key(STATION, x509.BasicConstraints(ca=True, path_length=None)),
    "compromised-key": revoked("keyCompromise"),
    "subject": lambda *_: fresh_key(f"{STATION},L=Berlin"),
    "extension": lambda *_: fresh_key(STATION, x509.SubjectAlternativeName([x509.DNSName("a.example")])),
    "key-reuse": of_record,  # for another station, see below
    "key-renewal": of_record,
    "key-revoked": revoked("cessationOfOperation"),
    "replay": of_record,
    "rate": lambda *_: fresh_key(),
    "weak-key": listed,
}


def modes_of(rule: str) -> Iterator[Mode]:
    yield Mode.ENFORCE
    if rule not in FIXED:
        yield Mode.WARN
        if rule not in ONLY_HARDER:
            yield Mode.OFF


def configure(place: Path, rule: str, mode: Mode) -> None:
    weak = 'weak_keys = "weak.txt"\n' if (place / "home" / "weak.txt").exists() else ""
    rate = 'rate = "1/24h"\n' if rule == "rate" else ""
    text = f'[policy]\n{rate}[policy.rules]\n{rule} = "{mode}"\n[lint]\n{weak}'
    (place / "home" / "chargepki.toml").write_text(text)


def test_every_rule_is_provoked() -> None:
    assert PROVOKE.keys() == KNOWN_RULES.keys()


@pytest.mark.parametrize(("rule", "mode"), [(rule, mode) for rule in KNOWN_RULES for mode in modes_of(rule)])
def test_a_rule_does_in_its_mode_what_it_is_told(run: CommandLine, place: Path, rule: str, mode: Mode) -> None:
    path = place / "asked.csr"
    path.write_bytes(PROVOKE[rule](run, place))
    configure(place, rule, mode)
    profile = ("--profile", "ocpp/charging-station")
    station = ("--station", "CS-0002" if rule == "key-reuse" else "CS-0001")
    refused = mode is Mode.ENFORCE
    verdict = run("csr", "check", path, *profile, *station, "--json", code=int(refused)).json()
    assert verdict["accepted"] is not refused
    wanted = {Mode.ENFORCE: {"refuse"}, Mode.WARN: {"notice"}, Mode.OFF: set()}[mode]
    said = [each for each in verdict["rules"] if each["rule"] in (rule, f"{rule}-L")]
    assert {each["outcome"] for each in said} == wanted
    assert all(each["message"] and each["clause"] for each in said)
    ordered = ("cert", "issue", "--ca", "t-cso-sub", *profile, *station, "--csr", path, "--again")
    if refused:
        before = len(run("cert", "list", "--json").json()["certificates"])
        run(*ordered, code=3).check_one_error(3)
        assert len(run("cert", "list", "--json").json()["certificates"]) == before
        return
    run(*ordered, "--out", place / "made.pem")
    made = x509.load_pem_x509_certificate((place / "made.pem").read_bytes())
    kept = run("cert", "show", f"{made.serial_number:x}", "--json").json()["verdict"]
    assert {each["outcome"] for each in kept if each["rule"] == rule} == wanted


@pytest.mark.parametrize("rule", FIXED)
def test_a_rule_that_is_always_enforced_cannot_be_told_otherwise(run: CommandLine, place: Path, rule: str) -> None:
    for mode in (Mode.WARN, Mode.OFF):
        configure(place, rule, mode)
        order = ("--ca", "t-cso-sub", "--profile", "ocpp/charging-station", "--csr", place / "station.csr")
        run.run("cert", "issue", *order, "--dry-run").check_one_error(3)
