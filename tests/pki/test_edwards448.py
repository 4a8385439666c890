"""The secret scalar of Ed448 against RFC 8032's vectors and the library's own public keys."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ed448

from chargepki.pki.edwards448 import ORDER, public_key_of, secret_scalar

# RFC 8032 section 7.4, "-----Blank" and "-----1 octet".
VECTORS = [
    (
        "6c82a562cb808d10d632be89c8513ebf6c929f34ddfa8c9f63c9960ef6e348a3528c8a3fcc2f044e39a3fc5b94492f8f032e7549a20098f95b",
        "5fd7449b59b461fd2ce787ec616ad46a1da1342485a70e1f8a0ea75d80e96778edf124769b46c7061bd6783df1e50f6cd1fa1abeafe8256180",
    ),
    (
        "c4eab05d357007c632f3dbb48489924d552b08fe0c353a0d4a1f00acda2c463afbea67c5e8d2877c5e3bc397a659949ef8021e954e0a12274e",
        "43ba28f430cdff456ae531545f7ecd0ac834a55d9358c0372bfa0c6c6798c0866aea01eb00742802b8438ea4cb82169c235160627b4c3a9480",
    ),
]


@pytest.mark.parametrize(("private", "public"), VECTORS)
def test_vectors_of_rfc_8032(private: str, public: str) -> None:
    assert public_key_of(secret_scalar(bytes.fromhex(private))).hex() == public


def test_every_key_of_the_library_is_the_product_of_its_scalar() -> None:
    for number in range(8):
        key = ed448.Ed448PrivateKey.from_private_bytes(bytes([number]) * 57)
        scalar = secret_scalar(key.private_bytes_raw())
        assert 0 < scalar < ORDER
        assert public_key_of(scalar) == key.public_key().public_bytes_raw()
    assert public_key_of(ORDER) == public_key_of(0) == b"\x01" + bytes(56)
