"""Keys: every algorithm signs, verifies, survives storage; what is weak or foreign is refused."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, padding, rsa, x25519
from hypothesis import given, settings
from hypothesis import strategies as st

from chargepki.pki import der, keys, names, oids, private_keys
from chargepki.pki.errors import InputError, SignerError
from chargepki.pki.keys import KeyAlgorithm
from testkit.effort import examples
from testkit.foreign import Tool, need, run

pytestmark = pytest.mark.as_shipped

FAST = tuple(algorithm for algorithm in KeyAlgorithm if not algorithm.startswith("rsa"))
MADE: dict[KeyAlgorithm, keys.PrivateKey] = {}


def made(algorithm: KeyAlgorithm) -> keys.PrivateKey:
    """Return one key per algorithm and session: RSA keys take long to find."""
    if algorithm not in MADE:
        MADE[algorithm] = keys.generate_private_key(algorithm)
    return MADE[algorithm]


def public(algorithm: KeyAlgorithm) -> keys.PublicKey:
    return keys.load_public_key(keys.spki_der(made(algorithm)))


def algorithm_der(oid: str, parameters: bytes = b"") -> bytes:
    return der.sequence(der.oid(oid), parameters)


def pss_der(hash_oid: str = oids.SHA256, mask_oid: str = oids.SHA256, salt: int = 32, *extra: bytes) -> bytes:
    def digest(oid: str) -> bytes:
        return der.sequence(der.oid(oid), der.null())

    parameters = der.sequence(
        der.explicit(0, digest(hash_oid)),
        der.explicit(1, der.sequence(der.oid(oids.MGF1), digest(mask_oid))),
        der.explicit(2, der.integer(salt)),
        *extra,
    )
    return algorithm_der(oids.RSASSA_PSS, parameters)


@pytest.mark.parametrize("algorithm", KeyAlgorithm)
def test_every_algorithm_is_made_recognised_and_signs(algorithm: KeyAlgorithm) -> None:
    key = made(algorithm)
    assert keys.algorithm_of(key) is algorithm
    assert keys.algorithm_of(public(algorithm)) is algorithm
    assert keys.spki_der(public(algorithm)) == keys.spki_der(key)
    identifier = keys.signature_algorithm(algorithm).der
    signature = keys.sign(key, b"data")
    assert keys.verify(public(algorithm), signature, b"data", identifier)
    assert not keys.verify(public(algorithm), signature, b"date", identifier)
    assert not keys.verify(public(algorithm), signature[:-1], b"data", identifier)
    assert not keys.verify(public(algorithm), b"", b"data", identifier)


@pytest.mark.parametrize("algorithm", KeyAlgorithm)
def test_our_algorithm_identifiers_are_those_of_an_independent_library(algorithm: KeyAlgorithm) -> None:
    key = made(algorithm)
    is_rsa = isinstance(key, rsa.RSAPrivateKey)
    digest: hashes.SHA256 | hashes.SHA384 | hashes.SHA512 | None = hashes.SHA256()
    if algorithm is KeyAlgorithm.SECP384R1:
        digest = hashes.SHA384()
    elif algorithm is KeyAlgorithm.SECP521R1:
        digest = hashes.SHA512()
    elif algorithm in (KeyAlgorithm.ED25519, KeyAlgorithm.ED448) or algorithm.value.startswith("ml-dsa"):
        digest = None
    name = names.parse_rdns("CN=a")
    now = datetime(2026, 1, 1, tzinfo=UTC)
    theirs = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=1))
        .sign(
            key,
            digest,
            rsa_padding=padding.PSS(padding.MGF1(hashes.SHA256()), 32) if is_rsa else None,
        )
        .public_bytes(serialization.Encoding.DER)
    )
    tbs, identifier, signature = der.parse(theirs).children()
    assert identifier.raw == keys.signature_algorithm(algorithm).der
    assert keys.signature_algorithm(algorithm).oid == identifier.children()[0].as_oid()
    assert keys.verify(public(algorithm), signature.as_bit_string()[1], tbs.raw, identifier.raw)


@settings(max_examples=examples(60))
@given(st.sampled_from(FAST), st.binary(max_size=200), st.integers(0, 10_000), st.integers(1, 255))
def test_every_mutation_of_a_signature_or_its_data_is_refused(
    algorithm: KeyAlgorithm, data: bytes, place: int, flip: int
) -> None:
    identifier = keys.signature_algorithm(algorithm).der
    signature = keys.sign(made(algorithm), data)
    assert keys.verify(public(algorithm), signature, data, identifier)
    mutated = bytearray(signature)
    mutated[place % len(mutated)] ^= flip
    assert not keys.verify(public(algorithm), bytes(mutated), data, identifier)
    assert not keys.verify(public(algorithm), signature, data + b"\0", identifier)


@settings(max_examples=examples(200))
@given(st.integers(0, 200), st.integers(0, 255))
def test_no_mutated_algorithm_or_key_raises_anything_but_an_input_error(place: int, octet: int) -> None:
    identifier, spki = bytearray(pss_der()), bytearray(keys.spki_der(made(KeyAlgorithm.SECP256R1)))
    identifier[place % len(identifier)] = octet
    spki[place % len(spki)] = octet
    try:
        keys.verify(public(KeyAlgorithm.RSA2048), b"x" * 256, b"data", bytes(identifier))
    except InputError as error:
        assert error.what
    for read in (keys.load_public_key, keys.public_key_bits, keys.key_identifier):
        try:
            read(bytes(spki))
        except InputError as error:
            assert error.what


def test_a_key_of_another_kind_does_not_verify() -> None:
    data = b"data"
    for signer in (KeyAlgorithm.SECP256R1, KeyAlgorithm.ED25519, KeyAlgorithm.ED448, KeyAlgorithm.RSA2048):
        signature = keys.sign(made(signer), data)
        for other in (KeyAlgorithm.SECP384R1, KeyAlgorithm.ED25519, KeyAlgorithm.ED448, KeyAlgorithm.RSA3072):
            if other is not signer:
                assert not keys.verify(public(other), signature, data, keys.signature_algorithm(signer).der)


def test_high_s_signatures_are_accepted_as_x509_does() -> None:
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    r, s = decode_dss_signature(keys.sign(made(KeyAlgorithm.SECP256R1), b"data"))
    identifier = keys.signature_algorithm(KeyAlgorithm.SECP256R1).der
    for twin in (s, order - s):
        assert keys.verify(public(KeyAlgorithm.SECP256R1), encode_dss_signature(r, twin), b"data", identifier)


@pytest.mark.parametrize("salt", [0, 20, 32, 48, 64])
def test_pss_with_any_salt_is_verified(salt: int) -> None:
    key = made(KeyAlgorithm.RSA2048)
    assert isinstance(key, rsa.RSAPrivateKey)
    signature = key.sign(b"data", padding.PSS(padding.MGF1(hashes.SHA384()), salt), hashes.SHA512())
    identifier = pss_der(oids.SHA512, oids.SHA384, salt)
    assert keys.verify(key.public_key(), signature, b"data", identifier)
    assert not keys.verify(key.public_key(), signature, b"data", pss_der(oids.SHA512, oids.SHA384, salt + 1))
    assert not keys.verify(key.public_key(), signature, b"data", pss_der(oids.SHA512, oids.SHA512, salt))


@pytest.mark.parametrize(
    ("oid", "digest"),
    [
        (oids.SHA256_WITH_RSA, hashes.SHA256()),
        (oids.SHA384_WITH_RSA, hashes.SHA384()),
        (oids.SHA512_WITH_RSA, hashes.SHA512()),
    ],
)
def test_pkcs1_signatures_of_others_are_verified(oid: str, digest: hashes.HashAlgorithm) -> None:
    key = made(KeyAlgorithm.RSA2048)
    assert isinstance(key, rsa.RSAPrivateKey)
    signature = key.sign(b"data", padding.PKCS1v15(), digest)
    assert keys.verify(key.public_key(), signature, b"data", algorithm_der(oid, der.null()))
    assert not keys.verify(key.public_key(), signature, b"data", pss_der())


@pytest.mark.parametrize(
    "identifier",
    [
        algorithm_der(oids.SHA1_WITH_RSA, der.null()),
        algorithm_der(oids.MD5_WITH_RSA, der.null()),
        algorithm_der(oids.ECDSA_WITH_SHA1),
        algorithm_der(oids.ECDSA_WITH_SHA256, der.null()),
        algorithm_der(oids.ED448, der.null()),
        algorithm_der(oids.SHA256_WITH_RSA),
        algorithm_der(oids.SHA256_WITH_RSA, der.integer(1)),
        algorithm_der(oids.RSASSA_PSS),
        algorithm_der(oids.RSASSA_PSS, der.sequence()),
        pss_der(oids.SHA1),
        pss_der(oids.SHA256, oids.SHA1),
        pss_der(oids.SHA256, oids.SHA256, 600),
        pss_der(oids.SHA256, oids.SHA256, -1),
        pss_der(oids.SHA256, oids.SHA256, 32, der.explicit(3, der.integer(2))),
        pss_der(oids.SHA256, oids.SHA256, 32, der.explicit(4, der.integer(1))),
        algorithm_der("1.2.3.4"),
        der.sequence(),
        der.null(),
        b"",
    ],
)
def test_weak_unknown_and_malformed_algorithms_are_refused(identifier: bytes) -> None:
    with pytest.raises(InputError):
        keys.verify(public(KeyAlgorithm.RSA2048), b"x" * 256, b"data", identifier)


def test_keys_outside_the_list_are_refused_by_name() -> None:
    foreign = {
        "curve secp256k1": ec.generate_private_key(ec.SECP256K1()).public_key(),
        "curve secp224r1": ec.generate_private_key(ec.SECP224R1()).public_key(),
        "RSA of 1024 bits": rsa.generate_private_key(65537, 1024).public_key(),
        "RSA of 2056 bits": rsa.generate_private_key(65537, 2056).public_key(),
        "X25519": x25519.X25519PrivateKey.generate().public_key(),
    }
    for words, key in foreign.items():
        with pytest.raises(InputError, match=words):
            keys.algorithm_of(key)


def test_keys_that_cannot_sign_are_not_loaded() -> None:
    exchange = x25519.X25519PrivateKey.generate()
    public_format = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(InputError, match="X25519"):
        keys.load_public_key(exchange.public_key().public_bytes(*public_format))
    private_format = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    with pytest.raises(InputError, match="X25519"):
        private_keys.load_private_key(exchange.private_bytes(*private_format))
    with pytest.raises(InputError, match="DSA"):
        private_keys.load_private_key(dsa.generate_private_key(1024).private_bytes(*private_format))


def test_points_off_the_curve_are_refused() -> None:
    spki = bytearray(keys.spki_der(made(KeyAlgorithm.SECP256R1)))
    spki[-1] ^= 1
    with pytest.raises(InputError, match="public key cannot be read"):
        keys.load_public_key(bytes(spki))


def torsion_points() -> list[tuple[int, int]]:
    """Return the points of edwards25519 whose order divides 8, by arithmetic that shares nothing with the product."""
    p = 2**255 - 19
    d = -121665 * pow(121666, -1, p) % p

    def add(one: tuple[int, int], other: tuple[int, int]) -> tuple[int, int]:
        (x1, y1), (x2, y2) = one, other
        product = d * x1 * x2 * y1 * y2 % p
        x = (x1 * y2 + x2 * y1) * pow(1 + product, -1, p) % p
        return x, (y1 * y2 + x1 * x2) * pow(1 - product, -1, p) % p

    def point(y: int) -> tuple[int, int] | None:
        square = (y * y - 1) * pow(d * y * y + 1, -1, p) % p
        x = pow(square, (p + 3) // 8, p)
        x = x if x * x % p == square else x * pow(2, (p - 1) // 4, p) % p
        return (x, y) if x * x % p == square else None

    order = 2**252 + 27742317777372353535851937790883648493
    found = {(0, 1)}
    for y in range(2, 40):
        base = point(y)
        if base is None:
            continue
        multiple, scalar, doubled = (0, 1), order, base
        while scalar:  # order * base has only the small part of base left
            if scalar & 1:
                multiple = add(multiple, doubled)
            doubled, scalar = add(doubled, doubled), scalar >> 1
        small = multiple
        for _ in range(8):
            found.add(small)
            small = add(small, multiple)
    return sorted(found)


def test_every_ed25519_key_of_small_order_is_refused() -> None:
    points = torsion_points()
    assert len(points) == 8
    for x, y in points:
        encoded = (y | (x & 1) << 255).to_bytes(32, "little")
        spki = der.sequence(der.sequence(der.oid(oids.ED25519)), der.bit_string(encoded))
        with pytest.raises(InputError, match="small order"):
            keys.load_public_key(spki)


@pytest.mark.parametrize(
    ("oid", "encoded"),
    [
        (oids.ED25519, (2**255 - 19 + 3).to_bytes(32, "little")),
        (oids.ED25519, b"\xff" * 32),
        (oids.ED448, b"\x01" + bytes(56)),
        (oids.ED448, bytes(57)),
        (oids.ED448, (2**448 - 2**224 - 2).to_bytes(57, "little")),
        (oids.ED448, (2**448 - 1).to_bytes(57, "little")),
    ],
)
def test_edwards_keys_of_small_order_or_in_a_second_spelling_are_refused(oid: str, encoded: bytes) -> None:
    spki = der.sequence(der.sequence(der.oid(oid)), der.bit_string(encoded))
    with pytest.raises(InputError):
        keys.load_public_key(spki)


@pytest.mark.parametrize("algorithm", KeyAlgorithm)
def test_key_identifiers_agree_with_an_independent_library(algorithm: KeyAlgorithm) -> None:
    spki = keys.spki_der(made(algorithm))
    digest = x509.SubjectKeyIdentifier.from_public_key(made(algorithm).public_key()).digest
    assert keys.key_identifier(spki) == keys.key_identifier(spki, 20) == digest
    short = keys.key_identifier(spki, 8)
    assert len(short) == 8
    assert short[0] >> 4 == 0b0100
    assert int.from_bytes(short, "big") % 2**60 == int.from_bytes(digest, "big") % 2**60
    assert keys.spki_sha256(spki) == hashlib.sha256(spki).hexdigest()


def test_public_key_bits_have_no_octet_of_unused_bits() -> None:
    bits = keys.public_key_bits(keys.spki_der(made(KeyAlgorithm.SECP256R1)))
    assert (len(bits), bits[0]) == (65, 4)
    assert len(keys.public_key_bits(keys.spki_der(made(KeyAlgorithm.ED448)))) == 57


@pytest.mark.parametrize("algorithm", KeyAlgorithm)
def test_every_key_survives_encryption(algorithm: KeyAlgorithm) -> None:
    pem = private_keys.encrypt_private_key(made(algorithm), b"correct horse")
    assert keys.spki_der(private_keys.decrypt_private_key(pem, b"correct horse")) == keys.spki_der(made(algorithm))
    with pytest.raises(SignerError, match="cannot be opened"):
        private_keys.decrypt_private_key(pem, b"wrong horse")


@pytest.mark.parametrize("algorithm", [KeyAlgorithm.SECP256R1, KeyAlgorithm.ED448, KeyAlgorithm.RSA2048])
def test_every_key_survives_plain_serialisation(algorithm: KeyAlgorithm) -> None:
    pem = private_keys.serialise_private_key(made(algorithm))
    assert keys.spki_der(private_keys.load_private_key(pem)) == keys.spki_der(made(algorithm))
    (block,) = der.pem_blocks(pem, max_bytes=10_000)
    assert block.label == "PRIVATE KEY"
    assert keys.spki_der(private_keys.load_private_key(block.der)) == keys.spki_der(made(algorithm))


def scrypt_of(pem: bytes) -> tuple[int, int, int, int]:
    """Return N, r, p and the length of the salt of an encrypted key, from its DER."""
    (block,) = der.pem_blocks(pem, max_bytes=10_000)
    assert block.label == "ENCRYPTED PRIVATE KEY"
    algorithm, _ = der.parse(block.der).children(der.SEQUENCE)
    scheme, parameters = algorithm.children(der.SEQUENCE)
    assert scheme.as_oid() == "1.2.840.113549.1.5.13"  # PBES2
    derivation, cipher = parameters.children(der.SEQUENCE)
    assert cipher.children(der.SEQUENCE)[0].as_oid() == "2.16.840.1.101.3.4.1.42"  # AES-256-CBC
    function, values = derivation.children(der.SEQUENCE)
    assert function.as_oid() == "1.3.6.1.4.1.11591.4.11"  # scrypt
    salt, n, r, p, length = values.children(der.SEQUENCE)
    assert length.as_integer() == 32
    return n.as_integer(), r.as_integer(), p.as_integer(), len(salt.as_octets())


def test_scrypt_cost_in_the_der_is_at_least_2_to_the_15() -> None:
    n, r, p, salt = scrypt_of(private_keys.encrypt_private_key(made(KeyAlgorithm.SECP256R1), b"pw"))
    assert n >= 2**15
    assert r * p >= 7
    assert salt >= 16
    assert scrypt_of(private_keys.encrypt_private_key(made(KeyAlgorithm.SECP256R1), b"pw", n=2**16))[0] == 2**16


def test_scrypt_cost_below_2_to_the_15_is_a_mistake_of_the_caller() -> None:
    for n in (2**14, 2**15 + 1, 0):
        with pytest.raises(ValueError, match="scrypt cost"):
            private_keys.encrypt_private_key(made(KeyAlgorithm.SECP256R1), b"pw", n=n)


def test_salt_and_iv_are_fresh_each_time() -> None:
    one, other = (private_keys.encrypt_private_key(made(KeyAlgorithm.SECP256R1), b"pw") for _ in range(2))
    assert one != other


def test_empty_passphrases_are_refused() -> None:
    with pytest.raises(SignerError, match="empty"):
        private_keys.encrypt_private_key(made(KeyAlgorithm.SECP256R1), b"")


@pytest.mark.foreign
@pytest.mark.parametrize("algorithm", [KeyAlgorithm.SECP521R1, KeyAlgorithm.ED448, KeyAlgorithm.RSA2048])
def test_openssl_reads_the_encrypted_key(algorithm: KeyAlgorithm, tmp_path: Path) -> None:
    need(Tool.OPENSSL)
    path = tmp_path / "ca.key"
    path.write_bytes(private_keys.encrypt_private_key(made(algorithm), b"correct horse"))
    (tmp_path / "right").write_text("correct horse\n")
    (tmp_path / "wrong").write_text("wrong horse\n")
    right = run("openssl", "pkey", "-in", path, "-passin", f"file:{tmp_path / 'right'}", "-pubout")
    assert right.returncode == 0, right.stderr
    (block,) = der.pem_blocks(right.stdout.encode(), max_bytes=10_000)
    assert block.der == keys.spki_der(made(algorithm))
    assert run("openssl", "pkey", "-in", path, "-passin", f"file:{tmp_path / 'wrong'}", "-noout").returncode != 0


def test_keys_encrypted_by_another_library_are_opened() -> None:
    pem = made(KeyAlgorithm.SECP256R1).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"pw"),
    )
    assert keys.spki_der(private_keys.decrypt_private_key(pem, b"pw")) == keys.spki_der(made(KeyAlgorithm.SECP256R1))


def test_key_files_that_demand_absurd_memory_are_refused_before_any_derivation() -> None:
    values = der.sequence(der.octet_string(b"s" * 16), der.integer(2**40), der.integer(8), der.integer(1))
    parameters = der.sequence(
        der.sequence(der.oid(oids.SCRYPT), values), der.sequence(der.oid(oids.AES256_CBC), der.octet_string(bytes(16)))
    )
    info = der.sequence(der.sequence(der.oid(oids.PBES2), parameters), der.octet_string(bytes(32)))
    with pytest.raises(SignerError) as caught:
        private_keys.decrypt_private_key(der.to_pem("ENCRYPTED PRIVATE KEY", info).encode(), b"pw")
    assert "memory" in str(caught.value.__cause__)


@settings(max_examples=examples(40))
@given(st.integers(0, 400), st.integers(0, 255))
def test_no_mutated_key_file_raises_anything_but_a_signer_error(place: int, octet: int) -> None:
    (block,) = der.pem_blocks(ENCRYPTED, max_bytes=10_000)
    mutated = bytearray(block.der)
    mutated[place % 120] = octet  # the structure; behind it is ciphertext
    try:
        private_keys.decrypt_private_key(der.to_pem(block.label, bytes(mutated)).encode(), b"pw")
    except SignerError as error:
        assert error.what


@pytest.mark.parametrize(
    "junk", [b"", b"junk", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", b"\x30\x00"]
)
def test_what_is_no_key_is_refused(junk: bytes) -> None:
    with pytest.raises(InputError, match="no private key"):
        private_keys.load_private_key(junk)
    with pytest.raises(SignerError):
        private_keys.decrypt_private_key(junk, b"pw")


def test_plain_and_encrypted_keys_are_told_apart() -> None:
    with pytest.raises(SignerError, match="encrypted"):
        private_keys.load_private_key(ENCRYPTED)
    with pytest.raises(SignerError):
        private_keys.decrypt_private_key(private_keys.serialise_private_key(made(KeyAlgorithm.SECP256R1)), b"pw")


def test_sign_refuses_a_curve_that_has_no_signature_algorithm() -> None:
    with pytest.raises(InputError, match="secp256k1"):
        keys.sign(ec.generate_private_key(ec.SECP256K1()), b"data")


ENCRYPTED = private_keys.encrypt_private_key(made(KeyAlgorithm.SECP256R1), b"pw")


@pytest.mark.parametrize("octets", [0, 55, 57, 128])
def test_an_x448_key_of_another_length_is_one_clear_error(octets: int) -> None:
    """The library has no words for OpenSSL's refusal, and calls it an internal error."""
    algorithm = der.sequence(der.oid("1.3.101.111"))
    private = der.sequence(der.integer(0), algorithm, der.octet_string(der.octet_string(bytes(octets))))
    with pytest.raises(InputError, match="no private key can be read"):
        private_keys.load_private_key(private)
    with pytest.raises(InputError):
        keys.load_public_key(der.sequence(algorithm, der.bit_string(bytes(octets))))
