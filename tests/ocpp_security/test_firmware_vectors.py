"""The signature step against NIST's vectors for FIPS 186-3 (in the package cryptography-vectors)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator

import cryptography_vectors
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from chargepki.ocpp_security.firmware_signature import verify_digest
from chargepki.ocpp_security.firmware_verdict import FirmwareRefusal
from chargepki.pki.keys import PublicKey


def read(name: str) -> list[str]:
    with cryptography_vectors.open_vector_file(name, "r") as stream:
        return [line.strip() for line in stream]


def cases(lines: list[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield (section, fields); a field stays until the next one of its name, and Result ends a case."""
    section, fields = "", dict[str, str]()
    for line in lines:
        if line.startswith("["):
            section, fields = line.strip("[]"), {}
        elif match := re.match(r"(\w+) = (.*)", line):
            fields[match[1]] = match[2]
            if match[1] == "Result":
                yield section, dict(fields)


def holds(key: PublicKey, signature: bytes, message: str) -> bool:
    try:
        verify_digest(key, signature, hashlib.sha256(bytes.fromhex(message)).digest())
    except FirmwareRefusal as refusal:
        assert refusal.status == "InvalidSignature"
        return False
    return True


@pytest.mark.parametrize(
    ("section", "curve"),
    [("P-256,SHA-256", ec.SECP256R1()), ("P-384,SHA-256", ec.SECP384R1()), ("P-521,SHA-256", ec.SECP521R1())],
)
def test_ecdsa_vectors(section: str, curve: ec.EllipticCurve) -> None:
    verdicts = []
    for found, fields in cases(read("asymmetric/ECDSA/FIPS_186-3/SigVer.rsp")):
        if found != section:
            continue
        key = ec.EllipticCurvePublicNumbers(int(fields["Qx"], 16), int(fields["Qy"], 16), curve).public_key()
        signature = encode_dss_signature(int(fields["R"], 16), int(fields["S"], 16))
        verdicts.append(holds(key, signature, fields["Msg"]))
        assert verdicts[-1] == fields["Result"].startswith("P"), fields
    assert len(verdicts) == 15
    assert set(verdicts) == {True, False}


@pytest.mark.parametrize("bits", [2048, 3072, 4096])
def test_rsa_pss_vectors(bits: int) -> None:
    verdicts = []
    for found, fields in cases(read("asymmetric/RSA/FIPS_186-2/SigVerPSS_186-3.rsp")):
        if found != f"mod = {bits}" or fields["SHAAlg"] != "SHA256":
            continue
        key = rsa.RSAPublicNumbers(int(fields["e"], 16), int(fields["n"], 16)).public_key()
        verdicts.append(holds(key, bytes.fromhex(fields["S"]), fields["Msg"]))
        assert verdicts[-1] == fields["Result"].startswith("P"), fields
    assert len(verdicts) == 18
    assert set(verdicts) == {True, False}
