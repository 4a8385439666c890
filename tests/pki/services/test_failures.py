"""Failed passwords that several processes count together: a fixed size, the oldest forgotten, no lock left behind."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Literal

import pytest
from argon2 import PasswordHasher

from chargepki.pki.services import accounts
from chargepki.pki.services.accounts import AccountGuard, TooManyFailures, hash_account_password, network_of
from chargepki.pki.services.failures import FAILURES, Leave, SharedFailures

PASSWORD = b"the password of acme"
HASH = hash_account_password(PASSWORD)


def test_what_a_dead_process_took_up_counts_as_wrong_and_all_of_it_ends_with_the_window() -> None:
    failures = SharedFailures()
    assert [failures.begin("acme", "192.0.2.9", 100.0) for _ in range(FAILURES)] == [Leave.GRANTED] * FAILURES
    assert failures.begin("acme", "192.0.2.9", 101.0) is Leave.LATER
    assert failures.begin("acme", "192.0.2.9", 121.0) is Leave.DENIED
    assert failures.begin("acme", "192.0.2.10", 121.0) is Leave.GRANTED
    assert failures.begin("other", "192.0.2.9", 121.0) is Leave.GRANTED
    assert failures.begin("acme", "192.0.2.9", 160.5) is Leave.GRANTED


def test_a_right_password_clears_what_was_wrong_and_nothing_that_is_being_judged() -> None:
    failures = SharedFailures()
    for _ in range(FAILURES - 2):
        assert failures.begin("acme", "192.0.2.9", 100.0) is Leave.GRANTED
        failures.end("acme", "192.0.2.9", 100.0, right=False)
    assert failures.begin("acme", "192.0.2.9", 101.0) is Leave.GRANTED  # a guess, in another process
    assert failures.begin("acme", "192.0.2.9", 102.0) is Leave.GRANTED
    failures.end("acme", "192.0.2.9", 102.0, right=True)
    failures.end("acme", "192.0.2.9", 101.0, right=False)
    leaves = [failures.begin("acme", "192.0.2.9", 103.0) for _ in range(FAILURES)]
    assert leaves == [Leave.GRANTED] * (FAILURES - 1) + [Leave.LATER]


def test_more_than_there_is_room_for_are_counted_as_long_as_nothing_newer_needs_the_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failures = SharedFailures()
    monkeypatch.setattr(failures, "_secret", bytes(32))  # where they fall is the same each time
    size = len(failures._memory)
    for number in range(12_000):
        for _ in range(1 if number < 11_900 else FAILURES):
            failures.begin(f"account {number}", "192.0.2.9", 100.0 + number / 1000)
    assert len(failures._memory) == size < 1 << 20
    last = [failures.begin(f"account {number}", "192.0.2.9", 112.0) for number in range(11_900, 12_000)]
    assert last == [Leave.LATER] * 100


def test_a_process_that_is_killed_while_it_counts_stops_nobody() -> None:
    failures = SharedFailures()
    ready, told = os.pipe()
    child = os.fork()
    if not child:
        with failures._bucket(failures._digest("acme", "192.0.2.9")):
            os.write(told, b"x")
            signal.pause()
    try:
        assert os.read(ready, 1) == b"x"
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(ready)
        os.close(told)
    assert failures.begin("acme", "192.0.2.9", 1.0) is Leave.GRANTED


def test_over_the_limit_the_password_that_was_right_from_there_is_let_in_and_no_other() -> None:
    async def run() -> None:
        guard = AccountGuard()

        async def ask(password: bytes, *, stored: str | None = HASH, peer: str = "192.0.2.9") -> bool:
            return await guard.verify(stored, password, account="acme", peer=peer, now=1.0)

        assert await ask(PASSWORD)
        for _ in range(FAILURES):
            assert not await ask(b"a guess of acme's")
        assert await ask(PASSWORD)
        with pytest.raises(TooManyFailures):
            await ask(b"a guess of acme's")
        for changed in (None, hash_account_password(PASSWORD)):
            with pytest.raises(TooManyFailures):
                await ask(PASSWORD, stored=changed)
        for _ in range(FAILURES):
            assert not await ask(b"a guess of acme's", peer="192.0.2.10")
        with pytest.raises(TooManyFailures):
            await ask(PASSWORD, peer="192.0.2.10")  # it was never right from there
        guard.close()

    asyncio.run(run())


@pytest.mark.as_shipped
def test_a_password_is_stored_as_a_slow_salted_hash() -> None:
    again = hash_account_password(PASSWORD)
    assert again != hash_account_password(PASSWORD)
    assert again.startswith("$argon2id$v=19$m=19456,t=2,p=1$")


def test_an_unknown_account_costs_one_verification_as_a_known_one_does(monkeypatch: pytest.MonkeyPatch) -> None:
    verified: list[str] = []

    class Counted(PasswordHasher):
        def verify(self, hash: str | bytes, password: str | bytes) -> Literal[True]:
            verified.append(str(hash).rpartition("$")[0].rpartition("$")[0])
            return super().verify(hash, password)

    monkeypatch.setattr(accounts, "_HASHER", Counted(time_cost=1, memory_cost=8, parallelism=1))

    async def run() -> None:
        guard = AccountGuard()
        for number, stored in enumerate((None, hash_account_password(PASSWORD))):
            assert not await guard.verify(stored, b"a guess", account=f"{number}", peer="192.0.2.9", now=1.0)
        guard.close()

    asyncio.run(run())
    assert len(verified) == 2 and len(set(verified)) == 1


def test_all_addresses_of_one_ipv6_network_are_one_guesser() -> None:
    assert network_of("[2001:db8:0:1::9]") == network_of("[2001:db8:0:1:ffff::1]") != network_of("[2001:db8:0:2::9]")
    assert network_of("[::ffff:192.0.2.9]") == network_of("192.0.2.9") != network_of("192.0.2.10")
