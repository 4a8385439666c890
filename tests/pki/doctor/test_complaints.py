"""Each complaint about chains that users of charging software brought forward, and the doctor's answer to it."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID

from chargepki.pki import names, private_keys
from chargepki.pki.doctor import ChainReport, Diagnosis, Heap, Party, corrected_bundle, examine
from chargepki.pki.findings import Severity
from chargepki.pki.keys import KeyAlgorithm
from chargepki.pki.pem import pem_blocks, to_pem
from testkit.chains import AT, DAY, Made, hierarchy, make
from testkit.requests import key_of, make_csr

SERVER = (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)
ISSUERS = x509.AuthorityInformationAccess(
    [
        x509.AccessDescription(
            AuthorityInformationAccessOID.CA_ISSUERS, x509.UniformResourceIdentifier("http://a.test/c")
        )
    ]
)


@pytest.fixture(scope="module")
def four() -> tuple[Made, Made, Made, Made]:
    """Root, sub-CA 1, sub-CA 2, leaf."""
    return hierarchy()


def pem(*made: Made) -> bytes:
    return "".join(to_pem("CERTIFICATE", each.der) for each in made).encode()


def key_pem(made: Made) -> bytes:
    return private_keys.serialise_private_key(made.key)


def diagnose(**files: bytes) -> Diagnosis:
    """Examine files whose names have their dots written as two underscores."""
    heap = Heap()
    for name, data in files.items():
        heap.add(data, name.replace("__", "."))
    return examine(heap, at=AT)


def rules(diagnosis: Diagnosis) -> set[str]:
    return {finding.rule for finding in diagnosis.findings}


def message(diagnosis: Diagnosis, rule: str) -> str:
    return next(finding.message for finding in diagnosis.findings if finding.rule == rule)


def leaf_chain(diagnosis: Diagnosis) -> ChainReport:
    (found,) = (each for each in diagnosis.chains if not each.chain.leaf.view.is_ca)
    return found


def objections(report: ChainReport, party: Party) -> set[str]:
    return {finding.rule for each in report.opinions if each.party is party for finding in each.objections}


def blocks(text: str) -> list[bytes]:
    return [block.der for block in pem_blocks(text.encode(), max_bytes=1 << 20)]


def test_chain_in_wrong_order_is_told_and_put_right(four: tuple[Made, ...]) -> None:
    """libevse-security: the chain was returned in the wrong order; everest-demo: weeks lost over bundle order."""
    root, sub1, sub2, leaf = four
    diagnosis = diagnose(chain__pem=pem(root, sub1, leaf, sub2))
    assert {"e_chain_order", "leaf-not-first"} <= rules(diagnosis)
    assert not diagnosis.is_sound
    assert blocks(corrected_bundle(leaf_chain(diagnosis))) == [leaf.der, sub2.der, sub1.der]


def test_leaf_without_its_chain_is_told(four: tuple[Made, ...]) -> None:
    """libevse-security: it was assumed that a chain always comes back; Josev: sub-CAs may be left out."""
    diagnosis = diagnose(leaf__pem=pem(four[3]))
    assert "no CA of it is here" in message(diagnosis, "issuer-missing")
    assert objections(leaf_chain(diagnosis), Party.JAVA) == {"no-issuer"}
    assert not diagnosis.is_sound


def test_unable_to_get_local_issuer_names_the_certificate_that_is_missing(four: tuple[Made, ...]) -> None:
    """everest-demo: "unable to get local issuer certificate at depth 2"."""
    root, sub1, _, _ = four
    sub2 = make("Sub 2 CA", sub1, path_length=0, nth=2, extensions=[(ISSUERS, False)])
    leaf = make("Leaf", sub2, nth=3)
    diagnosis = diagnose(leaf__pem=pem(leaf, sub2), root__pem=pem(root))
    report = leaf_chain(diagnosis)
    assert report.chain.gap is not None
    assert report.chain.gap.issuer == "CN=Sub 1 CA"
    assert report.chain.gap.aia == ("http://a.test/c",)
    assert "not fetched" in message(diagnosis, "issuer-missing")
    assert "openssl-no-root" in objections(report, Party.OPENSSL)


def test_key_that_does_not_match_the_sub_ca_is_told(four: tuple[Made, ...]) -> None:
    """everest-demo: the sub-CA in the bundle has the right name and another key."""
    root, sub1, _, leaf = four
    other = make("Sub 2 CA", sub1, path_length=0, nth=7)
    diagnosis = diagnose(chain__pem=pem(leaf, other, sub1), root__pem=pem(root))
    assert "its key has not signed it" in message(diagnosis, "issuer-other-key")


def test_copies_of_a_pki_that_differ_are_told(four: tuple[Made, ...]) -> None:
    """Josev: the PKI of the EV and that of the station were made at different times, with equal names."""
    root, sub1, sub2, leaf = four
    again = make("Root CA", nth=8)
    diagnosis = diagnose(chain__pem=pem(leaf, sub2, sub1), root__pem=pem(again))
    assert "a copy of the PKI that was made anew" in message(diagnosis, "issuer-other-key")
    assert root.der != again.der


def test_private_key_that_is_not_the_leaf_s_is_told(four: tuple[Made, ...]) -> None:
    """everest-demo: the key beside the certificate belongs to another one."""
    _, _, sub2, leaf = four
    diagnosis = diagnose(station__pem=pem(leaf), station__key=key_pem(sub2), sub2__pem=pem(sub2))
    assert "CN=Sub 2 CA" in message(diagnosis, "key-does-not-fit")


def test_wrong_root_appended_is_told_and_left_out(four: tuple[Made, ...]) -> None:
    """everest-demo: which root goes where."""
    root, sub1, sub2, leaf = four
    stranger = make("Other Root CA", nth=9)
    diagnosis = diagnose(chain__pem=pem(leaf, sub2, sub1, stranger), root__pem=pem(root))
    assert "has signed nothing of this chain" in message(diagnosis, "wrong-root")
    assert stranger.der not in blocks(corrected_bundle(leaf_chain(diagnosis)))


def test_root_beside_a_leaf_whose_sub_ca_is_missing_is_not_called_wrong(four: tuple[Made, ...]) -> None:
    """Whether it signed the chain cannot be seen, and what it did sign in the file is not denied."""
    root, sub1, _, leaf = four
    diagnosis = diagnose(chain__pem=pem(root, sub1, leaf))
    assert "since CN=Sub 2 CA is missing" in message(diagnosis, "root-without-path")
    assert "wrong-root" not in rules(diagnosis)
    order = message(diagnosis, "e_chain_order")
    assert order.startswith(
        "chain.pem#1, chain.pem#2: not on the path upwards from chain.pem#3 (it ends at chain.pem#3: the issuer"
    )


def test_roots_of_one_name_are_told_apart(four: tuple[Made, ...]) -> None:
    """The PKI was made twice, or somebody imitates it: a trust store that goes by the name takes either."""
    again = make("Root CA", nth=8)
    diagnosis = diagnose(ours__pem=pem(four[0]), theirs__crt=again.der)
    assert "CN=Root CA (ours.pem), CN=Root CA (theirs.crt) have one name" in message(diagnosis, "same-name-roots")
    assert diagnosis.is_sound, "two PKIs may lie in one heap"
    for copies in ({"a__pem": pem(four[0]), "b__crt": four[0].der}, {"both__pem": pem(four[0], again)}):
        assert "same-name-roots" not in rules(diagnose(**copies))


def test_rest_of_a_block_that_is_cut_off_is_no_text_outside(four: tuple[Made, ...]) -> None:
    whole = pem(four[0])
    for cut in (whole[:300], whole[:300] + b"\n" + whole, whole[:300] + b"\n-----END X-----\n"):
        assert {"text-cut-off"} <= rules(diagnose(cut__pem=cut))
        assert "text-outside" not in rules(diagnose(cut__pem=cut))
    assert "text-outside" in rules(diagnose(cut__pem=whole[:300] + b"\n-----END X-----\nsubject=CN = x\n"))


def test_root_in_the_bundle_is_accepted_and_not_written(four: tuple[Made, ...]) -> None:
    """open-ocpp: verification fails when the root is not in the chain; does it belong into CertificateSigned?"""
    root, sub1, sub2, leaf = four
    diagnosis = diagnose(chain__pem=pem(leaf, sub2, sub1, root))
    assert diagnosis.is_sound
    report = leaf_chain(diagnosis)
    assert blocks(corrected_bundle(report)) == [leaf.der, sub2.der, sub1.der]
    assert blocks(corrected_bundle(report, with_root=True)) == [leaf.der, sub2.der, sub1.der, root.der]


def test_sub_ca_installed_as_a_root_is_told(four: tuple[Made, ...]) -> None:
    """EVerest: sub-CAs silently trusted; a sub-CA that was installed as a root can never be deleted."""
    diagnosis = diagnose(roots__pem=pem(four[1]))
    assert "no-root-among-cas" in rules(diagnosis)


def test_certificate_that_is_not_valid_yet_is_told_with_its_date(four: tuple[Made, ...]) -> None:
    """libevse-security: leaves that become valid in the future lie beside those in use."""
    root, sub1, sub2, _ = four
    leaf = make("Leaf", sub2, nth=3, start=AT + timedelta(hours=12))
    diagnosis = diagnose(chain__pem=pem(leaf, sub2, sub1), root__pem=pem(root))
    assert objections(leaf_chain(diagnosis), Party.OPENSSL) == {"not-yet-valid"}


def test_root_with_a_key_usage_that_stops_tls_is_told() -> None:
    """Josev: a V2G root whose ExtendedKeyUsage stops TLS; openssl holds roots to it, Java does not."""
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING])
    root = make("Root CA", extensions=[(usage, False)])
    leaf = make("csms.test", root, nth=1, extensions=[SERVER])
    report = leaf_chain(diagnose(chain__pem=pem(leaf), root__pem=pem(root)))
    assert objections(report, Party.OPENSSL) == {"extended-key-usage"}
    assert not objections(report, Party.JAVA)


def test_issuer_name_in_another_encoding_is_told(four: tuple[Made, ...]) -> None:
    """open-ocpp: issuerNameHash is wrong because the name was encoded anew; SteVe: that breaks TLS matching."""
    root = four[0]
    attribute = x509.NameAttribute(NameOID.COMMON_NAME, "Root CA", _type=_ASN1Type.PrintableString)
    respelled = x509.Name([attribute])
    assert names.same(respelled.public_bytes(), root.certificate.subject.public_bytes())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Leaf")])
    key = key_of(KeyAlgorithm.SECP256R1, 3).public_key()
    builder = x509.CertificateBuilder(respelled, subject, key, 7, AT - DAY, AT + DAY)
    assert isinstance(root.key, ec.EllipticCurvePrivateKey)
    leaf = builder.sign(root.key, hashes.SHA256()).public_bytes(Encoding.DER)
    diagnosis = diagnose(leaf__pem=to_pem("CERTIFICATE", leaf).encode(), root__pem=pem(root))
    assert "encoded otherwise" in message(diagnosis, "issuer-respelled")


def mangled() -> Iterator[tuple[str, str]]:
    yield "text-crlf", "SteVe: CRLF in certificates"
    yield "text-outside", "MaEVe: textual subject lines between the certificates"
    yield "text-wrapped-base64", "MaEVe: requests wrapped in base64 once more"
    yield "text-escaped-newlines", "JSON that was pasted into a file"
    yield "text-byte-order-mark", "Windows editors"
    yield "text-utf16", "PowerShell's redirection"
    yield "text-glued-blocks", "cat of files without a final line end"
    yield "text-one-line", "line ends eaten by a web form"
    yield "text-indented", "YAML and Kubernetes secrets"
    yield "text-cr", "old Macs"
    yield "text-begins-with-0", "openssl s_client -showcerts"
    yield "text-label", "a label of long ago"


def mangle(text: str, rule: str) -> bytes:
    first, second = (f"{half}-----END CERTIFICATE-----\n" for half in text.split("-----END CERTIFICATE-----\n")[:2])
    return {
        "text-crlf": text.replace("\n", "\r\n").encode(),
        "text-outside": f"subject=CN = Leaf\nissuer=CN = Sub\n{first}subject=CN = Sub\n{second}".encode(),
        "text-wrapped-base64": base64.encodebytes(text.encode()),
        "text-escaped-newlines": text.replace("\n", "\\n").encode(),
        "text-byte-order-mark": b"\xef\xbb\xbf" + text.encode(),
        "text-utf16": text.encode("utf-16"),
        "text-glued-blocks": (first.rstrip() + second).encode(),
        "text-one-line": text.replace("\n", "").encode(),
        "text-indented": "".join(f"    {line}\n" for line in text.splitlines()).encode(),
        "text-cr": text.replace("\n", "\r").encode(),
        "text-begins-with-0": f"0 s:CN = Leaf\n{first}1 s:CN = Sub\n{second}".encode(),
        "text-label": text.replace("CERTIFICATE", "X509 CERTIFICATE").encode(),
    }[rule]


@pytest.mark.parametrize("rule", [rule for rule, _ in mangled()])
def test_mangled_text_is_told_and_read_all_the_same(four: tuple[Made, ...], rule: str) -> None:
    """CRLF, byte order marks, text before PEM, escaped line ends and their like."""
    root, sub1, sub2, leaf = four
    diagnosis = diagnose(chain__pem=mangle(pem(leaf, sub2).decode(), rule), cas__pem=pem(sub1, root))
    assert rule in rules(diagnosis)
    assert blocks(corrected_bundle(leaf_chain(diagnosis))) == [leaf.der, sub2.der, sub1.der]


def test_new_certificate_request_label_is_told_and_read() -> None:
    """MaEVe: requests under the label NEW CERTIFICATE REQUEST."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "CS-1")])
    request = to_pem("NEW CERTIFICATE REQUEST", make_csr(subject)).encode()
    key = private_keys.serialise_private_key(key_of(KeyAlgorithm.SECP256R1))
    diagnosis = diagnose(station__csr=request, station__key=key)
    assert "text-label" in rules(diagnosis)
    (found,) = (each for each in diagnosis.objects if each.kind == "private-key")
    assert found.fits == ("station.csr",)


def test_contract_without_an_ocsp_address_is_no_error_of_the_chain() -> None:
    """EVerest: Plug & Charge failed when the contract named no OCSP responder, although such contracts exist."""
    root = make("MO Root CA", dc="MO")
    sub = make("MO Sub CA", root, path_length=0, nth=1, dc="MO")
    bits = ("digital_signature", "content_commitment", "key_encipherment", "key_agreement")
    leaf = make("DEABCC00000001", sub, nth=2, bits=bits)
    report = leaf_chain(diagnose(chain__pem=pem(leaf, sub), root__pem=pem(root)))
    assert report.chain.leaf.profile is not None and report.chain.leaf.profile.role == "contract"
    assert not objections(report, Party.CSMS)
    assert not [finding for finding in report.findings if finding.severity is Severity.ERROR]


@pytest.mark.parametrize(("dc", "accepted"), [("MO", True), ("V2G", True), ("OEM", False)])
def test_contract_may_end_in_a_v2g_root_too(dc: str, *, accepted: bool) -> None:
    """EVerest: a contract under a V2G root was not accepted, only under an MO root."""
    root = make("A Root CA", dc=dc)
    sub = make("MO Sub CA", root, path_length=0, nth=1, dc="MO")
    bits = ("digital_signature", "content_commitment", "key_encipherment", "key_agreement")
    leaf = make("DEABCC00000001", sub, nth=2, bits=bits)
    report = leaf_chain(diagnose(chain__pem=pem(leaf, sub), root__pem=pem(root)))
    assert objections(report, Party.STATION) == (set() if accepted else {"wrong-anchor"})


def test_wildcard_server_certificate_is_told_with_its_clause() -> None:
    """libocpp: a wildcard in the CSMS certificate gets an error of its own."""
    root = make("Root CA")
    leaf = make("*.csms.test", root, nth=1, extensions=[SERVER])
    report = leaf_chain(diagnose(chain__pem=pem(leaf), root__pem=pem(root)))
    assert objections(report, Party.STATION) == {"wildcard-host"}
    assert report.is_refused


def test_ca_without_its_issuer_is_told_and_stops_nothing(four: tuple[Made, ...]) -> None:
    """everest-demo: the hash of a certificate needs its parent, and without one the station crashed."""
    diagnosis = diagnose(sub__pem=pem(four[2]))
    (report,) = diagnosis.chains
    assert report.chain.gap is not None and report.chain.gap.issuer == "CN=Sub 1 CA"
    assert {"issuer-missing", "no-root-among-cas"} & rules(diagnosis)


def test_each_key_fits_its_own_generation_of_a_leaf(four: tuple[Made, ...]) -> None:
    """libevse-security: the wrong key was deleted; the key of an expired leaf was taken."""
    root, sub1, sub2, _ = four
    old = make("CS-1", sub2, nth=10, end=AT - timedelta(hours=1))
    new = make("CS-1", sub2, nth=11)
    diagnosis = diagnose(
        cas__pem=pem(sub2, sub1, root),
        old__pem=pem(old),
        new__pem=pem(new),
        a__key=key_pem(new),
        b__key=key_pem(old),
    )
    fits = {each.name: each.fits for each in diagnosis.objects if each.kind == "private-key"}
    assert fits == {"a.key": ("new.pem",), "b.key": ("old.pem",)}
    told = {report.chain.leaf.name: objections(report, Party.OPENSSL) for report in diagnosis.chains}
    assert told == {"old.pem": {"expired"}, "new.pem": set()}
    assert "key-does-not-fit" not in rules(diagnosis)


def test_certificate_that_was_added_twice_is_told_and_written_once(four: tuple[Made, ...]) -> None:
    """libevse-security: adding only what is not there yet was broken, so bundles grew."""
    root, sub1, sub2, leaf = four
    diagnosis = diagnose(chain__pem=pem(leaf, sub2, sub1, sub2), root__pem=pem(root, root))
    assert "e_chain_order" in rules(diagnosis)
    assert blocks(corrected_bundle(leaf_chain(diagnosis))) == [leaf.der, sub2.der, sub1.der]


def test_several_leaves_of_one_station_have_a_chain_each(four: tuple[Made, ...]) -> None:
    """EVerest: several SECC leaves, one for each EVSE."""
    root, sub1, sub2, _ = four
    leaves = [make(f"DE*ACM*E{number}", sub2, nth=12 + number) for number in range(3)]
    bundle = pem(*leaves, sub2, sub1)
    diagnosis = diagnose(all__pem=bundle, root__pem=pem(root))
    chains = [report for report in diagnosis.chains if not report.chain.leaf.view.is_ca]
    assert [blocks(corrected_bundle(report)) for report in chains] == [
        [each.der, sub2.der, sub1.der] for each in leaves
    ]


def test_certificate_that_was_valid_for_a_minute_is_told_with_its_end(four: tuple[Made, ...]) -> None:
    """MaEVe: certificates were made for a minute in place of a year."""
    root, sub1, sub2, _ = four
    leaf = make("Leaf", sub2, nth=3, start=AT - timedelta(minutes=2), end=AT - timedelta(minutes=1))
    report = leaf_chain(diagnose(chain__pem=pem(leaf, sub2, sub1), root__pem=pem(root)))
    assert objections(report, Party.JAVA) == objections(report, Party.OPENSSL) == {"expired"}
    told = next(finding.message for each in report.opinions for finding in each.objections)
    assert "2026-02-28" in told


def test_certificates_of_one_serial_number_are_told(four: tuple[Made, ...]) -> None:
    """Josev: serial numbers are constant, so that two certificates of a CA cannot be told apart."""
    root, sub1, sub2, _ = four
    pair = [make(f"CS-{number}", sub2, nth=12 + number, serial=12348) for number in range(2)]
    diagnosis = diagnose(one__pem=pem(pair[0]), two__pem=pem(pair[1]), cas__pem=pem(sub2, sub1, root))
    assert "e_serial_duplicate_issuer" in rules(diagnosis)


def test_certificate_of_another_key_than_the_request_s_is_told(four: tuple[Made, ...]) -> None:
    """shiv3: a certificate was accepted whose public key is not the one that was asked for."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Leaf")])
    request = to_pem("CERTIFICATE REQUEST", make_csr(subject)).encode()
    diagnosis = diagnose(station__csr=request, station__pem=pem(four[3]))
    assert "another key than CN=Leaf" in message(diagnosis, "request-does-not-fit")
    answer = make("Leaf", four[2], key=key_of(KeyAlgorithm.SECP256R1))
    diagnosis = diagnose(station__csr=request, station__pem=pem(answer), other__pem=pem(four[3]))
    assert "request-does-not-fit" not in rules(diagnosis)
    assert [each.fits for each in diagnosis.objects if each.kind == "csr"] == [("station.pem",)]
