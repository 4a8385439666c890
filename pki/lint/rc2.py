"""RC2 in CBC mode, for reading: the cipher under which older tools export certificates (40 bits of key)."""

from __future__ import annotations

import struct
from typing import Final

__all__ = ["decrypt_cbc"]

# RFC 2268 2: a permutation of the octets "based on the digits of pi".
_PI: Final = bytes.fromhex(
    "d978f9c419ddb5ed28e9fd794aa0d89dc67e37832b76538e624c6488448bfba2179a59f587b34f1361456d8d09817d32"
    "bd8f40eb86b77b0bf09521225c6b4e8254d66593ce60b21c7356c014a78cf1dc1275ca1f3bbee4d1423dd430a33cb626"
    "6fbf0eda4669075727f21d9bbc944303f811c7f690ef3ee706c3d52fc8661ed708e8eade8052eef784aa72ac354d6a2a"
    "961ad2715a1549744b9fd05e0418a4ecc2e0416e0f51cbcc2491af50a1f47039997c3a8523b8b47afc02365b25559731"
    "2d5dfa98e38a92ae05df2910676cbac9d300e6cfe19ea82c6316013f58e289a90d38341bab33ffb0bb480c5fb9b1cd2e"
    "c5f3db47e5a59c770aa62068fe7fc1ad"
)
_SHIFTS: Final = (1, 2, 3, 5)


def decrypt_cbc(key: bytes, effective_bits: int, vector: bytes, sealed: bytes) -> bytes:
    """Return the plain octets, padding included; *sealed* is whole blocks of 8 octets.

    Clause: RFC 2268 2 to 4.

    >>> key = bytes.fromhex("88bca90e90875a7f0f79c384627bafb2")
    >>> decrypt_cbc(key, 128, bytes(8), bytes.fromhex("2269552ab0f85ca6")).hex()
    '0000000000000000'
    """
    schedule = _schedule(key, effective_bits)
    plain = bytearray()
    for at in range(0, len(sealed), 8):
        block = sealed[at : at + 8]
        plain += bytes(a ^ b for a, b in zip(_block(schedule, block), vector, strict=True))
        vector = block
    return bytes(plain)


def _schedule(key: bytes, bits: int) -> tuple[int, ...]:
    expanded = bytearray(key)
    size = len(key)
    while len(expanded) < 128:
        expanded.append(_PI[(expanded[-1] + expanded[-size]) & 0xFF])
    octets = (bits + 7) // 8
    expanded[128 - octets] = _PI[expanded[128 - octets] & (0xFF >> (8 * octets - bits))]
    for at in range(127 - octets, -1, -1):
        expanded[at] = _PI[expanded[at + 1] ^ expanded[at + octets]]
    return struct.unpack("<64H", bytes(expanded))


def _block(schedule: tuple[int, ...], block: bytes) -> bytes:
    words = list(struct.unpack("<4H", block))
    at = 63
    for rounds in (5, 6, 5):
        for _ in range(rounds):
            for i in (3, 2, 1, 0):
                turn = _SHIFTS[i]
                word = (words[i] >> turn | words[i] << 16 - turn) & 0xFFFF
                a, b, c = words[i - 1], words[i - 2], words[i - 3]
                words[i] = (word - schedule[at] - (a & b) - (~a & c)) & 0xFFFF
                at -= 1
        if at > 0:
            for i in (3, 2, 1, 0):
                words[i] = (words[i] - schedule[words[i - 1] & 63]) & 0xFFFF
    return struct.pack("<4H", *words)
