"""What the doctor says of openssl and Java is what openssl and Java do; key stores of Java's own tool are read."""

from __future__ import annotations

import functools
import re
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, pkcs12
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID

from chargepki.pki import oids, private_keys
from chargepki.pki.doctor import Diagnosis, Heap, Party, corrected_bundle, examine
from chargepki.pki.pem import to_pem
from testkit.chains import Made, make
from testkit.foreign import ChainCase, FileCase, Tool, judge_chains, judge_files, missing, need, run

pytestmark = pytest.mark.foreign

NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)
Extensions = Sequence[tuple[x509.ExtensionType, bool]]
SERVER: Extensions = [(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)]
CODE: Extensions = [(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), False)]
ANY: Extensions = [(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]), False)]
NO_CA = (x509.BasicConstraints(ca=False, path_length=None), True)
URL = x509.UniformResourceIdentifier("http://pki.test/x")
AIA = x509.AuthorityInformationAccess([x509.AccessDescription(AuthorityInformationAccessOID.OCSP, URL)])
CRLDP = x509.CRLDistributionPoints([x509.DistributionPoint([URL], None, None, None)])
PASSPHRASE = "correct horse"


def pem(*made: Made) -> bytes:
    return "".join(to_pem("CERTIFICATE", each.der) for each in made).encode()


def diagnose(*files: tuple[str, bytes]) -> Diagnosis:
    heap = Heap(lambda: (PASSPHRASE.encode(),))
    for name, data in files:
        heap.add(data, name)
    return examine(heap, at=NOW)


def alive(
    name: str,
    issuer: Made | None = None,
    *,
    nth: int = 0,
    path_length: int | None = None,
    extensions: Extensions = (),
    bits: Sequence[str] | None = None,
    bare: bool = False,
    start: datetime = NOW - DAY,
    end: datetime = NOW + DAY,
) -> Made:
    """Make a certificate for the machine's own clock, which the tools use."""
    return make(
        name,
        issuer,
        nth=nth,
        path_length=path_length,
        extensions=extensions,
        bits=bits,
        bare=bare,
        start=start,
        end=end,
    )


@functools.cache
def chains() -> dict[str, tuple[tuple[Made, ...], Made]]:
    """Return chains (leaf first) with their roots, by what is special about each."""
    past = (NOW - 3 * DAY, NOW - DAY)
    root, code_root = alive("Root CA"), alive("Root CA", extensions=CODE)
    sub = alive("Sub CA", root, nth=1, path_length=0)
    deep = alive("Deep CA", sub, nth=3)
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(sub.key.public_key())
    own = x509.SubjectKeyIdentifier.from_public_key(sub.key.public_key())

    def leaf(*more: tuple[x509.ExtensionType, bool], issuer: Made = sub, bare: bool = False) -> Made:
        return alive("csms.test", issuer, nth=2, extensions=[*SERVER, *more], bare=bare)

    plain = leaf()
    old = alive("csms.test", sub, nth=2, extensions=SERVER, start=past[0], end=past[1])
    young = alive("csms.test", sub, nth=2, extensions=SERVER, start=NOW + DAY / 2)
    return {
        "sound": ((plain, sub), root),
        "expired leaf": ((old, sub), root),
        "leaf of the future": ((young, sub), root),
        "expired sub-CA": ((plain, alive("Sub CA", root, nth=1, start=past[0], end=past[1])), root),
        "expired root": ((plain, sub), alive("Root CA", start=past[0], end=past[1])),
        "sub-CA that may not sign": ((plain, alive("Sub CA", root, nth=1, bits=("crl_sign",))), root),
        "path too long": ((leaf(issuer=deep), deep, sub), root),
        "leaf restricted to code": ((alive("csms.test", sub, nth=2, extensions=[*CODE, DNS]), sub), root),
        "leaf with any usage": ((alive("csms.test", sub, nth=2, extensions=[*ANY, DNS]), sub), root),
        "sub-CA restricted to code": ((plain, alive("Sub CA", root, nth=1, extensions=CODE)), root),
        "sub-CA with any usage": ((plain, alive("Sub CA", root, nth=1, extensions=ANY)), root),
        "root restricted to code": ((plain, sub), code_root),
        "critical AIA": ((leaf((AIA, True)), sub), root),
        "critical CRLDP": ((leaf((CRLDP, True)), sub), root),
        "critical AKI": ((leaf(NO_CA, (identifier, True), bare=True), sub), root),
        "critical SKI": ((leaf(NO_CA, (own, True), bare=True), sub), root),
    }


DNS: tuple[x509.ExtensionType, bool] = (x509.SubjectAlternativeName([x509.DNSName("csms.test")]), False)


@pytest.mark.parametrize(("tool", "party"), [(Tool.OPENSSL, Party.OPENSSL), (Tool.JAVA, Party.JAVA)], ids=str)
def test_objections_of_a_tool_are_its_own(tool: Tool, party: Party) -> None:
    need(tool)
    made = chains()
    usage = oids.EKU_SERVER_AUTH
    cases = [
        ChainCase(name, tuple(each.der for each in path), root.der, None, usage) for name, (path, root) in made.items()
    ]
    verdicts = judge_chains(tool, cases)
    told = {}
    for name, (path, root) in made.items():
        report = next(
            each
            for each in diagnose(("chain.pem", pem(*path)), ("root.pem", pem(root))).chains
            if each.chain.leaf.der == path[0].der
        )
        told[name] = next(each.accepts for each in report.opinions if each.party is party)
    assert told == {name: verdict.accepted for name, verdict in verdicts.items()}, verdicts


def test_openssl_trusts_no_sub_ca_and_java_does() -> None:
    need(Tool.OPENSSL, Tool.JAVA)
    (leaf, sub), _ = chains()["sound"]
    case = ChainCase("sub-CA trusted", (leaf.der,), sub.der)
    (report,) = diagnose(("chain.pem", pem(leaf, sub))).chains
    for tool, party in ((Tool.OPENSSL, Party.OPENSSL), (Tool.JAVA, Party.JAVA)):
        accepts = next(each.accepts for each in report.opinions if each.party is party)
        assert judge_chains(tool, [case])["sub-CA trusted"].accepted is accepts


def test_file_that_does_not_begin_with_the_leaf_is_refused_by_both(tmp_path: Path) -> None:
    need(Tool.JAVA)
    (leaf, sub), root = chains()["sound"]
    key = tmp_path / "server.key"
    key.write_text(private_keys.serialise_private_key(leaf.key).decode())
    wrong, right = tmp_path / "wrong.pem", tmp_path / "right.pem"
    wrong.write_bytes(pem(sub, leaf))
    diagnosis = diagnose(("wrong.pem", wrong.read_bytes()), ("root.pem", pem(root)))
    assert "leaf-not-first" in {finding.rule for finding in diagnosis.findings}
    right.write_text(corrected_bundle(diagnosis.chains[0]))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with pytest.raises(ssl.SSLError, match="KEY_VALUES_MISMATCH"):
        context.load_cert_chain(wrong, key)
    context.load_cert_chain(right, key)
    cases = [ChainCase("wrong", (sub.der, leaf.der), root.der), ChainCase("right", (leaf.der, sub.der), root.der)]
    assert {name: each.accepted for name, each in judge_chains(Tool.JAVA, cases).items()} == {
        "wrong": False,
        "right": True,
    }


def mangled(text: str) -> dict[str, bytes]:
    """Return *text* (two certificates) mangled, by the rule that tells of it."""
    first, second = (f"{half}-----END CERTIFICATE-----\n" for half in text.split("-----END CERTIFICATE-----\n")[:2])
    return {
        "sound": text.encode(),
        "text-crlf": text.replace("\n", "\r\n").encode(),
        "text-byte-order-mark": b"\xef\xbb\xbf" + text.encode(),
        "text-utf16": text.encode("utf-16"),
        "text-escaped-newlines": text.replace("\n", "\\n").encode(),
        "text-glued-blocks": (first.rstrip() + second).encode(),
        "text-indented": "".join(f"  {line}\n" for line in text.splitlines()).encode(),
        "text-cr": text.replace("\n", "\r").encode(),
        "text-one-line": text.replace("\n", "").encode(),
        "text-outside": f"subject=CN = x\n{first}subject=CN = y\n{second}".encode(),
        "text-begins-with-0": f"0 s:CN = x\n{first}1 s:CN = y\n{second}".encode(),
        "text-label": text.replace("CERTIFICATE", "X509 CERTIFICATE").encode(),
    }


@pytest.mark.parametrize(("tool", "name"), [(Tool.OPENSSL, "openssl"), (Tool.JAVA, "Java")], ids=str)
def test_what_a_tool_reads_of_mangled_text_is_what_is_said_of_it(tool: Tool, name: str) -> None:
    need(tool)
    files = mangled(pem(*chains()["sound"][0]).decode())
    verdicts = judge_files(tool, [FileCase(rule, data, 2) for rule, data in files.items()])
    for rule, data in files.items():
        found = [each for each in diagnose(("mangled.pem", data)).files[0].findings if each.rule.startswith("text-")]
        assert rule == "sound" or rule in {each.rule for each in found}
        refused = any(UNREADABLE[name].search(each.message) for each in found)
        assert verdicts[rule].accepted is not refused, (rule, verdicts[rule])


UNREADABLE = {
    "openssl": re.compile(r"openssl (nor Java reads|does not read)"),
    "Java": re.compile(r"nor Java reads|Java (does not|takes it for DER and does not) read"),
}


@pytest.mark.campaign
def test_key_store_of_java_is_read(tmp_path: Path) -> None:
    if reason := missing("keytool", "default-jdk-headless"):
        pytest.skip(reason)
    (leaf, sub), root = chains()["sound"]
    source, store = tmp_path / "source.p12", tmp_path / "store.jks"
    sealed = BestAvailableEncryption(PASSPHRASE.encode())
    cas = [sub.certificate, root.certificate]
    assert isinstance(leaf.key, ec.EllipticCurvePrivateKey)
    source.write_bytes(pkcs12.serialize_key_and_certificates(b"leaf", leaf.key, leaf.certificate, cas, sealed))
    names = ("-srckeystore", source, "-destkeystore", store, "-deststoretype", "jks")
    secrets = ("-srcstorepass", PASSPHRASE, "-deststorepass", PASSPHRASE)
    done = run("keytool", "-J-XX:TieredStopAtLevel=1", "-importkeystore", "-noprompt", *names, *secrets)
    assert store.exists(), done.stdout + done.stderr
    diagnosis = diagnose(("store.jks", store.read_bytes()))
    (report,) = diagnosis.chains
    assert [node.der for node in report.chain.path] == [leaf.der, sub.der, root.der]
    assert report.keys == ("store.jks#leaf",)
