"""The least strength of a key that a path may rely on: 112 bits, as OCPP asks of every certificate (A00.FR.501-503)."""

from __future__ import annotations

from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from chargepki.pki import keys
from chargepki.pki.errors import InputError

__all__ = ["STRONG_KEYS", "weakness"]

_LEAST_RSA_BITS: Final = 2048
_LEAST_CURVE_BITS: Final = 224


STRONG_KEYS: Final = tuple(
    bytes.fromhex(start)
    for start in (
        "3059301306072a8648ce3d020106082a8648ce3d030107",  # P-256
        "3076301006072a8648ce3d020106052b81040022",  # P-384
        "30819b301006072a8648ce3d020106052b81040023",  # P-521
        "302a300506032b6570",  # Ed25519
        "3043300506032b6571",  # Ed448
        "30820122300d06092a864886f70d01010105000382010f003082010a0282010100",  # RSA of 2048, the usual exponent
        "308201a2300d06092a864886f70d01010105000382018f003082018a0282018100",  # RSA of 3072
        "30820222300d06092a864886f70d01010105000382020f003082020a0282020100",  # RSA of 4096
    )
)
"""First octets of the SubjectPublicKeyInfo of algorithms whose keys are all of one, sufficient, strength.

Those of RSA end in the octet that DER needs before a modulus of full length only; shorter ones with it cannot be read.
"""


def weakness(spki: bytes) -> str:
    """Return what is too weak about a SubjectPublicKeyInfo (DER), or an empty text.

    A key that cannot be read is not called weak: no signature of it is accepted anyway.

    Clause: OCPP 2.0.1 A00.FR.501 to 503 (at least 112 bits: RSA of 2048, elliptic curves of 224).
    """
    if spki.startswith(STRONG_KEYS):
        return ""
    try:
        key = keys.load_public_key(spki)
    except InputError:
        return ""
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < _LEAST_RSA_BITS:
        return f"RSA of {key.key_size} bits, and {_LEAST_RSA_BITS} is the least"
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.key_size < _LEAST_CURVE_BITS:
        return f"curve {key.curve.name} has {key.curve.key_size} bits, and {_LEAST_CURVE_BITS} is the least"
    return ""
