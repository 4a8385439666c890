"""Say whether an encoded point is fit to be a public key; pure arithmetic, a few microseconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from chargepki.pki import oids

__all__ = ["is_degenerate", "is_on_curve"]


@dataclass(frozen=True, slots=True)
class _Curve:
    """y^2 = x^3 - 3x + b over the prime p (SP 800-186 3.2.1); coordinates have `size` octets."""

    p: int
    b: int
    size: int


_CURVES: Final = {
    oids.SECP256R1: _Curve(
        2**256 - 2**224 + 2**192 + 2**96 - 1,
        0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B,
        32,
    ),
    oids.SECP384R1: _Curve(
        2**384 - 2**128 - 2**96 + 2**32 - 1,
        0xB3312FA7E23EE7E4988E056BE3F82D19181D9C6EFE8141120314088F5013875AC656398D8A2ED19D2A85C8EDD3EC2AEF,
        48,
    ),
    oids.SECP521R1: _Curve(
        2**521 - 1,
        0x0051953EB9618E1C9A1F929A21A0B68540EEA2DA725B99B315F3B8B489918EF109E156193951EC7E937B1652C0BD3BB1BF073573DF883D2C34F1EF451FD46B503F00,
        66,
    ),
}


def is_on_curve(curve: str, point: bytes) -> bool | None:
    """Judge *point* (SEC 1 encoding) against the curve with dotted OID *curve*; ``None`` for a curve we do not know.

    The cofactor of these curves is 1, so every point on them is in the right group.
    """
    parameters = _CURVES.get(curve)
    if parameters is None:
        return None
    p, size = parameters.p, parameters.size
    form = point[:1]
    if form in (b"\2", b"\3") and len(point) == 1 + size:
        x = int.from_bytes(point[1:], "big")
        # Euler's criterion: the compressed form is a point when the right side is a square.
        return x < p and pow((x * x - 3) * x + parameters.b, (p - 1) // 2, p) in (0, 1)
    if form != b"\4" or len(point) != 1 + 2 * size:
        return False
    x, y = int.from_bytes(point[1 : 1 + size], "big"), int.from_bytes(point[1 + size :], "big")
    return x < p and y < p and (y * y - (x * x - 3) * x - parameters.b) % p == 0


_P25519: Final = 2**255 - 19
_P448: Final = 2**448 - 2**224 - 1
# y of the eight points of edwards25519 whose order divides its cofactor; minus one is p - 1.
_Y_OF_ORDER_8: Final = 0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7
_SMALL_ORDER: Final = {
    oids.ED25519: (
        _P25519,
        255,
        frozenset({0, 1, _P25519 - 1, _Y_OF_ORDER_8, _P25519 - _Y_OF_ORDER_8}),
    ),
    oids.ED448: (_P448, 448, frozenset({0, 1, _P448 - 1})),
}


def is_degenerate(algorithm: str, encoded: bytes) -> bool:
    """Return whether *encoded*, an Ed25519 or Ed448 public key, is of small order or not the canonical encoding.

    Everybody can sign for a key of small order: half of all messages, or one in eight, verify with the same octets. A
    coordinate above the prime is a second spelling of another key. False for every other algorithm.

    Clause: RFC 8032 5.1.3, 5.2.3; RFC 7748 6 (the same points for key agreement).
    """
    found = _SMALL_ORDER.get(algorithm)
    if found is None:
        return False
    p, bits, small = found
    y = int.from_bytes(encoded, "little") & ((1 << bits) - 1)  # the topmost bit is the sign of x
    return y >= p or y in small
