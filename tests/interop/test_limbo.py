"""x509-limbo: every case gets its verdict, or a difference that fixtures/chain/limbo.toml explains.

The vectors are not part of this repository: ``LIMBO_JSON=limbo.json make test`` judges all of a file of theirs. What is
made here in their format keeps the reader and the explanations honest where there is no such file.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import process_time
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from chargepki.pki import oids
from chargepki.pki.chain import Identity, Purpose, Revocation, RevocationMode, WorkBudget, verify_chain
from chargepki.pki.errors import ChainError
from chargepki.pki.lint import lint_certificate
from testkit.chains import AT, DAY, Made, make
from testkit.layout import ROOT
from testkit.limbo import LimboCase, LimboFileError, read_limbo

TABLE = tomllib.loads((ROOT / "fixtures" / "chain" / "limbo.toml").read_text(encoding="utf-8"))["difference"]
FILE = os.environ.get("LIMBO_JSON", "")
PURPOSES = {"SERVER": Purpose.CSMS, "CLIENT": Purpose.CHARGING_STATION}
"""A server is what a station connects to, a client what a CSMS lets in."""
USAGES = {"SERVER": {"serverAuth", "anyExtendedKeyUsage"}, "CLIENT": {"clientAuth", "anyExtendedKeyUsage"}}
CPU_SECONDS = 5
"""More for one case is a hang: some cases are made to cost much."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one case."""

    id: str
    expected: str
    ours: str
    """``SUCCESS``, ``FAILURE``, or the empty string where the case asks for what we have no notion of."""
    why: str
    explained: bool


def cannot_be_asked(case: LimboCase) -> str:
    """Return why *case* asks for what we have no notion of; empty when it does not."""
    if any(name.kind == "RFC822" for name in case.names):
        return "there is no check of e-mail addresses"
    if case.signature_algorithms:
        return "signature algorithms cannot be chosen by the caller"
    if not case.extended_key_usage <= USAGES[case.kind]:
        return "no purpose has that ExtendedKeyUsage"
    if not case.key_usage <= {"digitalSignature"}:
        return "no purpose demands those bits of KeyUsage"
    return ""


def judge(case: LimboCase) -> tuple[str, str]:
    """Return our verdict on *case* and the reason."""
    why = cannot_be_asked(case)
    if why:
        return "", why
    hosts: list[str | None] = [name.value for name in case.names]
    mode = RevocationMode.REQUIRE if case.crls else RevocationMode.OFF
    try:
        for host in hosts or [None]:
            verify_chain(
                case.peer,
                case.intermediates,
                case.anchors,
                purpose=PURPOSES[case.kind],
                at=case.at or datetime.now(UTC),
                budget=WorkBudget() if case.max_depth is None else WorkBudget(depth=case.max_depth),
                revocation=Revocation(mode=mode, crls=case.crls),
                identity=Identity(hostname=host, allow_wildcards=True) if host else None,
            )
    except ChainError as error:
        return "FAILURE", str(error)
    return "SUCCESS", ""


def explains(entry: Mapping[str, Any], case: LimboCase, ours: str) -> bool:
    """Whether *entry* of the table is about *case*, and what it says of its certificates is so."""
    if not case.id.startswith(entry["id"]) or ours != entry["ours"]:
        return False
    if "lint" not in entry:
        return True
    ders = [case.peer, *case.intermediates, *case.anchors]
    found = {finding.rule for der in ders for finding in lint_certificate(der, profile=None).findings}
    return not found.isdisjoint(entry["lint"])


def run(document: Mapping[str, Any]) -> list[Outcome]:
    """Judge every case of a file."""
    outcomes = []
    for case in read_limbo(document):
        start = process_time()
        ours, why = judge(case)
        assert process_time() - start < CPU_SECONDS, case.id
        explained = ours in ("", case.expected) or any(explains(entry, case, ours) for entry in TABLE)
        outcomes.append(Outcome(case.id, case.expected, ours, why, explained))
    return outcomes


def unexplained(outcomes: Sequence[Outcome]) -> list[str]:
    return [
        f"{each.id}: expected {each.expected}, ours {each.ours} ({each.why})" for each in outcomes if not each.explained
    ]


WITHOUT_FILE = pytest.mark.skipif(not FILE, reason="LIMBO_JSON names no file of x509-limbo")
# Under CI a skip is a failure; there the case is left to the campaign, and counted as deselected.
MARKS = [pytest.mark.campaign] if not FILE and os.environ.get("CI") else []


@pytest.mark.parametrize("path", [pytest.param(FILE, marks=[WITHOUT_FILE, *MARKS], id="LIMBO_JSON")])
def test_every_case_of_the_file_gets_its_verdict_or_an_explanation(path: str) -> None:
    outcomes = run(json.loads(Path(path).read_bytes()))
    judged = [each for each in outcomes if each.ours]
    print(f"{len(outcomes)} cases, {len(judged)} judged, {sum(each.ours != each.expected for each in judged)} differ")
    assert judged, "a file without a case that could be judged is no file of x509-limbo"
    assert not unexplained(outcomes)


# ---------------------------------------------------------------- cases in their format, made here

SAN = x509.SubjectAlternativeName([x509.DNSName("example.com")])
SERVER = (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)
CLIENT = (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), False)
ROOT_CA = make("Root CA", nth=0)
SUB_CA = make("Sub CA", ROOT_CA, path_length=0, nth=1)


def leaf(issuer: Made, *extensions: tuple[x509.ExtensionType, bool], **options: Any) -> Made:
    return make("example.com", issuer, nth=2, ca=False, extensions=extensions or ((SAN, False), SERVER), **options)


def case(
    name: str, peer: Made, *bag: Made, root: Made = ROOT_CA, result: str = "SUCCESS", **fields: Any
) -> dict[str, Any]:
    def pem(made: Made) -> str:
        return made.certificate.public_bytes(Encoding.PEM).decode()

    return {
        "id": name,
        "conflicts_with": [],
        "features": [],
        "importance": "undetermined",
        "description": "made by chargepki",
        "validation_kind": "SERVER",
        "trusted_certs": [pem(root)],
        "untrusted_intermediates": [pem(each) for each in bag],
        "peer_certificate": pem(peer),
        "peer_certificate_key": None,
        "validation_time": AT.isoformat(),
        "signature_algorithms": [],
        "key_usage": [],
        "extended_key_usage": [],
        "expected_result": result,
        "expected_peer_name": {"kind": "DNS", "value": "example.com"},
        "expected_peer_names": [],
        "max_chain_depth": None,
        "crls": [],
        **fields,
    }


def crl(*revoked: Made, number: bool = True) -> str:
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(ROOT_CA.certificate.subject)
        .last_update(AT - DAY)
        .next_update(AT + DAY)
    )
    if number:
        builder = builder.add_extension(x509.CRLNumber(1), critical=False)
    for each in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(each.certificate.serial_number).revocation_date(AT - DAY)
        builder = builder.add_revoked_certificate(entry.build())
    key = ROOT_CA.key
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


def made_cases() -> list[dict[str, Any]]:
    good, below = leaf(ROOT_CA), leaf(SUB_CA)
    client = leaf(ROOT_CA, CLIENT)
    critical_aia = x509.AuthorityInformationAccess(
        [
            x509.AccessDescription(
                x509.ObjectIdentifier(oids.AD_CA_ISSUERS), x509.UniformResourceIdentifier("http://a.b/")
            )
        ]
    )
    root_with_eku = make("Root CA", nth=0, extensions=[SERVER])
    wildcard = x509.SubjectAlternativeName([x509.DNSName("*.example.com")])
    host = {"kind": "DNS", "value": "a.example.com"}
    can_sign = leaf(ROOT_CA, bits=("digital_signature", "key_cert_sign"))
    constraint = (x509.NameConstraints([x509.DNSName("example.org")], None), True)
    address = {"kind": "IP", "value": "192.0.2.7"}
    return [
        case("made::direct", good),
        case("made::through-a-sub-ca", below, SUB_CA),
        case("made::missing-sub-ca", below, result="FAILURE"),
        case("made::other-name", good, expected_peer_name={"kind": "DNS", "value": "example.org"}, result="FAILURE"),
        case("made::address", good, expected_peer_name=address, result="FAILURE"),
        case("made::mail", good, expected_peer_name={"kind": "RFC822", "value": "a@example.com"}),
        case("made::client", client, validation_kind="CLIENT", expected_peer_name=None),
        case(
            "made::client-with-names",
            leaf(ROOT_CA, (SAN, False), CLIENT),
            validation_kind="CLIENT",
            expected_peer_name=None,
            expected_peer_names=[host, {"kind": "DNS", "value": "example.com"}],
            result="FAILURE",
        ),
        case("made::key-usage", good, key_usage=["keyAgreement"]),
        case("made::right-key", good, key_usage=["digitalSignature"], peer_certificate_key=pem_of_key(good)),
        case("made::client-as-server", leaf(ROOT_CA, (SAN, False), CLIENT), result="FAILURE"),
        case("made::expired", good, validation_time=(AT + 2 * DAY).isoformat(), result="FAILURE"),
        case("made::too-deep", below, SUB_CA, max_chain_depth=0, result="FAILURE"),
        case("made::deep-enough", below, SUB_CA, max_chain_depth=1),
        case(
            "made::wildcard",
            leaf(ROOT_CA, (wildcard, False)),
            expected_peer_name=host,
        ),
        case("made::not-revoked", good, crls=[crl()]),
        case("made::revoked", good, crls=[crl(good)], result="FAILURE"),
        case("rfc5280::ee-critical-aia-invalid", leaf(ROOT_CA, (SAN, False), (critical_aia, True)), result="FAILURE"),
        case("rfc5280::leaf-ku-keycertsign", can_sign, result="FAILURE"),
        case("rfc5280::serial::too-long", leaf(ROOT_CA, serial=2**159 - 1), result="SUCCESS"),
        case("webpki::root-with-extkeyusage", leaf(root_with_eku), root=root_with_eku, result="FAILURE"),
        case("webpki::cn::not-in-san", leaf(ROOT_CA, SERVER), result="FAILURE"),
        case("webpki::eku::ee-without-eku", leaf(ROOT_CA, (SAN, False)), result="FAILURE"),
        case("webpki::san::no-san", leaf(ROOT_CA, SERVER), result="FAILURE"),
        case("rfc5280::nc::not-allowed-in-ee-critical", leaf(ROOT_CA, (SAN, False), constraint), result="FAILURE"),
        case("pathlen::validation-ignores-pathlen-in-leaf", make("Sub CA", ROOT_CA, nth=1, extensions=[(SAN, False)])),
    ]


def test_cases_made_here_get_their_verdict_or_an_explanation(tmp_path: Path) -> None:
    file = tmp_path / "limbo.json"
    file.write_text(json.dumps({"version": 1, "testcases": made_cases()}), encoding="utf-8")
    outcomes = run(json.loads(file.read_bytes()))
    assert not unexplained(outcomes)
    # Ours must really differ where the table explains it, and nowhere else.
    differing = {each.id for each in outcomes if each.ours and each.ours != each.expected}
    assert all(not name.startswith("made::") for name in differing), outcomes
    assert {"rfc5280::ee-critical-aia-invalid", "webpki::cn::not-in-san", "webpki::root-with-extkeyusage"} <= differing
    assert [each.id for each in outcomes if not each.ours] == ["made::mail", "made::key-usage"]


def test_a_difference_that_nobody_explained_is_found() -> None:
    wrong = case("made::wrong", leaf(ROOT_CA), result="FAILURE")
    # The id is one of the table, and the certificates do not have what the entry says of them.
    pretended = case("rfc5280::leaf-ku-keycertsign", leaf(ROOT_CA), result="FAILURE")
    assert len(unexplained(run({"version": 1, "testcases": [wrong, pretended]}))) == 2


def test_what_the_schema_does_not_have_is_refused() -> None:
    """A field that nobody reads may change the verdict that is expected."""
    good = case("made::good", leaf(ROOT_CA))
    assert not unexplained(run({"version": 1, "testcases": [good]}))
    other = {**case("made::other", leaf(ROOT_CA)), "conflicts_with": ["made::good"]}
    for wrong in (
        [{**good, "new_field": 1}],
        [{key: value for key, value in good.items() if key != "expected_result"}],
        [{**good, "validation_kind": "MAIL"}],
        [{**good, "key_usage": ["everything"]}],
        [{**good, "peer_certificate": "-----BEGIN"}],
        [good, good],
        [good, other],
        [{**good, "peer_certificate_key": pem_of_key(ROOT_CA)}],
    ):
        with pytest.raises(LimboFileError):
            read_limbo({"version": 1, "testcases": wrong})
    with pytest.raises(LimboFileError):
        read_limbo({"version": 2, "testcases": []})


def test_older_files_have_null_for_empty_lists() -> None:
    empty = dict.fromkeys(
        ("features", "key_usage", "extended_key_usage", "signature_algorithms", "expected_peer_names")
    )
    assert not unexplained(run({"version": 1, "testcases": [{**case("made::old", leaf(ROOT_CA)), **empty}]}))


def pem_of_key(made: Made) -> str:
    return made.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def test_every_explanation_is_complete() -> None:
    for entry in TABLE:
        assert entry["ours"] in ("SUCCESS", "FAILURE")
        assert entry["why"] and entry["clause"]
