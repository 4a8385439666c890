"""Contract keys wrapped for a vehicle: opened by it alone, and by independent means the same."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path
from random import Random

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, x448
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from chargepki.pki.contract_keys import (
    CBC_IV_BYTES,
    GCM_IV_BYTES,
    WrapForm,
    WrappedKey,
    WrapRefused,
    additional_data,
    find_wrapped_key,
    unwrap_ec_key,
    unwrap_ed448_scalar,
    unwrap_x448_key,
    wrap_ec_key,
    wrap_x448_key,
)
from chargepki.pki.edwards448 import ORDER, public_key_of
from chargepki.pki.errors import InputError, PolicyRefusal, StateError
from testkit.effort import CAMPAIGN
from testkit.exi_samples import samples
from testkit.foreign import missing

RANDOM = Random(15118)
AAD = additional_data("wauabc12345678901d", bytes(range(8)))
CURVES: dict[WrapForm, ec.EllipticCurve] = {WrapForm.ISO15118_2: ec.SECP256R1(), WrapForm.SECP521: ec.SECP521R1()}
SIZES = {WrapForm.ISO15118_2: (32, 65, 48), WrapForm.SECP521: (66, 133, 94)}
FORMS = list(CURVES)


def iv_for(form: WrapForm) -> bytes:
    return RANDOM.randbytes(CBC_IV_BYTES if form is WrapForm.ISO15118_2 else GCM_IV_BYTES)


def wrap(form: WrapForm, key: ec.EllipticCurvePrivateKey, vehicle: ec.EllipticCurvePrivateKey) -> WrappedKey:
    aad = b"" if form is WrapForm.ISO15118_2 else AAD
    ephemeral = ec.generate_private_key(CURVES[form])
    return wrap_ec_key(key, vehicle.public_key(), form=form, ephemeral=ephemeral, iv=iv_for(form), aad=aad)


def unwrap(
    wrapped: WrappedKey, vehicle: ec.EllipticCurvePrivateKey, contract: ec.EllipticCurvePrivateKey, aad: bytes = AAD
) -> ec.EllipticCurvePrivateKey:
    used = b"" if wrapped.form is WrapForm.ISO15118_2 else aad
    return unwrap_ec_key(wrapped, vehicle, contract=contract.public_key(), aad=used)


def scalar_of(key: ec.EllipticCurvePrivateKey) -> int:
    return key.private_numbers().private_value


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("scalar", [None, 1, 0x1234, (1 << 200) + 1])
def test_a_wrapped_key_is_opened_with_its_leading_zeros(form: WrapForm, scalar: int | None) -> None:
    vehicle = ec.generate_private_key(CURVES[form])
    contract = ec.derive_private_key(scalar, CURVES[form]) if scalar else ec.generate_private_key(CURVES[form])
    wrapped = wrap(form, contract, vehicle)
    assert scalar_of(unwrap(wrapped, vehicle, contract)) == scalar_of(contract)
    assert (len(wrapped.public), len(wrapped.encrypted)) == SIZES[form][1:]
    assert wrapped.public[0] == 4


@settings(max_examples=2000 if CAMPAIGN else 20)
@given(
    st.sampled_from(FORMS), st.integers(1, (1 << 255)), st.integers(1, 1 << 255), st.binary(min_size=16, max_size=16)
)
def test_what_is_wrapped_is_what_is_unwrapped(form: WrapForm, contract: int, vehicle: int, iv: bytes) -> None:
    key, holder = (ec.derive_private_key(scalar, CURVES[form]) for scalar in (contract, vehicle))
    aad, size = (b"", CBC_IV_BYTES) if form is WrapForm.ISO15118_2 else (AAD, GCM_IV_BYTES)
    ephemeral = ec.generate_private_key(CURVES[form])
    wrapped = wrap_ec_key(key, holder.public_key(), form=form, ephemeral=ephemeral, iv=iv[:size], aad=aad)
    assert scalar_of(unwrap(wrapped, holder, key)) == contract


@pytest.mark.parametrize("form", FORMS)
def test_an_independent_computation_gives_the_scalar(form: WrapForm) -> None:
    """KDF by hashlib, cipher by its plain mode: no function of ours, and neither ConcatKDF nor AEAD of the library."""
    vehicle, contract = ec.generate_private_key(CURVES[form]), ec.generate_private_key(CURVES[form])
    wrapped = wrap(form, contract, vehicle)
    sender = ec.EllipticCurvePublicKey.from_encoded_point(CURVES[form], wrapped.public)
    secret = vehicle.exchange(ec.ECDH(), sender)
    block = b"\0\0\0\1" + secret + b"\x01\x55\x56"
    if form is WrapForm.ISO15118_2:
        key, iv = hashlib.sha256(block).digest()[:16], wrapped.encrypted[:16]
        decryptor = Cipher(algorithms.AES(key), modes.CBC(iv)).decryptor()
        plain = decryptor.update(wrapped.encrypted[16:]) + decryptor.finalize()
    else:
        assert len(secret) == 66
        key, iv, tag = hashlib.sha512(block).digest()[:32], wrapped.encrypted[:12], wrapped.encrypted[-16:]
        opener = Cipher(algorithms.AES(key), modes.GCM(iv, tag)).decryptor()
        opener.authenticate_additional_data(b"WAUABC12345678901D0001020304050607")
        plain = opener.update(wrapped.encrypted[12:-16]) + opener.finalize()
    assert plain == scalar_of(contract).to_bytes(SIZES[form][0], "big")


@pytest.mark.foreign
def test_openssl_opens_a_key_of_15118_2(tmp_path: Path) -> None:
    if reason := missing("openssl", "openssl"):
        pytest.skip(reason)
    vehicle, contract = ec.generate_private_key(ec.SECP256R1()), ec.derive_private_key(7, ec.SECP256R1())
    wrapped = wrap(WrapForm.ISO15118_2, contract, vehicle)
    sender = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), wrapped.public)
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    private, public = tmp_path / "vehicle.pem", tmp_path / "sender.pem"
    private.write_bytes(vehicle.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    public.write_bytes(sender.public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo))
    derive = ["openssl", "pkeyutl", "-derive", "-inkey", str(private), "-peerkey", str(public)]
    secret = subprocess.run(derive, capture_output=True, check=True).stdout
    key = hashlib.sha256(b"\0\0\0\1" + secret + b"\x01UV").hexdigest()[:32]
    decrypt = ["openssl", "enc", "-d", "-aes-128-cbc", "-nopad", "-K", key, "-iv", wrapped.encrypted[:16].hex()]
    found = subprocess.run(decrypt, input=wrapped.encrypted[16:], capture_output=True, check=True).stdout
    assert found == (7).to_bytes(32, "big")


@pytest.mark.parametrize("form", FORMS)
def test_any_flipped_byte_is_refused(form: WrapForm) -> None:
    vehicle, contract = ec.generate_private_key(CURVES[form]), ec.generate_private_key(CURVES[form])
    wrapped = wrap(form, contract, vehicle)
    for place in range(0, len(wrapped.encrypted), 5):
        changed = bytearray(wrapped.encrypted)
        changed[place] ^= 0x40
        with pytest.raises(WrapRefused):
            unwrap(WrappedKey(form, wrapped.public, bytes(changed)), vehicle, contract)
    for place in range(0, len(wrapped.public), 9):
        point = bytearray(wrapped.public)
        point[place] ^= 0x40
        with pytest.raises(WrapRefused):
            unwrap(WrappedKey(form, bytes(point), wrapped.encrypted), vehicle, contract)


@pytest.mark.parametrize("form", FORMS)
def test_another_vehicle_contract_or_length_is_refused(form: WrapForm) -> None:
    vehicle, other, contract = (ec.generate_private_key(CURVES[form]) for _ in range(3))
    wrapped = wrap(form, contract, vehicle)
    with pytest.raises(WrapRefused):
        unwrap(wrapped, other, contract)
    with pytest.raises(WrapRefused, match="not the contract certificate's"):
        unwrap(wrapped, vehicle, other)
    with pytest.raises(WrapRefused, match="bytes; "):
        unwrap(WrappedKey(form, wrapped.public, wrapped.encrypted[:-1]), vehicle, contract)
    compressed = bytes((2,)) + wrapped.public[1 : 1 + SIZES[form][0]]
    with pytest.raises(WrapRefused, match="no uncompressed point"):
        unwrap(WrappedKey(form, compressed, wrapped.encrypted), vehicle, contract)
    with pytest.raises(WrapRefused, match="the recipient's key is on"):
        unwrap(wrapped, ec.generate_private_key(ec.SECP384R1()), contract)


def test_a_key_for_another_contract_of_the_same_vehicle_is_refused() -> None:
    vehicle, contract = ec.generate_private_key(ec.SECP521R1()), ec.generate_private_key(ec.SECP521R1())
    wrapped = wrap(WrapForm.SECP521, contract, vehicle)
    with pytest.raises(WrapRefused, match="not for this vehicle and this contract"):
        unwrap(wrapped, vehicle, contract, aad=additional_data("WAUABC12345678901E", bytes(range(8))))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("beyond", [0, 1])
def test_a_scalar_outside_of_the_group_is_refused(form: WrapForm, beyond: int) -> None:
    """Zero and the order of the group decrypt well, and are no keys."""
    orders = {
        WrapForm.ISO15118_2: 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
        WrapForm.SECP521: int(
            "01fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffa"
            "51868783bf2f966b7fcc0148f709a5d03bb5c9b8899c47aebb6fb71e91386409",
            16,
        ),
    }
    vehicle, ephemeral = ec.generate_private_key(CURVES[form]), ec.generate_private_key(CURVES[form])
    plain = (orders[form] * beyond).to_bytes(SIZES[form][0], "big")
    block = b"\0\0\0\1" + ephemeral.exchange(ec.ECDH(), vehicle.public_key()) + b"\x01UV"
    iv = iv_for(form)
    if form is WrapForm.ISO15118_2:
        encryptor = Cipher(algorithms.AES(hashlib.sha256(block).digest()[:16]), modes.CBC(iv)).encryptor()
        encrypted = iv + encryptor.update(plain) + encryptor.finalize()
    else:
        sealer = Cipher(algorithms.AES(hashlib.sha512(block).digest()[:32]), modes.GCM(iv)).encryptor()
        sealer.authenticate_additional_data(AAD)
        encrypted = iv + sealer.update(plain) + sealer.finalize() + sealer.tag
    point = ephemeral.public_key().public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
    )
    with pytest.raises(WrapRefused, match="no private key"):
        unwrap(WrappedKey(form, point, encrypted), vehicle, vehicle)


@pytest.mark.parametrize("form", FORMS)
def test_a_key_on_another_curve_is_not_wrapped(form: WrapForm) -> None:
    right, wrong = ec.generate_private_key(CURVES[form]), ec.generate_private_key(ec.SECP384R1())
    for key, recipient, ephemeral in ((wrong, right, right), (right, wrong, right), (right, right, wrong)):
        with pytest.raises(PolicyRefusal, match="secp384r1"):
            wrap_ec_key(key, recipient.public_key(), form=form, ephemeral=ephemeral, iv=iv_for(form))
    with pytest.raises(ValueError, match="initialisation vector"):
        wrap_ec_key(right, right.public_key(), form=form, ephemeral=right, iv=b"short")


def test_x448_is_wrapped_and_opened() -> None:
    vehicle, contract, other = (x448.X448PrivateKey.generate() for _ in range(3))
    ephemeral = x448.X448PrivateKey.generate()
    wrapped = wrap_x448_key(contract, vehicle.public_key(), ephemeral=ephemeral, iv=iv_for(WrapForm.X448), aad=AAD)
    assert (len(wrapped.public), len(wrapped.encrypted)) == (56, 84)
    found = unwrap_x448_key(wrapped, vehicle, contract=contract.public_key(), aad=AAD)
    assert found.private_bytes_raw() == contract.private_bytes_raw()
    key = hashlib.sha512(b"\0\0\0\1" + vehicle.exchange(ephemeral.public_key()) + b"\x01UV").digest()[:32]
    opener = Cipher(algorithms.AES(key), modes.GCM(wrapped.encrypted[:12], wrapped.encrypted[-16:])).decryptor()
    opener.authenticate_additional_data(AAD)
    assert opener.update(wrapped.encrypted[12:-16]) + opener.finalize() == contract.private_bytes_raw()
    with pytest.raises(WrapRefused):
        unwrap_x448_key(wrapped, other, contract=contract.public_key(), aad=AAD)
    with pytest.raises(WrapRefused, match="not the contract certificate's"):
        unwrap_x448_key(wrapped, vehicle, contract=other.public_key(), aad=AAD)
    for public in (bytes(56), b"short", wrapped.public + b"\0"):
        with pytest.raises(WrapRefused, match="none of X448"):
            changed = WrappedKey(WrapForm.X448, public, wrapped.encrypted)
            unwrap_x448_key(changed, vehicle, contract=contract.public_key(), aad=AAD)


def test_of_an_ed448_key_the_scalar_travels_and_multiplies_the_base_point_to_the_public_key() -> None:
    """V2G20-2500 to 2502, 2508 to 2510."""
    vehicle, other = x448.X448PrivateKey.generate(), x448.X448PrivateKey.generate()
    contract, stranger = ed448.Ed448PrivateKey.generate(), ed448.Ed448PrivateKey.generate()
    iv, ephemeral = iv_for(WrapForm.X448), x448.X448PrivateKey.generate()
    wrapped = wrap_x448_key(contract, vehicle.public_key(), ephemeral=ephemeral, iv=iv, aad=AAD)
    assert (len(wrapped.public), len(wrapped.encrypted)) == (56, 84)
    scalar = unwrap_ed448_scalar(wrapped, vehicle, contract=contract.public_key(), aad=AAD)
    assert 0 < scalar < ORDER and public_key_of(scalar) == contract.public_key().public_bytes_raw()
    # An independent reading: the concatenation KDF by hand, and plain AES-GCM.
    secret = vehicle.exchange(ephemeral.public_key())
    key = hashlib.sha512(b"\0\0\0\1" + secret + b"\x01UV").digest()[:32]
    assert AESGCM(key).decrypt(iv, wrapped.encrypted[12:], AAD) == scalar.to_bytes(56, "big")
    with pytest.raises(WrapRefused, match="not for this vehicle"):
        unwrap_ed448_scalar(wrapped, other, contract=contract.public_key(), aad=AAD)
    with pytest.raises(WrapRefused, match="not the contract certificate's"):
        unwrap_ed448_scalar(wrapped, vehicle, contract=stranger.public_key(), aad=AAD)
    for bad in (0, ORDER, (1 << 448) - 1):
        sealed = iv + AESGCM(key).encrypt(iv, bad.to_bytes(56, "big"), AAD)
        with pytest.raises(WrapRefused, match="no private key"):
            changed = WrappedKey(WrapForm.X448, wrapped.public, sealed)
            unwrap_ed448_scalar(changed, vehicle, contract=contract.public_key(), aad=AAD)


def test_a_key_for_a_tpm_is_recognised_and_not_opened() -> None:
    found = find_wrapped_key({"DHPublicKey": bytes(133), "TPM_EncryptedPrivateKey": bytes(200)})
    assert found.form is WrapForm.TPM
    vehicle = ec.generate_private_key(ec.SECP521R1())
    with pytest.raises(StateError, match="TPM"):
        unwrap(found, vehicle, vehicle)
    with pytest.raises(StateError, match="TPM"):
        key = x448.X448PrivateKey.generate()
        unwrap_x448_key(found, key, contract=key.public_key(), aad=AAD)


def test_the_wrapped_key_of_a_response_is_found() -> None:
    responses = {each.name: each.tree for each in samples() if each.name in {"V2G_Message", "SignedInstallationData"}}
    found = find_wrapped_key(responses["SignedInstallationData"])
    assert (found.form, len(found.public), len(found.encrypted)) == (WrapForm.SECP521, 133, 94)
    body = responses["V2G_Message"]["Body"]
    assert isinstance(body, dict)
    inner = body["CertificateUpdateRes"]
    assert isinstance(inner, dict)
    of_2 = find_wrapped_key(inner)
    assert (of_2.form, len(of_2.public), len(of_2.encrypted)) == (WrapForm.ISO15118_2, 65, 48)
    with pytest.raises(WrapRefused, match="no wrapped key"):
        find_wrapped_key({"Id": "a"})


def test_additional_data_has_34_characters_or_is_refused() -> None:
    assert AAD == b"WAUABC12345678901D0001020304050607"
    with pytest.raises(PolicyRefusal, match="17 characters"):
        additional_data("WAUABC12345678901", bytes(8))
    with pytest.raises(PolicyRefusal, match="20 bytes"):
        additional_data("WAUABC12345678901D", bytes(20))
    with pytest.raises(InputError):
        additional_data("WAUABC-12345678901", bytes(8))
