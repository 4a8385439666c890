"""Identifiers: published vectors, normal forms, and what is refused (ev-pki 4.2, 4.3)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chargepki.pki.errors import InputError
from chargepki.pki.identifiers import Emaid, EvccId, EvseId, Pcid, SeccId
from testkit.effort import examples

EMAID_VECTORS = {
    "NN123ABCDEFGHI": "T",
    "FRXYZ123456789": "2",
    "ITA1B2C3E4F5G6": "4",
    "ESZU8WOX834H1D": "R",
    "PT73902837ABCZ": "Z",
    "DE83DUIEN83QGZ": "D",
    "DE83DUIEN83ZGQ": "M",
    "DE8AA001234567": "0",
    "GBTWK012345678": "V",
    "CSKTH5U8TC90A1": "S",
    "IHRFRNPCZVPPVE": "W",
    "GBTWK123456789": "B",
}
SECC = "DE-ICE-S-00003C4D557878675645330967543476-2"
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
ALNUM = "0123456789" + LETTERS


def chars(alphabet: str, least: int, most: int | None = None) -> st.SearchStrategy[str]:
    return st.text(alphabet, min_size=least, max_size=most or least)


@pytest.mark.parametrize(("account", "digit"), EMAID_VECTORS.items())
def test_published_check_digits_are_reproduced(account: str, digit: str) -> None:
    assert Emaid.parse(account).expected_check_digit() == digit
    assert Emaid.parse(account + digit).check_digit_ok is True


def test_wrong_check_digit_of_the_josev_sample_is_reported_not_refused() -> None:
    emaid = Emaid.parse("UKSWI123456791A")
    assert emaid.check_digit_ok is False
    assert emaid.expected_check_digit() == "5"


@settings(max_examples=examples(100))
@given(chars(LETTERS, 2), chars(ALNUM, 12), st.integers(0, 13), st.sampled_from(ALNUM))
def test_every_changed_character_changes_the_emaid_check_digit(country: str, rest: str, place: int, other: str) -> None:
    account = country + rest
    changed = account[:place] + other + account[place + 1 :]
    if changed == account or not changed[:2].isalpha():
        return
    assert Emaid.parse(changed).expected_check_digit() != Emaid.parse(account).expected_check_digit()


@settings(max_examples=examples(100))
@given(chars(LETTERS, 2), chars(ALNUM, 3), chars(ALNUM, 9), st.sampled_from(["", *ALNUM]), st.booleans(), st.booleans())
def test_every_spelling_of_an_emaid_has_one_normal_form(
    country: str, provider: str, instance: str, digit: str, hyphens: bool, lower: bool
) -> None:
    parts = [part for part in (country, provider, instance, digit) if part]
    text = ("-" if hyphens else "").join(parts)
    text = text.lower() if lower else text
    emaid = Emaid.parse(text)
    assert str(emaid) == text
    assert emaid.normalised == "".join(parts)
    assert emaid.account == country + provider + instance
    assert Emaid.parse(emaid.normalised).same(emaid)


def test_emaids_are_compared_by_account_and_by_digit_only_if_both_have_one() -> None:
    bare, right, wrong = (Emaid.parse(text) for text in ("de-8aa-001234567", "DE8AA0012345670", "DE8AA0012345671"))
    assert bare.same(right)
    assert bare.same(wrong)
    assert not right.same(wrong)
    assert bare.check_digit_ok is None


@pytest.mark.parametrize(
    "text",
    [
        "", "DE8AA00123456 ", "DE8AA001234567\n", "DE8ÄA001234567", "ſE8AA001234567", "X" * 5000, "DE*8AA*001234567",
        "DE8AA00123456", "DE8AA00123456700", "D18AA001234567", "DE-8AA001234567", "DE8AA-001234567",
        "DE-8AA-0012345670",
    ],
)  # fmt: skip
def test_texts_that_are_no_emaid_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="not an EMAID"):
        Emaid.parse(text)


def test_pcid_has_17_or_18_letters_and_digits() -> None:
    assert Pcid.parse("wp0abcdefghijklmn").normalised == "WP0ABCDEFGHIJKLMN"
    pcid = Pcid.parse("WP0ABCDEFGHIJKLMN4")
    assert (pcid.manufacturer, pcid.identifier, pcid.check_digit) == ("WP0", "ABCDEFGHIJKLMN", "4")
    for text in ("WP0ABCDEFGHIJKLM", "WP0ABCDEFGHIJKLMN44", "WP0-BCDEFGHIJKLMN", ""):
        with pytest.raises(InputError, match="not a PCID"):
            Pcid.parse(text)


def test_evseid_is_read_with_and_without_separators() -> None:
    evse = EvseId.parse("DE*ICE*E45B*78C")
    assert (evse.country, evse.operator, evse.outlet, evse.din) == ("DE", "ICE", "45B*78C", False)
    assert evse.normalised == EvseId.parse("deiceE45b78c").normalised == "DEICEE45B78C"
    assert str(evse) == "DE*ICE*E45B*78C"


def test_evseid_of_din_is_read_as_such() -> None:
    evse = EvseId.parse("+49*839*00005")
    assert (evse.country, evse.operator, evse.outlet, evse.din) == ("49", "839", "00005", True)
    assert EvseId.parse("49*839*00005").normalised == evse.normalised == "+49*839*00005"


@pytest.mark.parametrize(
    "text", ["", "DEICEE", "DE*ICE*X45", "D1*ICE*E45", "DE-ICE-E45", "DE*ICE*E*4", "DE*ICE*E" + "1" * 31]
)
def test_texts_that_are_no_evseid_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="not an EVSEID"):
        EvseId.parse(text)


def test_evseid_length_limits_are_inclusive() -> None:
    assert EvseId.parse("DEICEE1").outlet == "1"
    assert len(EvseId.parse("DEICEE" + "1" * 30).outlet) == 30
    with pytest.raises(InputError):
        EvseId.parse("DE*ICE*E" + "1" * 30)  # 38 characters


def test_seccid_sample_is_read() -> None:
    secc = SeccId.parse(SECC)
    assert (secc.country, secc.operator, secc.check_digit) == ("DE", "ICE", "2")
    assert secc.controller == "00003C4D557878675645330967543476"
    assert SeccId.parse(SECC.replace("-", "").lower()).normalised == secc.normalised == SECC.replace("-", "")
    for text in ("", SECC.replace("-", "")[:-1], SECC.replace("S", "T"), SECC + "1" * 22):
        with pytest.raises(InputError, match="not a SECCID"):
            SeccId.parse(text)


def test_evccid_sample_has_the_right_check_character_and_a_banned_letter() -> None:
    evcc = EvccId.parse("WMIV1234567890ABCDEX")
    assert (evcc.manufacturer, evcc.identifier, evcc.check_digit) == ("WMI", "1234567890ABCDE", "X")
    assert evcc.check_digit_ok
    assert evcc.has_banned_letters
    assert not EvccId.parse("WMIV1234567890ABCDE1").check_digit_ok
    assert EvccId.parse("wmi-v-1234567890abcde-x").normalised == evcc.normalised


def test_evccid_check_character_counts_two_digits_for_a_letter_and_no_leading_zeros() -> None:
    # By hand: A -> 10, V -> 31, and "1": digits 1 0 | 3 1 | 1 at weights 1 2 4 8 5 give 1 + 12 + 8 + 5 = 26 = 4 mod 11.
    assert EvccId.parse("00AV0000000000000014").expected_check_digit() == "4"


@pytest.mark.parametrize("text", ["", "WMIV1234567890ABCDE", "WMIX1234567890ABCDEX", "WM-IV1234567890ABCDEX", "W" * 65])
def test_texts_that_are_no_evccid_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="not an EVCCID"):
        EvccId.parse(text)
