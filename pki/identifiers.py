"""Identifiers of e-mobility: EMAID, PCID, EVSEID, SECCID and EVCCID; syntax, normal form, check digits."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Self

from chargepki.pki.errors import InputError

__all__ = ["Emaid", "EvccId", "EvseId", "Pcid", "SeccId"]

_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_MAX_TEXT: Final = 255  # ISO 15118-20 identifierType

# Separators: all or none (OPCP); ISO 15118-2 Annex H.1 shows both forms.
_EMAID: Final = re.compile(r"([A-Z]{2})(-?)([0-9A-Z]{3})\2([0-9A-Z]{9})(?:\2([0-9A-Z]))?\Z")
_PCID: Final = re.compile(r"([0-9A-Z]{3})([0-9A-Z]{14})([0-9A-Z])?\Z")
_EVSE_ISO: Final = re.compile(r"([A-Z]{2})\*?([0-9A-Z]{3})\*?E([0-9A-Z][0-9A-Z*]{0,29})\Z")
_EVSE_DIN: Final = re.compile(r"\+?([0-9]{1,3})\*([0-9]{3,6})\*([0-9][0-9*]{0,31})\Z")
_SECC: Final = re.compile(r"([A-Z]{2})-?([0-9A-Z]{3})-?S-?([0-9A-Z]{32,})-?([0-9A-Z])\Z")
_EVCC: Final = re.compile(r"([0-9A-Z]{3})-?V-?([0-9A-Z]{15,})-?([0-9A-Z])\Z")


def _upper(text: str, kind: str, form: str, maximum: int = _MAX_TEXT) -> str:
    # ASCII only, before upper(): a dotless i or a sharp s would otherwise fold into letters of the alphabet.
    if not text.isascii() or not 1 <= len(text) <= maximum:
        raise _refusal(text, kind, form)
    return text.upper()


def _refusal(text: str, kind: str, form: str) -> InputError:
    return InputError(f"{text[:_MAX_TEXT]!r} is not {kind}", fix=f"expected {form}")


@dataclass(frozen=True, slots=True)
class Emaid:
    """E-mobility account identifier, the name of a contract (ISO 15118-2 Annex H.1).

    >>> Emaid.parse("de-8aa-001234567").normalised
    'DE8AA001234567'
    """

    text: str
    """As it was written."""
    country: str
    provider: str
    instance: str
    check_digit: str | None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read 14 characters, 15 with check digit, or 16 and 18 with hyphens between the parts; any case.

        Raises:
            InputError: another form. A wrong check digit is no error: see `check_digit_ok`.
        """
        form = "country (2 letters), provider (3), instance (9), optional check digit, hyphens everywhere or nowhere"
        match = _EMAID.match(_upper(text, "an EMAID", form))
        if not match:
            raise _refusal(text, "an EMAID", form)
        return cls(text, match[1], match[3], match[4], match[5])

    def __str__(self) -> str:
        return self.text

    @property
    def account(self) -> str:
        """The 14 characters that identify the contract: upper case, no separators, no check digit. Look up by these."""
        return self.country + self.provider + self.instance

    @property
    def normalised(self) -> str:
        """Upper case without separators, with the check digit if there is one: the form for certificates and XML."""
        return self.account + (self.check_digit or "")

    def same(self, other: Emaid) -> bool:
        """Return whether both name one contract; check digits count only when both have one."""
        digits = (self.check_digit, other.check_digit)
        return self.account == other.account and (None in digits or digits[0] == digits[1])

    def expected_check_digit(self) -> str:
        """Return the check digit of the eMI3/OCHP algorithm.

        >>> Emaid.parse("UKSWI123456791A").expected_check_digit()
        '5'
        """
        return _emaid_check_digit(self.account)

    @property
    def check_digit_ok(self) -> bool | None:
        """Whether the check digit is right; None without one. Wrong ones are in the field: warn, do not refuse."""
        return None if self.check_digit is None else self.check_digit == self.expected_check_digit()


def _emaid_check_digit(account: str) -> str:
    """Return the check character of 14 characters.

    Each character is split in the mixed radix (2, 2, 3, 3). The upper two digits are a row vector over Z2, weighted by
    powers of P1 = [[0, 1], [1, 1]]; the lower two one over Z3, by powers of P2 = [[0, 1], [1, 2]]. The check character
    brings both sums to zero at position 15.
    """
    sum_two = (0, 0)
    sum_three = (0, 0)
    # Horner from the last position: (((v14 P + v13) P + ...) + v1) P gives each character its power.
    for char in reversed(account):
        index = _ALPHABET.index(char)
        high = ((sum_two[0] + index // 18) % 2, (sum_two[1] + index // 9) % 2)
        low = ((sum_three[0] + index // 3) % 3, (sum_three[1] + index) % 3)
        sum_two = (high[1], (high[0] + high[1]) % 2)
        sum_three = (low[1], (low[0] + 2 * low[1]) % 3)
    for index, char in enumerate(_ALPHABET):
        # P1 has order 3, so its 15th power is the identity; P2 has order 8, so its 15th power is its 7th.
        if (index // 18, index // 9 % 2) != sum_two:
            continue
        low = (index // 3 % 3, index % 3)
        for _ in range(7):
            low = (low[1], (low[0] + 2 * low[1]) % 3)
        if (low[0] + sum_three[0]) % 3 == 0 and (low[1] + sum_three[1]) % 3 == 0:
            return char
    raise AssertionError("the map from characters to check sums is a bijection")


@dataclass(frozen=True, slots=True)
class Pcid:
    """Provisioning certificate identifier of a vehicle; its check character's algorithm is not public."""

    text: str
    """As it was written."""
    manufacturer: str
    """World manufacturer identifier (ISO 3780), 3 characters."""
    identifier: str
    check_digit: str | None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read 17 letters and digits, or 18 with the check character; any case.

        Raises:
            InputError: another form.
        """
        form = "17 letters and digits, or 18 with the check character"
        match = _PCID.match(_upper(text, "a PCID", form))
        if not match:
            raise _refusal(text, "a PCID", form)
        return cls(text, match[1], match[2], match[3])

    def __str__(self) -> str:
        return self.text

    @property
    def normalised(self) -> str:
        """Upper case."""
        return self.text.upper()


@dataclass(frozen=True, slots=True)
class EvseId:
    """Identifier of a charging point: the ISO 15118 form, or the numeric one of DIN SPEC 91286."""

    text: str
    """As it was written."""
    country: str
    """Two letters; in the DIN form the telephone code."""
    operator: str
    outlet: str
    """Without the letter E that precedes it in the ISO form; may hold separators."""
    din: bool

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read 7 to 37 characters such as ``DE*ICE*E45B*78C``, or ``+49*123*456``; any case.

        Raises:
            InputError: another form.
        """
        form = "country (2 letters), operator (3), E, outlet (up to 30), separated by * or not; 7 to 37 characters"
        upper = _upper(text, "an EVSEID", form, 37)
        if match := _EVSE_ISO.match(upper):
            return cls(text, match[1], match[2], match[3], din=False)
        if match := _EVSE_DIN.match(upper):
            return cls(text, match[1], match[2], match[3], din=True)
        raise _refusal(text, "an EVSEID", form)

    @staticmethod
    def fits(text: str) -> bool:
        """Whether `parse` would read *text*, without reading it."""
        return bool(text.isascii() and len(text) <= 37 and (_EVSE_ISO.match(text.upper()) or _EVSE_DIN.match(text)))

    def __str__(self) -> str:
        return self.text

    @property
    def normalised(self) -> str:
        """ISO form: upper case without any separator; DIN form: with them, since its parts have no fixed length."""
        if self.din:
            return f"+{self.country}*{self.operator}*{self.outlet}"
        return f"{self.country}{self.operator}E{self.outlet.replace('*', '')}"


@dataclass(frozen=True, slots=True)
class SeccId:
    """Identifier of a charging station's controller (ISO 15118-20); its check character's algorithm is not public."""

    text: str
    """As it was written."""
    country: str
    operator: str
    controller: str
    check_digit: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read 39 to 64 characters such as ``DE-ICE-S-00003C4D557878675645330967543476-2``; any case.

        Raises:
            InputError: another form.
        """
        form = "country (2 letters), operator (3), S, controller (32 or more), check character; 39 to 64 characters"
        match = _SECC.match(_upper(text, "a SECCID", form, 64))
        if not match:
            raise _refusal(text, "a SECCID", form)
        return cls(text, match[1], match[2], match[3], match[4])

    @staticmethod
    def fits(text: str) -> bool:
        """Whether `parse` would read *text*, without reading it."""
        return bool(text.isascii() and len(text) <= 64 and _SECC.match(text.upper()))

    def __str__(self) -> str:
        return self.text

    @property
    def normalised(self) -> str:
        """Upper case without separators."""
        return f"{self.country}{self.operator}S{self.controller}{self.check_digit}"


@dataclass(frozen=True, slots=True)
class EvccId:
    """Identifier of a vehicle's controller (ISO 15118-20 C.5, C.6), the CN of a vehicle certificate."""

    text: str
    """As it was written."""
    manufacturer: str
    """World manufacturer identifier, 3 characters."""
    identifier: str
    check_digit: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read 20 to 64 characters such as ``WMIV1234567890ABCDEX``, hyphens between the parts allowed; any case.

        Raises:
            InputError: another form. Letters that C.5 bans are no error: see `has_banned_letters`.
        """
        form = "manufacturer (3), V, identifier (15 or more), check character; 20 to 64 characters"
        match = _EVCC.match(_upper(text, "an EVCCID", form, 64))
        if not match:
            raise _refusal(text, "an EVCCID", form)
        return cls(text, match[1], match[2], match[3])

    def __str__(self) -> str:
        return self.text

    @property
    def normalised(self) -> str:
        """Upper case without separators."""
        return f"{self.manufacturer}V{self.identifier}{self.check_digit}"

    @property
    def has_banned_letters(self) -> bool:
        """Whether I, O or Q occurs, which C.5 forbids; identifiers in the field have them all the same."""
        return any(char in "IOQ" for char in self.normalised)

    def expected_check_digit(self) -> str:
        """Return the check character of ISO 15118-20 C.6, a digit or X.

        >>> EvccId.parse("WMIV1234567890ABCDEX").expected_check_digit()
        'X'
        """
        total = 0
        position = 0
        for element in (self.manufacturer, "V", self.identifier):
            digits = "".join(str(_ALPHABET.index(char)) for char in element.lstrip("0"))
            for digit in digits:
                total += int(digit) * (2 ** (position % 28) % 11)
                position += 1
        return "0123456789X"[total % 11]

    @property
    def check_digit_ok(self) -> bool:
        """Whether the check character is right."""
        return self.check_digit == self.expected_check_digit()
