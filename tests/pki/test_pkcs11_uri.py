"""URIs of keys in tokens (RFC 7512), from hostile hands."""

from __future__ import annotations

import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chargepki.pki.errors import InputError, PolicyRefusal
from chargepki.pki.pkcs11_uri import parse_pkcs11_uri

PARTS = st.sampled_from(
    ["pkcs11:", "token=", "object=", "id=", "type=private", "pin-value=", "pin-source=", "module-path=/x", ";", "&",
     "?", "%41", "%", "%zz", "file:", "/etc/pin", "|id", "\0", "é", "slot-id=1", "HSM", "=", "\n"]
)  # fmt: skip


@settings(max_examples=150)
@given(
    st.one_of(
        st.text(max_size=60),
        st.lists(PARTS, max_size=12).map("".join),
        st.lists(PARTS, max_size=12).map(lambda parts: "pkcs11:object=a" + "".join(parts)),
    )
)
def test_a_hostile_uri_is_read_or_refused_with_one_error(text: str) -> None:
    try:
        found = parse_pkcs11_uri(text)
    except (InputError, PolicyRefusal) as error:
        assert str(error).isprintable() or "\n" in str(error)
        return
    assert found.text == text and (found.label or found.id)
    assert "pin-value" not in text.partition("?")[2] and "module-" not in text.partition("?")[2]
    assert found.pin_file is None or found.pin_file.is_absolute()


@given(secret=st.text(string.ascii_letters + string.digits, min_size=6, max_size=20), before=st.booleans())
def test_a_pin_in_a_uri_is_refused_and_not_repeated(secret: str, before: bool) -> None:
    query = f"pin-value=0{secret}0&pin-source=/p" if before else f"pin-source=/p&pin-value=0{secret}0"
    with pytest.raises(PolicyRefusal) as caught:
        parse_pkcs11_uri(f"pkcs11:token=T;object=o?{query}")
    assert f"0{secret}0" not in f"{caught.value.what}{caught.value.why}{caught.value.fix}"
