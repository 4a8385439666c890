"""Requests of the usual shape: the quick reader finds what the careful one finds, or leaves the request to it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chargepki.pki import csr, der, oids
from chargepki.pki.csr import CertificateRequest, parse_csr
from chargepki.pki.csr_usual import read_usual
from chargepki.pki.errors import InputError
from chargepki.pki.keys import KeyAlgorithm
from chargepki.pki.names import build_name
from testkit.effort import examples
from testkit.requests import EVEREST_EXTENSIONS, key_of, make_csr

PAIRS = [("C", "DE"), ("O", "Test CSO"), ("CN", "CS-0001")]
SAMPLES = (
    make_csr(build_name(PAIRS)),
    make_csr(build_name(PAIRS), extensions=EVEREST_EXTENSIONS),
    make_csr(build_name([*PAIRS, ("OU", "x" * 64), ("L", "y" * 60)])),
)


def outcome(data: bytes) -> CertificateRequest | str:
    """Return what reading *data* gives, without the key object, which has no equality of its own."""
    try:
        found = parse_csr(data)
    except InputError as exc:
        return f"{type(exc).__name__}: {exc.what} {exc.why}"
    return found


def fields(found: CertificateRequest | str) -> object:
    if isinstance(found, str):
        return found
    return [getattr(found, name) for name in CertificateRequest.__slots__ if name != "public_key"]


def agree(data: bytes) -> bool:
    """Hold both readers together; return whether the quick one answered."""
    quick = outcome(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csr, "read_usual", lambda _: None)
        careful = outcome(data)
    assert fields(quick) == fields(careful)
    return read_usual(data) is not None


def test_requests_of_stations_are_read_quickly() -> None:
    assert [agree(sample) for sample in SAMPLES] == [True, True, True]


def test_other_keys_and_signatures_are_left_to_the_careful_reader() -> None:
    others = [KeyAlgorithm.SECP384R1, KeyAlgorithm.ED25519, KeyAlgorithm.RSA2048]
    assert not any(agree(make_csr(build_name(PAIRS), key_of(algorithm))) for algorithm in others)
    request = parse_csr(SAMPLES[0])
    without = der.sequence(der.integer(0), request.subject_der, request.spki_der)
    parts = (request.signature_algorithm_der, der.bit_string(request.signature))
    assert not agree(der.sequence(without, *parts))
    other = der.sequence(der.oid(oids.ECDSA_WITH_SHA384))
    assert not agree(der.sequence(request.info_der, other, der.bit_string(request.signature)))


@settings(max_examples=examples(60))
@given(
    sample=st.sampled_from(SAMPLES),
    edits=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255), st.integers(0, 3)), min_size=1, max_size=3),
)
def test_damaged_requests_are_told_alike_by_both_readers(sample: bytes, edits: list[tuple[int, int, int]]) -> None:
    changed = bytearray(sample)
    for place, octet, how in edits:
        at = place % max(1, len(changed))
        if how == 0:
            changed[at : at + 1] = bytes([octet])
        elif how == 1:
            changed[at] ^= 1 << octet % 8
        elif how == 2:
            changed[at:at] = bytes([octet])
        else:
            del changed[at]
    agree(bytes(changed))


@settings(max_examples=examples(12))
@given(sample=st.sampled_from(SAMPLES), octet=st.integers(0, 255))
def test_every_header_octet_is_judged_alike(sample: bytes, octet: int) -> None:
    """The lengths and tags of the frame, each with any value: where a reader in strides could be careless."""
    request = parse_csr(sample)
    at = sample.index(request.spki_der)
    end = sample.index(request.info_der) + len(request.info_der)
    for place in (0, 1, 2, 3, 4, 5, 6, 7, 8, at, at + 1, at + len(request.spki_der), end, end + 12, end + 13, end + 14):
        changed = bytearray(sample)
        changed[place] = octet
        agree(bytes(changed))
