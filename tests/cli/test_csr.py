"""`chargepki csr check`: the verdict of the request policy, rule by rule; "no" is exit 1."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from cryptography import x509

from chargepki.pki import names
from chargepki.pki.der import to_pem
from testkit.command_line import CommandLine
from testkit.requests import make_csr, usage

CHECK = ("csr", "check", "--profile", "ocpp/charging-station")


def request(*extensions: x509.ExtensionType, subject: str = "CN=CS-0001,O=Acme") -> bytes:
    return make_csr(names.parse_rdns(subject), extensions=[(item, True) for item in extensions])


def test_a_good_request_is_accepted_rule_by_rule(fresh: CommandLine) -> None:
    done = fresh(*CHECK, "-", stdin=request())
    assert done.out.splitlines()[0].split() == ["rule", "outcome", "message", "clause"]
    assert "possession" in done.out and done.stderr == "accepted\n"
    verdict = fresh(*CHECK, "-", "--json", stdin=request()).json()
    assert (verdict["schema"], verdict["schema_version"]) == ("chargepki/csr-verdict", 1)
    assert verdict["accepted"] is True and verdict["profile"] == "ocpp/charging-station"
    assert {"rule", "outcome", "message", "clause", "fix"} <= verdict["rules"][0].keys()
    assert not fresh.home.exists(), "judging a request needs no workspace"


@pytest.mark.parametrize(
    "extension",
    [x509.BasicConstraints(ca=True, path_length=None), usage("key_cert_sign")],
    ids=["CA:TRUE", "keyCertSign"],
)
def test_a_request_to_be_a_ca_is_refused(fresh: CommandLine, extension: x509.ExtensionType) -> None:
    done = fresh(*CHECK, "-", stdin=request(extension), code=1)
    assert "refuse" in done.out and "fix: " in done.stderr and "refused for ocpp/charging-station" in done.stderr
    verdict = fresh(*CHECK, "-", "--json", stdin=request(extension), code=1).json()
    assert verdict["accepted"] is False
    assert [rule["rule"] for rule in verdict["rules"] if rule["outcome"] == "refuse"] == ["ca-request"]


def test_any_other_extension_is_a_notice(fresh: CommandLine) -> None:
    wanted = x509.SubjectAlternativeName([x509.DNSName("a.example")])
    verdict = fresh(*CHECK, "-", "--json", stdin=request(wanted)).json()
    assert verdict["accepted"] and "notice" in [rule["outcome"] for rule in verdict["rules"]]


def test_a_forged_request_is_refused(fresh: CommandLine) -> None:
    der = bytearray(request())
    der[-1] ^= 1
    assert "possession" in fresh(*CHECK, "-", stdin=bytes(der), code=1).out


def test_a_request_without_what_the_profile_demands_is_refused(fresh: CommandLine) -> None:
    assert "subject-O" in fresh(*CHECK, "-", stdin=request(subject="CN=CS-0001"), code=1).out


def wrappings() -> dict[str, bytes]:
    der = request()
    pem = to_pem("CERTIFICATE REQUEST", der).encode()
    return {
        "DER": der,
        "PEM": pem,
        "CRLF": pem.replace(b"\n", b"\r\n"),
        "old label": pem.replace(b"BEGIN CERT", b"BEGIN NEW CERT").replace(b"END CERT", b"END NEW CERT"),
        "no final newline": pem.rstrip(),
        "text around": b"Certificate Request:\n    Data:\n" + pem + b"\nthe end\n",
        "base64 of DER": base64.b64encode(der),
        "base64 of DER in lines": base64.encodebytes(der),
        "base64 of PEM": base64.b64encode(pem),
        "literal backslash-n": pem.replace(b"\n", b"\\n"),
        "byte order mark": b"\xef\xbb\xbf" + pem,
    }


@pytest.mark.parametrize("wrapping", wrappings())
def test_every_wrapping_that_the_field_uses_is_accepted(fresh: CommandLine, tmp_path: Path, wrapping: str) -> None:
    path = tmp_path / "request"
    path.write_bytes(wrappings()[wrapping])
    fresh(*CHECK, path)


@pytest.mark.parametrize("profile", ["none", "", "ocpp", "\x1b[2J", "OCPP/charging-station", "../x", "x" * 10_000])
def test_an_unknown_profile_is_no_verdict(fresh: CommandLine, profile: str) -> None:
    fresh.run("csr", "check", "-", "--profile", profile, stdin=request()).check_one_error(3)


FAULTY = (
    'colour = "red"',
    "[policy",
    '[policy]\nrate = "often"',
    '[policy.rules]\nkey-reuse = "no"',
    "[lint]\nweak_keys = 'chargepki.toml'",
)


@pytest.mark.parametrize("text", FAULTY)
def test_a_faulty_configuration_is_no_verdict(fresh: CommandLine, text: str) -> None:
    fresh.home.mkdir()
    (fresh.home / "chargepki.toml").write_text(text)
    fresh.run(*CHECK, "-", stdin=request()).check_one_error(3)
    told = fresh.run(*CHECK, "-", "--json", stdin=request())
    assert (told.code, told.json()["code"]) == (3, "input")


def test_with_an_inventory_the_request_is_judged_against_what_is_on_record(run: CommandLine, place: Path) -> None:
    verdict = run(*CHECK, place / "station.csr", "--json").json()
    outcomes = {rule["rule"]: rule["outcome"] for rule in verdict["rules"]}
    assert (outcomes["key-renewal"], outcomes["replay"], outcomes["rate"]) == ("notice", "notice", "not-evaluated")
    assert run(*CHECK, place / "station.csr", "--station", "CS-0002", "--json").json()["accepted"] is True
    (place / "home" / "chargepki.toml").write_text('[policy.rules]\nkey-reuse = "enforce"\n')
    refused = run(*CHECK, place / "station.csr", "--station", "CS-0002", "--json", code=1).json()
    assert [rule["rule"] for rule in refused["rules"] if rule["outcome"] == "refuse"] == ["key-reuse"]
    issue = ("cert", "issue", "--ca", "t-cso-sub", "--profile", "ocpp/charging-station")
    arguments = (*issue, "--csr", place / "station.csr", "--station", "CS-0002")
    for extra in ((), ("--dry-run",)):
        run.run(*arguments, *extra).check_one_error(3)
    run.run(*CHECK, place / "station.csr", "--station", "absent").check_one_error(3)


def test_a_compromised_key_is_refused_by_the_check_too(run: CommandLine, place: Path) -> None:
    rows = run("cert", "list", "--state", "issued", "--station", "CS-0001", "--json").json()["certificates"]
    run("cert", "revoke", rows[0]["id"], "--reason", "keyCompromise")
    refused = run(*CHECK, place / "station.csr", "--json", code=1).json()
    assert "compromised-key" in [rule["rule"] for rule in refused["rules"] if rule["outcome"] == "refuse"]


def test_without_an_inventory_its_rules_are_not_evaluated(fresh: CommandLine) -> None:
    rules = fresh(*CHECK, "-", "--json", stdin=request()).json()["rules"]
    open_ones = {rule["rule"] for rule in rules if rule["outcome"] == "not-evaluated"}
    assert {"key-reuse", "key-renewal", "key-revoked", "replay", "rate", "weak-key"} <= open_ones
    fresh.run(*CHECK, "-", "--station", "CS-0001", stdin=request()).check_one_error(3)
