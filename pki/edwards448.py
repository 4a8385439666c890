"""The secret scalar of an Ed448 key, and whether a scalar is that of a public key (RFC 8032 section 5.2).

ISO 15118-20 moves the key of an Ed448 contract certificate as a number of 448 bits that lies below the order of the
base point and yields the public key when it multiplies it (V2G20-2500 to 2510). RFC 8032's private key is another
thing, 57 random bytes; its secret scalar, reduced by the order, is that number.

Multiplication is not of constant time: it is for a vehicle that checks what it was given, here in a test of a back end.
"""

from __future__ import annotations

import hashlib
from typing import Final

__all__ = ["ORDER", "SCALAR_BYTES", "public_key_of", "secret_scalar"]

SCALAR_BYTES: Final = 56
_P: Final = (1 << 448) - (1 << 224) - 1
_D: Final = -39081 % _P
ORDER: Final = (1 << 446) - 0x8335DC163BB124B65129C96FDE933D8D723A70AADC873D6D54A7BB0D
"""Of the base point, L of RFC 8032 section 5.2."""
_BASE: Final = (
    224580040295924300187604334099896036246789641632564134246125461686950415467406032909029192869357953282578032075146446173674602635247710,
    298819210078481492676017930443930673437544040154080242095928241372331506189835876003536878655418784733982303233503462500531545062832660,
)
_SEED_BYTES: Final = 57
_Point = tuple[int, int, int]


def secret_scalar(seed: bytes) -> int:
    """Return the secret scalar of a private key of RFC 8032, reduced by the order.

    Args:
        seed: the private key, 57 bytes.
    """
    half = bytearray(hashlib.shake_256(seed).digest(2 * _SEED_BYTES)[:_SEED_BYTES])
    half[0] &= 0xFC
    half[55] |= 0x80
    half[56] = 0
    return int.from_bytes(half, "little") % ORDER


def public_key_of(scalar: int) -> bytes:
    """Return the public key, 57 bytes, of a scalar: its product with the base point."""
    total, power = (0, 1, 1), (*_BASE, 1)
    while scalar:
        if scalar & 1:
            total = _add(total, power)
        power = _add(power, power)
        scalar >>= 1
    inverse = pow(total[2], -1, _P)
    x, y = total[0] * inverse % _P, total[1] * inverse % _P
    encoded = bytearray(y.to_bytes(_SEED_BYTES, "little"))
    encoded[-1] |= (x & 1) << 7
    return bytes(encoded)


def _add(first: _Point, second: _Point) -> _Point:
    """Add two points in projective coordinates (RFC 8032 section 5.2.4)."""
    (x1, y1, z1), (x2, y2, z2) = first, second
    a = z1 * z2 % _P
    b, c, d = a * a % _P, x1 * x2 % _P, y1 * y2 % _P
    e = _D * c * d % _P
    f, g, h = b - e, b + e, (x1 + y1) * (x2 + y2) - c - d
    return a * f * h % _P, a * g * (d - c) % _P, f * g % _P
