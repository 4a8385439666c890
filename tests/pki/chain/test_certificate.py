"""What path processing reads of a certificate's bytes is what a plain reader of strict DER finds there, or an error."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import cryptography_vectors
import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from chargepki.pki import der, oids
from chargepki.pki.chain import certificate
from chargepki.pki.chain.certificate import UNDERSTOOD, PathCertificate
from chargepki.pki.chain.usual import read_usual
from chargepki.pki.der import DerError
from chargepki.pki.errors import InputError
from chargepki.pki.keys import KeyAlgorithm
from chargepki.pki.pem import pem_blocks
from testkit.chains import AT, DAY, make
from testkit.effort import examples

LONG_NAMES = x509.SubjectAlternativeName([x509.DNSName(f"host-{number}.example.org") for number in range(12)])
SHORT_NAMES = x509.SubjectAlternativeName([x509.DNSName("csms.example.org")])
SAMPLES = tuple(
    made.der
    for made in (
        make("Root CA", path_length=1, nth=0),
        make("Sub CA", make("Root CA", nth=0), path_length=0, nth=1, start=AT, end=AT + timedelta(days=20_000)),
        make("Leaf", nth=2, dc="CPO", extensions=[(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)]),
        make("Other leaf", nth=3, algorithm=KeyAlgorithm.SECP521R1, extensions=[(LONG_NAMES, True)]),
        make("Odd", nth=4, extensions=[(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.99"), b"\5\0"), True)]),
        make("Bare", nth=5, bare=True),
    )
)
OCTETS = (0, 1, 2, 3, 4, 6, 0x17, 0x18, 0x30, 0x7F, 0x80, 0x81, 0x82, 0xA0, 0xA3, 0xFF)


def read_plainly(data: bytes) -> dict[str, object]:
    """Read with the general reader alone, without a thought for speed. Raises `DerError`."""
    tbs, outer, signature = der.parse(data).children(der.SEQUENCE)
    fields = list(tbs.children(der.SEQUENCE))
    version = fields.pop(0).child().as_integer() if fields[0].tag == 0xA0 else 0
    serial, algorithm, issuer, validity, subject, spki, *rest = fields
    not_before, not_after = validity.children(der.SEQUENCE)
    extensions: dict[bytes, bytes] = {}
    unknown = duplicate = ""
    for holder in rest:
        for each in holder.child().children(der.SEQUENCE) if holder.tag == 0xA3 else ():
            name, *flag, value = each.children(der.SEQUENCE)
            critical = bool(flag) and flag[0].as_boolean()
            if name.content in extensions:
                duplicate = duplicate or name.as_oid()
                continue
            extensions[name.content] = value.as_octets()
            if critical and name.as_oid() not in UNDERSTOOD:
                unknown = unknown or name.as_oid()
    unused, bits = signature.as_bit_string()
    assert not unused
    return {
        "tbs": tbs.raw,
        "outer_algorithm": outer.expect(der.SEQUENCE).raw,
        "signature": bits,
        "version": version,
        "serial": serial.as_integer(),
        "algorithm": algorithm.expect(der.SEQUENCE).raw,
        "issuer": issuer.expect(der.SEQUENCE).raw,
        "not_before": not_before.as_time(),
        "not_after": not_after.as_time(),
        "subject": subject.expect(der.SEQUENCE).raw,
        "spki": spki.expect(der.SEQUENCE).raw,
        "extensions": extensions,
        "unknown_critical": unknown,
        "duplicate": duplicate,
    }


def agree(data: bytes) -> bool:
    """Compare both readers; return whether the certificate could be read."""
    try:
        found = PathCertificate(data)
    except DerError:
        return False
    # What is accepted must be what the plain reader reads, and it must not refuse it either.
    assert {name: getattr(found, name) for name in read_plainly(data)} == read_plainly(data)
    return True


@pytest.mark.parametrize("data", SAMPLES)
def test_every_sample_is_read_as_the_plain_reader_reads_it(data: bytes) -> None:
    assert agree(data)
    assert PathCertificate(data).label


@given(st.sampled_from(SAMPLES), st.data())
@settings(max_examples=examples(250), deadline=None)
def test_every_changed_certificate_is_read_alike_or_refused(data: bytes, draw: st.DataObject) -> None:
    changed = bytearray(data)
    for _ in range(draw.draw(st.integers(1, 3))):
        at = draw.draw(st.integers(0, max(len(changed) - 1, 0)))
        octet = draw.draw(st.sampled_from(OCTETS))
        how = draw.draw(st.sampled_from(["set", "flip", "insert", "delete", "cut"]))
        if how == "set":
            changed[at : at + 1] = bytes([octet])
        elif how == "flip" and changed:
            changed[at] ^= 1 << draw.draw(st.integers(0, 7))
        elif how == "insert":
            changed[at:at] = bytes([octet])
        elif how == "delete":
            del changed[at : at + 2]
        else:
            del changed[at:]
    agree(bytes(changed))


FIELDS = (
    *("tbs", "algorithm", "outer_algorithm", "issuer", "valid_from", "valid_until", "subject", "spki", "signature"),
    *("version", "serial", "extensions", "restricts", "unknown_critical", "duplicate"),
    *("is_ca", "is_issuer", "is_faulty", "path_length", "key_usage"),
)


def read_with_care(data: bytes) -> dict[str, object]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(certificate, "read_usual", lambda _: None)
        found = PathCertificate(data)
    return {name: getattr(found, name) for name in FIELDS}


def quickly(data: bytes) -> bool:
    """Whether patterns answer for *data*; what they answer must be what careful reading finds."""
    try:
        if read_usual(data) is None:
            return False
    except (IndexError, KeyError):
        return False
    found = PathCertificate(data)
    assert {name: getattr(found, name) for name in FIELDS} == read_with_care(data)
    return True


def test_patterns_answer_for_certificates_of_the_usual_shape() -> None:
    """Long names, unknown extensions and a list without any are not for them."""
    assert [quickly(data) for data in SAMPLES] == [True, True, True, False, False, False]
    for algorithm in KeyAlgorithm:
        if algorithm in (KeyAlgorithm.RSA3072, KeyAlgorithm.RSA4096):
            continue  # like the shorter one, and their keys take seconds
        if algorithm.value.startswith("ml-dsa"):
            continue  # experimental, and read with care
        issuer = make("Issuer " + "I" * 50, nth=6, algorithm=algorithm)
        leaf = make("Leaf", issuer, nth=7, ca=False, algorithm=algorithm, extensions=[(SHORT_NAMES, False)])
        assert quickly(leaf.der), algorithm


def test_no_octet_makes_patterns_see_what_careful_reading_does_not() -> None:
    answered = 0
    data = SAMPLES[1]
    for at in range(len(data)):
        for octet in (0, 1, 0x30, 0x81, data[at] ^ 1, data[at] ^ 4):
            answered += quickly(data[:at] + bytes((octet,)) + data[at + 1 :])
    assert answered > 500  # those where only a signature, a key or a name has changed


def _with_list(data: bytes, listed: bytes) -> bytes:
    """Return *data* with other octets in its list of extensions."""
    tbs, *rest = der.parse(data).children(der.SEQUENCE)
    *fields, _ = (each.raw for each in tbs.children(der.SEQUENCE))
    tail = der.explicit(3, der.tlv(0x30, listed))
    return der.sequence(der.sequence(*fields, tail), *(each.raw for each in rest))


POINTS = bytes.fromhex("0603551d1f04")
CONSTRAINTS = bytes.fromhex("30090603551d130402")


@pytest.mark.parametrize(
    "listed",
    [
        pytest.param(b"\x30\x87" + POINTS + b"\x80" + bytes(0x80), id="a length that speaks of seven octets of length"),
        pytest.param(b"\x30\x10" + POINTS + b"\x09" + bytes(8), id="an extension beyond the end of the list"),
        pytest.param(CONSTRAINTS + b"\x30\x03\x01\x01\xff", id="a value longer than its header says"),
    ],
)
def test_lengths_that_only_seem_to_add_up_are_refused(listed: bytes) -> None:
    names = der.sequence(der.tlv(0x82, b"h" * 90))
    filler = der.sequence(der.oid(oids.SUBJECT_ALTERNATIVE_NAME), der.octet_string(names))
    assert quickly(_with_list(SAMPLES[1], filler))
    for wrong in (filler + listed, listed + filler):
        with pytest.raises(DerError):
            PathCertificate(_with_list(SAMPLES[1], wrong))


@pytest.mark.parametrize("algorithm", [KeyAlgorithm.SECP521R1, KeyAlgorithm.RSA2048])
def test_a_signature_whose_length_is_another_is_refused(algorithm: KeyAlgorithm) -> None:
    data = make("Leaf", make("Issuer", nth=6, algorithm=algorithm), nth=7, ca=False).der
    assert quickly(data)
    at = len(data) - len(PathCertificate(data).signature) - 2
    for other in (data[at] - 1, data[at] + 1):
        with pytest.raises(DerError):
            PathCertificate(data[:at] + bytes((other,)) + data[at + 1 :])


def test_a_superfluous_octet_of_a_serial_number_is_seen() -> None:
    data = SAMPLES[1]
    for first, second in ((0, 0x7F), (0xFF, 0x80)):
        with pytest.raises(DerError):
            PathCertificate(data[:15] + bytes((first, second)) + data[17:])


def test_patterns_and_careful_reading_agree_on_foreign_certificates() -> None:
    folder = Path(cryptography_vectors.__file__).parent / "x509"
    answered = 0
    for file in sorted(folder.rglob("*.pem")):
        try:
            ders = [block.der for block in pem_blocks(file.read_bytes(), max_bytes=1 << 20)]
        except InputError:
            continue
        answered += sum(map(quickly, ders))
    for file in sorted(folder.rglob("*.crt")):
        answered += quickly(file.read_bytes())
    assert answered > 100


def test_every_cut_certificate_is_refused() -> None:
    for data in SAMPLES:
        for length in range(len(data)):
            with pytest.raises(DerError):
                PathCertificate(data[:length])
        with pytest.raises(DerError):
            PathCertificate(data + b"\0")


def test_a_length_of_two_octets_in_an_extension_does_not_pass_for_a_short_one() -> None:
    """Lengths that would add up if their first octet were taken for the length itself."""
    good = make("Leaf", nth=2, bare=True, extensions=[(x509.SubjectKeyIdentifier(b"12345678"), False)]).der
    extension = der.sequence(der.oid(oids.SUBJECT_KEY_IDENTIFIER), der.octet_string(der.octet_string(b"12345678")))
    at = good.index(extension)
    assert agree(good)
    for first, second in ((0x87, 0x80), (0x88, 0x81), (0x90, 0x89)):
        forged = bytearray(good)
        forged[at + 1], forged[at + 8] = first, second
        assert not agree(bytes(forged))


def test_attributes_are_found_in_single_and_multiple_relative_names() -> None:
    def attribute(dotted: str, value: str) -> bytes:
        return der.sequence(der.oid(dotted), der.utf8_string(value))

    inner = der.set_of(attribute(oids.COMMON_NAME, "three")).decode("latin-1")
    name = der.sequence(
        der.set_of(attribute(oids.COMMON_NAME, "one")),
        der.set_of(attribute(oids.ORGANIZATION_NAME, "both"), attribute(oids.COMMON_NAME, "two")),
        # A value that looks like a relative name with a CN is a value.
        der.set_of(attribute(oids.ORGANIZATION_NAME, inner)),
        der.set_of(attribute(oids.COMMON_NAME, "x" * 200)),
    )
    old = make("Leaf", nth=2).certificate.subject.public_bytes()
    template = make("Leaf", make("Root CA", nth=0), nth=2)
    assert template.der.count(old) == 1
    found = PathCertificate(_with_subject(template.der, name))
    assert found.subject_values(oids.COMMON_NAME) == ["one", "two", "x" * 200]
    assert len(found.subject_values(oids.ORGANIZATION_NAME)) == 2
    assert found.subject_values(oids.DOMAIN_COMPONENT) == []
    broken = PathCertificate(
        _with_subject(template.der, der.sequence(der.sequence(attribute(oids.COMMON_NAME, "one"))))
    )
    assert broken.subject_values(oids.COMMON_NAME) == []


def _with_subject(data: bytes, name: bytes) -> bytes:
    tbs, *rest = der.parse(data).children(der.SEQUENCE)
    fields = [each.raw for each in tbs.children(der.SEQUENCE)]
    fields[5] = name
    return der.sequence(der.sequence(*fields), *(each.raw for each in rest))


def test_common_names_of_cryptography_and_ours_agree() -> None:
    for data in SAMPLES:
        theirs = x509.load_der_x509_certificate(data).subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        assert PathCertificate(data).subject_values(oids.COMMON_NAME) == [each.value for each in theirs]


def test_both_ends_of_the_validity_come_from_either_kind_of_time() -> None:
    late = PathCertificate(SAMPLES[1])
    assert (late.not_before, late.not_after) == (AT, AT + timedelta(days=20_000))
    assert PathCertificate(SAMPLES[0]).not_before == AT - DAY
