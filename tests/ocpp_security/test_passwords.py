"""Passwords: rules per version, generation, hashes, and the bounded verifier."""

from __future__ import annotations

import asyncio
import threading

import pytest

from chargepki.ocpp_security import passwords
from chargepki.ocpp_security.password_change import build_set_password
from chargepki.ocpp_security.passwords import (
    PasswordMatch,
    PasswordVerifier,
    TooManyAttempts,
    check_password,
    generate_password,
    hash_password,
    parse_operator_password,
    password_from_wire,
    verify_password,
)
from chargepki.ocpp_security.versions import OcppVersion
from chargepki.pki.errors import InputError

V16, V201, V21 = OcppVersion


def test_a01_fr_06_and_fr_07_generated_passwords_fit_every_version_and_differ() -> None:
    made = {generate_password() for _ in range(100)}
    assert len(made) == 100
    for text in made:
        for version in OcppVersion:
            check_password(text.encode(), version)
            assert text.isascii() and 16 <= len(text) <= 20


@pytest.mark.parametrize(
    ("password", "fits"),
    [
        (b"x" * 15, set()),
        (b"x" * 16, {V16, V201, V21}),
        (b"x" * 20, {V16, V201, V21}),
        (b"x" * 21, {V201, V21}),
        (b"x" * 64, {V201, V21}),
        (b"x" * 65, set()),
        (b"\xff" * 16, {V16}),
        ("ü".encode() * 8, {V16}),
        ("ü".encode() * 64, {V201, V21}),
    ],
)
def test_a00_fr_205_and_fr_304_lengths_count_bytes_in_1_6_and_characters_in_2_x(
    password: bytes, fits: set[OcppVersion]
) -> None:
    taken = set()
    for version in OcppVersion:
        try:
            check_password(password, version)
            taken.add(version)
        except InputError as error:
            assert password.hex() not in str(error) and "xxx" not in str(error)
    assert taken == fits


def test_a01_fr_02_what_1_6_carries_is_hex_and_what_the_header_carries_are_the_bytes() -> None:
    binary = bytes(range(240, 256)) + b"\x00\x01"
    call = build_set_password(V16, binary)
    assert password_from_wire(str(call.payload["value"]), V16) == binary


def test_1_6_takes_16_to_20_plain_characters_as_text() -> None:
    assert password_from_wire("0123456789abcdef", V16) == b"0123456789abcdef"


@pytest.mark.parametrize("value", ["", "short", "z" * 32, "0" * 31, "0" * 42])
def test_an_authorization_key_of_neither_form_is_refused(value: str) -> None:
    with pytest.raises(InputError):
        password_from_wire(value, V16)


def test_2_x_takes_hex_digits_as_the_text_that_they_are() -> None:
    assert password_from_wire("3031323334353637", V201) == b"3031323334353637"


def test_a_password_file_may_end_in_a_line_end() -> None:
    assert parse_operator_password(b"0123456789abcdef\r\n") == b"0123456789abcdef"
    with pytest.raises(InputError):
        parse_operator_password(b"short\n")


@pytest.mark.as_shipped
def test_a01_fr_08_what_is_stored_is_a_salted_argon2id_hash() -> None:
    first, second = hash_password(b"0123456789abcdef"), hash_password(b"0123456789abcdef")
    assert first != second and first.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert verify_password(first, b"0123456789abcdef") and not verify_password(first, b"0123456789abcdeF")
    assert not verify_password("not a hash", b"0123456789abcdef")


def test_the_verifier_says_which_of_two_accepted_passwords_it_was() -> None:
    old, new = hash_password(b"old-old-old-old-"), hash_password(b"new-new-new-new-")

    async def run() -> list[PasswordMatch | None]:
        verifier = PasswordVerifier()
        try:
            return [
                await verifier.verify((old, new), b"old-old-old-old-"),
                await verifier.verify((old, new), b"new-new-new-new-"),
                await verifier.verify((old, new), b"neither-neither-"),
                await verifier.verify((None, new), b"new-new-new-new-"),
                await verifier.verify((), b"new-new-new-new-"),
            ]
        finally:
            verifier.close()

    assert asyncio.run(run()) == [PasswordMatch(0), PasswordMatch(1), None, PasswordMatch(1), None]


def test_a_refusal_costs_the_same_for_unknown_and_known_stations(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    real = passwords.verify_password

    def counted(stored: str, password: bytes) -> bool:
        calls.append(stored)
        return real(stored, password)

    monkeypatch.setattr(passwords, "verify_password", counted)
    known, pending = hash_password(b"known-known-know"), hash_password(b"pending-pending-")

    async def run() -> list[int]:
        verifier = PasswordVerifier()
        counts = []
        for accepted in ((), (None, None), (known, None), (known, pending)):
            calls.clear()
            assert await verifier.verify(accepted, b"wrong-wrong-wron") is None
            counts.append(len(calls))
        verifier.close()
        return counts

    assert asyncio.run(run()) == [2, 2, 2, 2]


def test_a_storm_of_reconnects_costs_one_slow_hash_and_a_changed_password_is_seen_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[str] = []
    real = passwords.verify_password

    def counted(stored: str, password: bytes) -> bool:
        calls.append(stored)
        return real(stored, password)

    monkeypatch.setattr(passwords, "verify_password", counted)
    first, second = hash_password(b"first-first-firs"), hash_password(b"second-second-se")

    async def run() -> None:
        verifier = PasswordVerifier()
        for _ in range(50):
            assert await verifier.verify((first, None), b"first-first-firs") == PasswordMatch(0)
        assert len(calls) == 1
        assert await verifier.verify((second, None), b"first-first-firs") is None
        verifier.close()

    asyncio.run(run())


def test_more_waiting_attempts_than_allowed_are_turned_away(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()

    def slow(stored: str, password: bytes) -> bool:
        release.wait(60)
        return False

    async def run() -> None:
        verifier = PasswordVerifier(workers=1, max_waiting=2)
        monkeypatch.setattr(passwords, "verify_password", slow)
        tasks = [asyncio.create_task(verifier.verify((), b"x" * 16)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(TooManyAttempts):
            await verifier.verify((), b"x" * 16)
        release.set()
        assert await asyncio.gather(*tasks) == [None, None]
        assert await verifier.verify((), b"x" * 16) is None
        verifier.close()

    asyncio.run(run())
