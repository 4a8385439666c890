"""The oracle of hash data: every known mistake is recognised, and nothing else is taken for a mistake.

The wrong values are computed here by other means than the oracle's wherever a second way exists: the published values
of ocpp-security 7.1, `cryptography`'s encoders, and plain text.
"""

from __future__ import annotations

import hashlib
import itertools
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from chargepki.pki import der
from chargepki.pki.errors import InputError
from chargepki.pki.hashdata import CertificateHashData
from chargepki.pki.hashdata_defects import MEANINGS, HashDefect, write_wrongly
from chargepki.pki.hashdata_oracle import Diagnosis, KnownCertificate, Match, diagnose_hash_data
from chargepki.pki.keys import KeyAlgorithm
from testkit.chains import make
from testkit.effort import examples

# A name of three parts in string types that a library would choose otherwise.
ROOT = make("Root CA", dc="V2G", serial=0x7B5C0FFEE123456789ABCDEF00112233445566)
MIDDLE = make("Middle CA", ROOT, dc="V2G", serial=0x3B5C0FFEE123456789ABCDEF00112233445566, nth=3)
SUB = make("Sub CA", MIDDLE, dc="V2G", serial=0x0A1B2C3D4E5F60718293A4B5C6D7E8F9, nth=1)
RSA = make("Other CA", algorithm=KeyAlgorithm.RSA2048, serial=4096)
SMALL = make("Small CA", serial=10, nth=2)
KNOWN = (
    KnownCertificate("root", ROOT.der, ROOT.der),
    KnownCertificate("sub", SUB.der, MIDDLE.der),
    KnownCertificate("rsa", RSA.der, RSA.der),
    KnownCertificate("small", SMALL.der, SMALL.der),
    KnownCertificate("middle", MIDDLE.der, ROOT.der),
)


def right(number: int, algorithm: str = "SHA256") -> dict[str, str]:
    known = KNOWN[number]
    assert known.issuer_der is not None
    return CertificateHashData.of(known.der, known.issuer_der, algorithm).to_wire()


def found(report: dict[str, str]) -> tuple[str | None, tuple[HashDefect, ...]]:
    diagnosis = diagnose_hash_data(report, KNOWN)
    return diagnosis.certificate.label if diagnosis.certificate else None, diagnosis.defects


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def first_defect(value: object) -> str:
    """Name a case alike in every process; the keys, and so the hashes, are others in each."""
    return str(value[0]) if isinstance(value, tuple) and value else type(value).__name__


def spki(key: x509.Certificate) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize("algorithm", ["SHA256", "SHA384", "SHA512"])
@pytest.mark.parametrize("number", range(5))
def test_right_hash_data_are_an_exact_match(number: int, algorithm: str) -> None:
    assert diagnose_hash_data(right(number, algorithm), KNOWN) == Diagnosis(Match.EXACT, KNOWN[number])


def test_the_two_usual_mistakes_of_the_published_vector_are_named() -> None:
    """ocpp-security 7.1: typical wrong results for the key of private scalar 1."""
    key = ec.derive_private_key(1, ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Example Root")])
    start = datetime(2026, 1, 1, tzinfo=UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 4095, start, start + timedelta(days=1))
    encoded = builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)
    known = KnownCertificate("vector", encoded, encoded)
    report = CertificateHashData.of(encoded, encoded).to_wire()
    for value, defect in (
        ("5cd252fb0ce8932436faf8ccd1040981b89ee4ad6b9fe9e2a2b7e71aacb27cd3", HashDefect.KEY_INFO),
        ("b5b0a1f2475d671b246cf156c18bcdc73119a1c1507582ee57ca8041667f47e3", HashDefect.KEY_UNUSED_BITS),
    ):
        diagnosis = diagnose_hash_data({**report, "issuerKeyHash": value}, [known])
        assert (diagnosis.match, diagnosis.defects) == (Match.DEFECTIVE, (defect,))
        assert diagnosis.explain() == [MEANINGS[defect]]


def _name_forms() -> dict[str, tuple[HashDefect, ...]]:
    def encode(*parts: tuple[str, bytes]) -> bytes:
        return der.sequence(*(der.set_of(der.sequence(der.oid(oid), value)) for oid, value in parts))

    cn, dc = "2.5.4.3", "0.9.2342.19200300.100.1.25"
    utf8 = encode((dc, der.utf8_string("V2G")), (cn, der.utf8_string("Middle CA")))
    printable = encode((dc, der.ia5_string("V2G")), (cn, der.printable_string("Middle CA")))
    reverse = encode((cn, der.utf8_string("Middle CA")), (dc, der.ia5_string("V2G")))
    # OpenSSL's X509_NAME_hash input: every RDN of lower-case UTF8Strings, one after the other, without a SEQUENCE.
    folded = encode((dc, der.utf8_string("v2g")), (cn, der.utf8_string("middle ca")))[2:]
    return {
        sha256(utf8): (HashDefect.NAME_REENCODED,),
        sha256(printable): (HashDefect.NAME_REENCODED,),
        sha256(reverse): (HashDefect.NAME_REVERSED,),
        sha256(folded): (HashDefect.NAME_CANONICAL,),
        sha256(b"/DC=V2G/CN=Middle CA"): (HashDefect.NAME_TEXT,),
        sha256(MIDDLE.certificate.subject.rfc4514_string().encode()): (HashDefect.NAME_TEXT,),
        sha256(b"DC = V2G, CN = Middle CA"): (HashDefect.NAME_TEXT,),
        sha256(SUB.certificate.subject.public_bytes()): (HashDefect.NAME_OF_SUBJECT,),
        sha256(MIDDLE.certificate.subject.public_bytes()[2:]): (HashDefect.NAME_WITHOUT_HEADER,),
    }


@pytest.mark.parametrize(("value", "defects"), _name_forms().items(), ids=first_defect)
def test_a_hash_over_something_else_than_the_issuers_name_is_named(value: str, defects: tuple[HashDefect, ...]) -> None:
    assert found({**right(1), "issuerNameHash": value}) == ("sub", defects)


def _key_forms() -> list[tuple[int, str, tuple[HashDefect, ...]]]:
    root, sub = MIDDLE.key.public_key(), SUB.key.public_key()
    assert isinstance(root, ec.EllipticCurvePublicKey)
    assert isinstance(sub, ec.EllipticCurvePublicKey)
    rsa_key = RSA.key.public_key()
    assert isinstance(rsa_key, rsa.RSAPublicKey)
    point = root.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    modulus = rsa_key.public_numbers().n.to_bytes(256, "big")
    own = sub.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return [
        (1, sha256(spki(MIDDLE.certificate)), (HashDefect.KEY_INFO,)),
        (1, sha256(b"\0" + point), (HashDefect.KEY_UNUSED_BITS,)),
        (1, sha256(der.bit_string(point)), (HashDefect.KEY_BIT_STRING,)),
        (
            1,
            sha256(root.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)),
            (HashDefect.KEY_COMPRESSED,),
        ),
        (1, sha256(own), (HashDefect.KEY_OF_SUBJECT,)),
        (1, sha256(spki(SUB.certificate)), (HashDefect.KEY_INFO, HashDefect.KEY_OF_SUBJECT)),
        (1, MIDDLE.certificate.fingerprint(hashes.SHA256()).hex(), (HashDefect.KEY_CERTIFICATE,)),
        (
            1,
            SUB.certificate.fingerprint(hashes.SHA256()).hex(),
            (HashDefect.KEY_OF_SUBJECT, HashDefect.KEY_CERTIFICATE),
        ),
        (1, hashlib.sha1(point, usedforsecurity=False).hexdigest(), (HashDefect.OTHER_HASH,)),
        (1, hashlib.sha384(point).hexdigest(), (HashDefect.OTHER_HASH,)),
        (2, sha256(modulus), (HashDefect.KEY_MODULUS,)),
        (2, sha256(b"\0" + modulus), (HashDefect.KEY_MODULUS,)),
    ]


@pytest.mark.parametrize(("number", "value", "defects"), _key_forms(), ids=first_defect)
def test_a_hash_over_something_else_than_the_issuers_key_is_named(
    number: int, value: str, defects: tuple[HashDefect, ...]
) -> None:
    assert found({**right(number), "issuerKeyHash": value}) == (KNOWN[number].label, defects)


@pytest.mark.parametrize(
    ("number", "text", "defects"),
    [
        (1, str(SUB.certificate.serial_number), (HashDefect.SERIAL_DECIMAL,)),
        (1, "0A1B2C3D4E5F60718293A4B5C6D7E8F9", (HashDefect.UPPER_CASE, HashDefect.SERIAL_PADDED)),
        (1, "0x" + right(1)["serialNumber"], (HashDefect.SERIAL_PREFIXED,)),
        (1, "0a:1b:2c:3d:4e:5f:60:71:82:93:a4:b5:c6:d7:e8:f9", (HashDefect.SERIAL_SEPARATED,)),
        (1, "02100a1b2c3d4e5f60718293a4b5c6d7e8f9", (HashDefect.SERIAL_PADDED, HashDefect.SERIAL_DER)),
        (1, "8293a4b5c6d7e8f9", (HashDefect.SERIAL_64_BITS,)),
        (1, f"{int(float(SUB.certificate.serial_number)):x}", (HashDefect.SERIAL_ROUNDED,)),
        (1, right(1)["serialNumber"][:20], (HashDefect.SERIAL_CUT,)),
        (1, "f9e8d7c6b5a493827160" + "5f4e3d2c1b0a", (HashDefect.SERIAL_REVERSED,)),
        (1, right(4)["serialNumber"], (HashDefect.SERIAL_OF_ISSUER,)),
        (2, "1000", ()),
        (2, "4096", (HashDefect.SERIAL_DECIMAL,)),
        (2, "00001000", (HashDefect.SERIAL_PADDED,)),
        (3, "0a", (HashDefect.SERIAL_PADDED,)),
        (3, "A", (HashDefect.UPPER_CASE,)),
        (3, "10", (HashDefect.SERIAL_DECIMAL,)),
    ],
)
def test_a_wrongly_written_serial_number_is_named(number: int, text: str, defects: tuple[HashDefect, ...]) -> None:
    assert found({**right(number), "serialNumber": text}) == (KNOWN[number].label, defects)


def test_case_swapped_fields_and_base64_are_named() -> None:
    report = right(1)
    upper = {name: text.upper() for name, text in report.items()}
    assert diagnose_hash_data(upper, KNOWN).match is Match.EXACT
    assert found(upper) == ("sub", (HashDefect.UPPER_CASE,))
    mixed = {**upper, "serialNumber": report["serialNumber"]}
    assert found(mixed) == ("sub", (HashDefect.UPPER_CASE, HashDefect.SERIAL_LOWER_CASE))
    swapped = {**report, "issuerNameHash": report["issuerKeyHash"], "issuerKeyHash": report["issuerNameHash"]}
    assert found(swapped) == ("sub", (HashDefect.FIELDS_SWAPPED,))
    standard = write_wrongly(SUB.der, MIDDLE.der, frozenset({HashDefect.BASE64}))
    assert found(standard) == ("sub", (HashDefect.BASE64,))
    urlsafe = {name: text.replace("+", "-").replace("/", "_").rstrip("=") for name, text in standard.items()}
    assert found(urlsafe) == ("sub", (HashDefect.BASE64,))


# One defect of each kind at most; what a station can have at once.
NAMES = [None, *(each for each in HashDefect if each.name.startswith("NAME_"))]
KEYS = [None, *(each for each in HashDefect if each.name.startswith("KEY_") and each is not HashDefect.KEY_MODULUS)]
SERIALS = [None, *(each for each in HashDefect if each.name.startswith("SERIAL_") and not each.is_spelling)]
FREE = [HashDefect.OTHER_HASH, HashDefect.FIELDS_SWAPPED, HashDefect.UPPER_CASE, HashDefect.SERIAL_PADDED]


@settings(max_examples=examples(50))
@given(
    st.sampled_from(NAMES),
    st.sampled_from(KEYS),
    st.sampled_from(SERIALS),
    st.frozensets(st.sampled_from(FREE)),
    st.sampled_from(["SHA256", "SHA384", "SHA512"]),
)
def test_every_combination_of_mistakes_is_recognised(
    name: HashDefect | None,
    key: HashDefect | None,
    serial: HashDefect | None,
    free: frozenset[HashDefect],
    algorithm: str,
) -> None:
    defects = frozenset(each for each in (name, key, serial) if each is not None) | free
    diagnosis = diagnose_hash_data(write_wrongly(SUB.der, MIDDLE.der, defects, algorithm), KNOWN)
    assert diagnosis.certificate is KNOWN[1]
    # Upper case cannot be seen where no letter is left, padding not in what has no hex digits.
    unseen = {HashDefect.UPPER_CASE, HashDefect.SERIAL_PADDED} if serial is not None else set()
    assert set(diagnosis.defects) - unseen == defects - unseen
    assert diagnosis.match is (Match.EXACT if defects <= {*FREE[2:]} else Match.DEFECTIVE)


@settings(max_examples=examples(30))
@given(st.binary(min_size=32, max_size=32), st.sampled_from(["issuerNameHash", "issuerKeyHash"]))
def test_a_hash_over_something_else_is_never_explained(digest: bytes, field: str) -> None:
    diagnosis = diagnose_hash_data({**right(1), field: digest.hex()}, KNOWN)
    assert diagnosis.match is Match.UNKNOWN
    assert diagnosis.nearest is not None
    assert field in diagnosis.unexplained
    assert "nothing explains" in diagnosis.explain()[0]


def test_any_single_defect_of_the_list_has_a_meaning_and_can_be_shown() -> None:
    assert set(MEANINGS) == set(HashDefect)
    for defect in HashDefect:
        which = 2 if defect is HashDefect.KEY_MODULUS else 1
        wanted = frozenset({defect, HashDefect.UPPER_CASE} if defect is HashDefect.SERIAL_LOWER_CASE else {defect})
        issuer = KNOWN[which].issuer_der
        assert issuer is not None
        assert frozenset(found(write_wrongly(KNOWN[which].der, issuer, wanted))[1]) == wanted


def test_two_certificates_that_a_wrong_serial_number_fits_are_ambiguous() -> None:
    """A serial number cut to 64 bits no longer tells two certificates of one issuer apart."""
    low = 0x8123456789ABCDEF
    twins = [make("Twin CA", ROOT, serial=(high << 64) + low, nth=1) for high in (1, 2)]
    known = [KnownCertificate(f"twin {n}", each.der, ROOT.der) for n, each in enumerate(twins)]
    report = {**CertificateHashData.of(twins[0].der, ROOT.der).to_wire(), "serialNumber": f"{low:x}"}
    diagnosis = diagnose_hash_data(report, known)
    assert (diagnosis.match, diagnosis.candidates) == (Match.AMBIGUOUS, tuple(known))
    assert diagnosis.explain() == ["it fits twin 0 and twin 1"]
    # The right value of one is never taken for the wrong value of another.
    real = make("Twin CA", ROOT, serial=low, nth=1)
    exact = diagnose_hash_data(report, [*known, KnownCertificate("real", real.der, ROOT.der)])
    assert (exact.match, exact.certificate and exact.certificate.label) == (Match.EXACT, "real")


def test_without_the_issuer_no_exact_match_is_claimed() -> None:
    lone = KnownCertificate("lone", SUB.der, None)
    diagnosis = diagnose_hash_data(right(1), [lone])
    assert (diagnosis.match, diagnosis.nearest, diagnosis.unexplained) == (Match.UNKNOWN, lone, ("issuerKeyHash",))
    own = write_wrongly(SUB.der, MIDDLE.der, frozenset({HashDefect.KEY_OF_SUBJECT}))
    assert diagnose_hash_data(own, [lone]).certificate is lone


@settings(max_examples=examples(30))
@given(st.lists(st.text(max_size=60), min_size=3, max_size=3), st.sampled_from(["SHA256", "SHA384", "SHA512"]))
def test_any_text_that_the_schema_lets_pass_is_judged(texts: list[str], algorithm: str) -> None:
    report = dict(zip(("issuerNameHash", "issuerKeyHash", "serialNumber"), texts, strict=True))
    assert diagnose_hash_data({"hashAlgorithm": algorithm, **report}, KNOWN).match is Match.UNKNOWN


@pytest.mark.parametrize("value", [None, 4, "f" * 201])
def test_what_no_schema_lets_pass_is_refused(value: object) -> None:
    with pytest.raises(InputError, match="serialNumber"):
        diagnose_hash_data({**right(1), "serialNumber": value}, KNOWN)


def test_octets_that_are_no_certificate_are_passed_over() -> None:
    junk = [KnownCertificate(f"junk {n}", octets, octets) for n, octets in enumerate((b"", b"\x30\x00", b"\xff" * 9))]
    assert diagnose_hash_data(right(1), [*junk, *KNOWN]).certificate is KNOWN[1]
    assert diagnose_hash_data(right(1), junk) == Diagnosis(Match.UNKNOWN)


def test_impossible_combinations_are_refused() -> None:
    for wanted in (
        {HashDefect.NAME_TEXT, HashDefect.NAME_CANONICAL},
        {HashDefect.KEY_MODULUS},
        {HashDefect.SERIAL_DECIMAL, HashDefect.SERIAL_CUT},
    ):
        with pytest.raises(InputError, match="no such hash data"):
            write_wrongly(SUB.der, MIDDLE.der, frozenset(wanted))
    with pytest.raises(InputError, match="SHA1"):
        write_wrongly(SUB.der, MIDDLE.der, frozenset(), "SHA1")


def test_no_two_single_defects_look_alike() -> None:
    """Otherwise one of the names would be a guess."""
    shown: dict[tuple[str, ...], HashDefect] = {}
    for defect in HashDefect:
        if defect in (HashDefect.KEY_MODULUS, HashDefect.SERIAL_LOWER_CASE):
            continue
        report = write_wrongly(SUB.der, MIDDLE.der, frozenset({defect}))
        assert shown.setdefault(tuple(report.values()), defect) is defect
    assert len(list(itertools.combinations(shown, 2))) > 300
