"""Basic authentication: bytes in the header, percent-decoded identities in the path."""

from __future__ import annotations

import base64
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chargepki.ocpp_security.basic_auth import (
    BadCredentials,
    build_authorization,
    check_identity,
    connection_path,
    identity_from_path,
    parse_authorization,
    same_identity,
)
from chargepki.pki.errors import InputError

IDENTITIES = st.text(string.ascii_letters + string.digits + "*-_=+|@.", min_size=1, max_size=48)


@settings(max_examples=200, deadline=None)
@given(identity=IDENTITIES, password=st.binary(max_size=64))
def test_a00_fr_203_and_fr_302_every_password_of_any_octets_survives_the_header(identity: str, password: bytes) -> None:
    credentials = parse_authorization(build_authorization(identity, password))
    assert (credentials.username, credentials.password) == (identity, password)


@settings(max_examples=200, deadline=None)
@given(identity=IDENTITIES)
def test_every_identity_survives_the_path_percent_encoded(identity: str) -> None:
    assert identity_from_path(connection_path(identity)) == identity


@settings(max_examples=300, deadline=None)
@given(header=st.one_of(st.text(max_size=80), st.binary(max_size=80), st.none()))
def test_every_malformed_header_is_one_clear_refusal(header: str | bytes | None) -> None:
    try:
        parse_authorization(header)
    except BadCredentials:
        return
    assert header is not None


def test_a_password_may_hold_colons() -> None:
    assert parse_authorization(build_authorization("CS1", b"a:b:c")).password == b"a:b:c"


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Basic",
        "Bearer abc",
        "Basic ###",
        "Basic " + base64.b64encode(b"no colon").decode(),
        "Basic " + base64.b64encode(b":password").decode(),
        "Basic " + base64.b64encode("ä:password".encode()).decode(),
        "Basic " + "A" * 2000,
    ],
)
def test_unreadable_credentials_are_refused(header: str | None) -> None:
    with pytest.raises(BadCredentials):
        parse_authorization(header)


def test_the_scheme_is_matched_in_any_case() -> None:
    header = build_authorization("CS1", b"x").replace("Basic", "bAsIc")
    assert parse_authorization(header).username == "CS1"


def test_credentials_never_show_the_password() -> None:
    assert "secret" not in repr(parse_authorization(build_authorization("CS1", b"secret-secret-16")))


@pytest.mark.parametrize("identity", ["", "a:b", "a b", "ä", "x" * 49, "a/b", "a\n"])
def test_a00_fr_204_and_fr_303_an_identity_with_a_colon_or_foreign_character_is_refused(identity: str) -> None:
    with pytest.raises(InputError):
        check_identity(identity)


@pytest.mark.parametrize(
    "path", ["/", "/ocpp", "/ocpp/", "/ocpp/a/b", "/other/CS1", "/ocpp/%3A", "/ocpp/%ff", "ocpp/CS1"]
)
def test_a_path_that_names_no_station_is_refused(path: str) -> None:
    with pytest.raises(InputError):
        identity_from_path(path)


def test_a00_fr_207_and_fr_324_the_username_is_compared_exactly() -> None:
    assert same_identity("CS1", "CS1")
    assert not same_identity("cs1", "CS1")
    assert not same_identity("CS1", "CS10")
