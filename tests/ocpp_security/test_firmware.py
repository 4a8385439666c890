"""L01: an image is accepted for the right reason only, and refused with the standard's status and event."""

from __future__ import annotations

import base64
import io
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given, settings
from hypothesis import strategies as st

from chargepki.ocpp_security.events import SecurityEvent
from chargepki.ocpp_security.firmware import VerifiedFirmware, sign_firmware, verify_firmware
from chargepki.ocpp_security.firmware_certificate import FirmwareTrust, revocation_of
from chargepki.ocpp_security.firmware_image import begin_digest, hash_image
from chargepki.ocpp_security.firmware_signature import SignatureScheme, encode_signature
from chargepki.ocpp_security.firmware_verdict import FirmwareHash, FirmwareQuirk, FirmwareRefusal, FirmwareStage
from chargepki.pki.der import to_pem
from chargepki.pki.errors import PolicyRefusal, SignerError, UnavailableError
from chargepki.pki.keys import KeyAlgorithm
from testkit.chains import AT, DAY, Made, make
from testkit.firmware import IMAGE, foreign_signature, maker, pem, signer_of
from testkit.hierarchy import Node, make_crl

N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def verify(
    signature: str | None,
    certificate: Made | str | None = None,
    *,
    image: bytes = IMAGE,
    trust: FirmwareTrust | None = None,
    quirks: tuple[FirmwareQuirk, ...] = (),
    hash_name: FirmwareHash = FirmwareHash.SHA256,
) -> VerifiedFirmware:
    made = certificate if certificate is not None else maker().ecdsa
    return verify_firmware(
        io.BytesIO(image),
        signature=signature,
        certificate_pem=pem(made) if isinstance(made, Made) else made,
        trust=trust or maker().trust,
        at=AT,
        quirks=quirks,
        hash_name=hash_name,
    )


def refusal(*args: object, **kwargs: object) -> FirmwareRefusal:
    with pytest.raises(FirmwareRefusal) as caught:
        verify(*args, **kwargs)  # type: ignore[arg-type]  # passed on as they are
    return caught.value


def raw(signature: bytes) -> str:
    return base64.b64encode(signature).decode()


@pytest.mark.parametrize("name", ["ecdsa", "rsa"])
def test_what_is_signed_here_is_verified_here(name: str) -> None:
    made: Made = getattr(maker(), name)
    signed = sign_firmware(io.BytesIO(IMAGE), signer_of(made), made.der, at=AT)
    verified = verify(signed.text, made)
    assert (verified.scheme, verified.image) == (signed.scheme, signed.image)
    assert signed.deviations == verified.deviations == ()
    assert len(signed.text) <= 800
    assert verified.notices == ("the revocation status was not looked at",)


def test_evidence_cannot_be_made_by_hand() -> None:
    made = verify(foreign_signature(maker().ecdsa, IMAGE))
    with pytest.raises(TypeError, match="verify_firmware"):
        VerifiedFirmware(made.image, made.certificate, made.scheme, AT, (), object())
    assert made.matches(hash_image(io.BytesIO(IMAGE)))
    assert not made.matches(hash_image(io.BytesIO(IMAGE[:-1])))


@given(position=st.integers(0, len(IMAGE) - 1), bit=st.integers(0, 7))
@settings(max_examples=20)
def test_a_changed_bit_anywhere_is_refused(position: int, bit: int) -> None:
    changed = bytearray(IMAGE)
    changed[position] ^= 1 << bit
    assert refusal(foreign_signature(maker().ecdsa, IMAGE), image=bytes(changed)).rule == "signature-mismatch"


@pytest.mark.parametrize("image", [IMAGE[:-1], IMAGE + b"\0", b"", IMAGE[::-1]])
def test_another_image_is_refused(image: bytes) -> None:
    found = refusal(foreign_signature(maker().ecdsa, IMAGE), image=image)
    assert (found.stage, found.status) == (FirmwareStage.SIGNATURE, "InvalidSignature")
    assert found.event is SecurityEvent.INVALID_FIRMWARE_SIGNATURE


@pytest.mark.parametrize("salt", [0, 1, 20, 32, 190])
def test_any_length_of_the_pss_salt_is_accepted(salt: int) -> None:
    assert verify(foreign_signature(maker().rsa, IMAGE, salt=salt), maker().rsa).scheme is SignatureScheme.RSA_PSS


def test_pkcs1_v15_needs_the_quirk_and_is_reported() -> None:
    signature = foreign_signature(maker().rsa, IMAGE, pkcs1=True)
    found = refusal(signature, maker().rsa)
    assert found.rule == "rsa-pkcs1-v15"
    assert "SHA-256" in found.what
    verified = verify(signature, maker().rsa, quirks=(FirmwareQuirk.PKCS1_V15,))
    assert "pkcs1-v15" in verified.deviations[0]
    # What did not need the quirk is no deviation.
    assert (
        verify(foreign_signature(maker().rsa, IMAGE), maker().rsa, quirks=(FirmwareQuirk.PKCS1_V15,)).deviations == ()
    )


def test_high_and_low_s_are_both_valid() -> None:
    r, s = decode_dss_signature(base64.b64decode(foreign_signature(maker().ecdsa, IMAGE)))
    for value in (s, N - s):
        verify(raw(encode_dss_signature(r, value)))


def _ecdsa() -> tuple[int, int]:
    return decode_dss_signature(base64.b64decode(foreign_signature(maker().ecdsa, IMAGE)))


def _der_integer(content: bytes) -> bytes:
    return b"\x02" + bytes([len(content)]) + content


def _pair(first: bytes, second: bytes) -> bytes:
    return b"\x30" + bytes([len(first) + len(second)]) + first + second


BAD_ECDSA: dict[str, tuple[Callable[[int, int], bytes], str]] = {
    "raw": (lambda r, s: r.to_bytes(32) + s.to_bytes(32), "ecdsa-raw"),
    "r zero": (lambda r, s: encode_dss_signature(0, s), "ecdsa-range"),
    "s zero": (lambda r, s: encode_dss_signature(r, 0), "ecdsa-range"),
    "both zero": (lambda r, s: encode_dss_signature(0, 0), "ecdsa-range"),
    "r is the order": (lambda r, s: encode_dss_signature(N, s), "ecdsa-range"),
    "s plus the order": (lambda r, s: encode_dss_signature(r, s + N), "ecdsa-range"),
    "negative s": (lambda r, s: _pair(_der_integer(r.to_bytes(33)), _der_integer(b"\x80")), "ecdsa-not-der"),
    "swapped": (lambda r, s: encode_dss_signature(s, r), "signature-mismatch"),
    "padded integer": (
        lambda r, s: _pair(_der_integer(b"\0\0" + r.to_bytes(32)), _der_integer(b"\0" + s.to_bytes(32))),
        "ecdsa-not-der",
    ),
    "trailing octet": (lambda r, s: encode_dss_signature(r, s) + b"\0", "ecdsa-not-der"),
    "long length": (lambda r, s: b"\x30\x81" + encode_dss_signature(r, s)[1:], "ecdsa-not-der"),
    "indefinite length": (lambda r, s: b"\x30\x80" + encode_dss_signature(r, s)[2:] + b"\0\0", "ecdsa-not-der"),
    "three numbers": (
        lambda r, s: b"\x30" + bytes([len(x := encode_dss_signature(r, s)[2:]) + 3]) + x + b"\x02\x01\x01",
        "ecdsa-not-der",
    ),
    "one octet": (lambda r, s: b"\x30", "ecdsa-not-der"),
}


@pytest.mark.parametrize("name", BAD_ECDSA)
def test_ecdsa_in_any_other_encoding_is_refused(name: str) -> None:
    build, rule = BAD_ECDSA[name]
    found = refusal(raw(build(*_ecdsa())))
    expected = {rule, "ecdsa-range"} if name == "negative s" else {rule}
    assert found.rule in expected, found
    assert found.status == "InvalidSignature"


@pytest.mark.parametrize(
    ("build", "rule"),
    [
        (lambda octets, n: octets[:-1], "rsa-length"),
        (lambda octets, n: b"\0" + octets, "rsa-length"),
        (lambda octets, n: n.to_bytes(256), "rsa-range"),
        (lambda octets, n: bytes(256), "signature-mismatch"),
        (lambda octets, n: octets[::-1], None),
    ],
)
def test_rsa_of_another_length_or_range_is_refused(build: Callable[[bytes, int], bytes], rule: str | None) -> None:
    octets = base64.b64decode(foreign_signature(maker().rsa, IMAGE))
    numbers = maker().rsa.key.public_key().public_numbers()  # type: ignore[union-attr]  # it is RSA
    found = refusal(raw(build(octets, numbers.n)), maker().rsa)  # type: ignore[union-attr]  # it is RSA
    assert rule is None or found.rule == rule


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (lambda text: None, "signature-missing"),
        (lambda text: "", "signature-missing"),
        (lambda text: text[:40] + "\n" + text[40:], "signature-not-base64"),
        (lambda text: text.rstrip("=") + "*", "signature-not-base64"),
        (lambda text: text + "\n", "signature-not-base64"),
        (lambda text: "é" + text, "signature-not-base64"),
        (lambda text: "A" * 804, "signature-too-long"),
    ],
)
def test_the_text_of_the_signature_is_base64_in_one_line(change: Callable[[str], str | None], rule: str) -> None:
    assert refusal(change(foreign_signature(maker().ecdsa, IMAGE))).rule == rule


def test_a_signature_that_no_message_has_room_for_is_refused() -> None:
    assert len(encode_signature(bytes(600))) == 800
    with pytest.raises(PolicyRefusal, match="804 characters"):
        encode_signature(bytes(601))


# ---------------------------------------------------------------- certificates


def _leaf(name: str = "Firmware signing", issuer: Made | None = None, **kwargs: object) -> Made:
    return make(name, issuer or maker().root, nth=12, **kwargs)  # type: ignore[arg-type]  # passed on


def _eku(*oids: x509.ObjectIdentifier) -> list[tuple[x509.ExtensionType, bool]]:
    return [(x509.ExtendedKeyUsage(list(oids)), False)]


def _sub() -> Made:
    return make("Maker Sub CA", make("Maker Root CA", nth=10, path_length=1), nth=13)


CERTIFICATES: dict[str, tuple[Callable[[], Made], str]] = {
    "expired": (lambda: _leaf(start=AT - 3 * DAY, end=AT - DAY), "expired"),
    "not yet valid": (lambda: _leaf(start=AT + DAY, end=AT + 2 * DAY), "not-yet-valid"),
    "a CA": (lambda: _leaf("Firmware CA", path_length=0), "leaf-is-ca"),
    "for key agreement": (lambda: _leaf(bits=["key_agreement"]), "key-usage"),
    "for TLS servers": (lambda: _leaf(extensions=_eku(ExtendedKeyUsageOID.SERVER_AUTH)), "extended-key-usage"),
    "of another root of that name": (lambda: _leaf(issuer=make("Maker Root CA", nth=14)), "no-issuer"),
    "of nobody": (lambda: _leaf(issuer=make("Stranger CA", nth=14)), "no-issuer"),
    "below an intermediate": (lambda: _leaf(issuer=_sub()), "no-issuer"),
    "the root": (lambda: maker().root, "leaf-is-ca"),
    "on Ed25519": (lambda: make("Firmware", maker().root, algorithm=KeyAlgorithm.ED25519, nth=12), "key-type"),
}


@pytest.mark.parametrize("name", CERTIFICATES)
def test_the_certificate_is_judged_before_the_image_is_read(name: str) -> None:
    build, rule = CERTIFICATES[name]

    class Untouched(io.BytesIO):
        def readinto(self, *_: object) -> int:
            raise AssertionError("the image was read")

    with pytest.raises(FirmwareRefusal) as caught:
        verify_firmware(Untouched(), signature="AAAA", certificate_pem=pem(build()), trust=maker().trust, at=AT)
    assert (caught.value.rule, caught.value.status) == (rule, "InvalidCertificate")
    assert caught.value.event is SecurityEvent.INVALID_FIRMWARE_SIGNING_CERTIFICATE


def test_an_intermediate_is_refused_and_named_even_when_the_path_would_hold() -> None:
    root = make("Maker Root CA", nth=10, path_length=1)
    sub = make("Maker Sub CA", root, nth=13)
    leaf = make("Firmware signing", sub, nth=12)
    found = refusal("AAAA", pem(leaf) + pem(sub), trust=FirmwareTrust((root.der,)))
    assert (found.rule, found.status) == ("intermediate", "InvalidCertificate")
    # Nor does trusting the intermediate itself make it a root.
    assert refusal("AAAA", leaf, trust=FirmwareTrust((sub.der,))).rule == "intermediate"


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (None, "certificate-missing"),
        ("", "certificate-missing"),
        ("3082", "certificate-not-pem"),
        ("-----BEGIN CERTIFICATE-----\nAAAA", "certificate-not-pem"),
        (to_pem("PUBLIC KEY", b"\x30\x00"), "certificate-not-pem"),
        ("x" * 5501, "certificate-too-long"),
    ],
)
def test_the_text_of_the_certificate_is_one_pem_block(text: str | None, rule: str) -> None:
    with pytest.raises(FirmwareRefusal) as caught:
        verify_firmware(io.BytesIO(IMAGE), signature="AAAA", certificate_pem=text, trust=maker().trust, at=AT)
    assert caught.value.rule == rule


def test_a_damaged_certificate_and_a_second_one_are_refused() -> None:
    good = maker().ecdsa
    assert refusal("AAAA", to_pem("CERTIFICATE", good.der[:-3])).status == "InvalidCertificate"
    assert refusal("AAAA", pem(good) + pem(maker().root)).rule == "certificate-count"


def test_revocation_is_judged_from_the_list() -> None:
    root, good = maker().root, maker().ecdsa
    issuer = Node(root.certificate, root.key)  # type: ignore[arg-type]  # a P-256 key
    revoked = _leaf("Revoked")
    crl = make_crl(issuer, [Node(revoked.certificate, revoked.key)], at=AT)  # type: ignore[arg-type]  # the same
    trust = FirmwareTrust((root.der,), revocation_of([crl], []))
    verified = verify(foreign_signature(good, IMAGE), trust=trust)
    assert verified.notices == ()
    found = refusal(foreign_signature(revoked, IMAGE), revoked, trust=trust)
    assert (found.status, found.rule) == ("RevokedCertificate", "revoked")
    stale = make_crl(issuer, [], at=AT - 30 * DAY)
    found = refusal("AAAA", good, trust=FirmwareTrust((root.der,), revocation_of([stale], [])))
    assert (found.status, found.rule) == ("InvalidCertificate", "stale")


# ---------------------------------------------------------------- signing


def test_signing_needs_the_certificate_of_the_key() -> None:
    with pytest.raises(SignerError, match="not the one"):
        sign_firmware(io.BytesIO(IMAGE), signer_of(maker().rsa), maker().ecdsa.der, at=AT)


@pytest.mark.parametrize("name", ["expired", "a CA", "for key agreement", "on Ed25519"])
def test_nothing_is_signed_that_no_station_would_accept(name: str) -> None:
    made = CERTIFICATES[name][0]()
    with pytest.raises(PolicyRefusal):
        sign_firmware(io.BytesIO(IMAGE), signer_of(made), made.der, at=AT)


def test_a_stronger_hash_is_a_deviation_and_verifies_only_when_asked_for() -> None:
    made = maker().ecdsa
    signed = sign_firmware(io.BytesIO(IMAGE), signer_of(made), made.der, at=AT, hash_name=FirmwareHash.SHA384)
    assert "sha384" in signed.deviations[0]
    assert refusal(signed.text).rule == "signature-mismatch"
    assert verify(signed.text, hash_name=FirmwareHash.SHA384).deviations == signed.deviations


def test_memory_does_not_grow_with_the_image(tmp_path: Path) -> None:
    image = tmp_path / "image"
    with image.open("wb") as stream:
        stream.truncate(64 << 20)
    told: list[int] = []
    tracemalloc.start()
    try:
        assert hash_image(image, tick=told.append).size == 64 << 20
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
    finally:
        tracemalloc.stop()
    assert told == sorted(told)
    assert told[-1] == 64 << 20


def test_an_image_that_cannot_be_read_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="cannot read the image"):
        hash_image(tmp_path / "absent")


def test_a_digest_begun_before_is_the_same_and_the_certificate_is_still_judged_first(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(IMAGE)
    trusted, stranger = maker().ecdsa, make("Stranger", nth=12)
    told: list[int] = []
    with begin_digest(str(image)) as begun:
        assert begun is not None
        found = verify_firmware(
            begun, signature=foreign_signature(trusted, IMAGE), certificate_pem=pem(trusted), trust=maker().trust,
            at=AT, tick=told.append,
        )  # fmt: skip
    assert found.matches(hash_image(image))
    assert told[-1:] in ([], [len(IMAGE)])
    # The image has gone, too: a station that may not accept the certificate never looks.
    with begin_digest(str(image)) as begun:
        assert begun is not None
        image.unlink()
        with pytest.raises(FirmwareRefusal) as refused:
            verify_firmware(begun, signature="AAAA", certificate_pem=pem(stranger), trust=maker().trust, at=AT)
    assert refused.value.stage is FirmwareStage.CERTIFICATE


def test_a_digest_begun_with_another_hash_is_not_taken_for_the_one_asked_for(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(IMAGE)
    signature = foreign_signature(maker().ecdsa, IMAGE)
    with begin_digest(str(image), FirmwareHash.SHA512) as begun, pytest.raises(ValueError, match="begun with sha512"):
        verify_firmware(
            begun or image, signature=signature, certificate_pem=pem(maker().ecdsa), trust=maker().trust, at=AT
        )


@pytest.mark.parametrize("size", [0, 1 << 20, 9 << 20], ids=["emptied", "cut", "grown"])
def test_an_image_that_changes_while_it_is_read_is_no_forgery_and_no_crash(tmp_path: Path, size: int) -> None:
    image = tmp_path / "image"
    image.write_bytes(bytes(8 << 20))

    def change(octets: int) -> None:
        with image.open("r+b") as stream:
            stream.truncate(size)

    with pytest.raises(UnavailableError, match="changed while it was read"):
        hash_image(image, tick=change)


def test_reading_ends_when_nobody_wants_the_digest(tmp_path: Path) -> None:
    image = tmp_path / "image"
    with image.open("wb") as stream:
        stream.truncate(1 << 40)
    with begin_digest(str(image)) as begun:
        assert begun is not None
    with pytest.raises(Exception, match=r"^$"):
        begun.result()


@pytest.mark.parametrize("image", ["/dev/zero", "/", "/absent", "a\0b"])
def test_only_a_plain_file_is_begun(image: str) -> None:
    with begin_digest(image) as begun:
        assert begun is None
