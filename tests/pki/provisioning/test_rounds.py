"""The order in which a vehicle is told its contracts."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from chargepki.pki.inventory.contract_records import ProvisioningRecord, ProvisioningState
from chargepki.pki.provisioning.rounds import ROUND_PAUSE, Turn, next_turn
from testkit.authorities import NOW
from testkit.effort import CAMPAIGN

EFFORT = settings(max_examples=500 if CAMPAIGN else 20)
ACCOUNTS = [f"DE8AA00000000{number}" for number in range(6)]


class Book:
    """What a request was told so far."""

    def __init__(self) -> None:
        self.rows: dict[str, ProvisioningRecord] = {}
        self.now = NOW

    def ask(self, choices: list[str]) -> Turn:
        turn = next_turn(list(self.rows.values()), choices, self.now)
        self.rows[turn.contract] = ProvisioningRecord(
            *(turn.contract, "r", "install", "iso15118-20", turn.contract, "v", None, ProvisioningState.ANSWERED, NOW),
            told_at=self.now,
            round=turn.round,
        )
        return turn


@EFFORT
@given(st.lists(st.sampled_from(ACCOUNTS), unique=True, min_size=1), st.integers(1, 3))
def test_every_contract_comes_once_a_round_in_its_order(choices: list[str], rounds: int) -> None:
    book = Book()
    for number in range(rounds):
        told = [book.ask(choices) for _ in choices]
        assert [turn.contract for turn in told] == choices
        assert [turn.remaining for turn in told] == list(range(len(choices)))[::-1]
        assert {turn.round for turn in told} == {number + 1}


@EFFORT
@given(st.lists(st.sampled_from(ACCOUNTS), unique=True, min_size=2), st.data())
def test_after_a_pause_the_first_comes_again(choices: list[str], data: st.DataObject) -> None:
    book = Book()
    for _ in range(data.draw(st.integers(1, len(choices)))):
        book.ask(choices)
    book.now += ROUND_PAUSE + timedelta(seconds=1)
    assert book.ask(choices).contract == choices[0]
    assert book.ask(choices).contract == choices[1]


@EFFORT
@given(st.lists(st.lists(st.sampled_from(ACCOUNTS), unique=True, min_size=1), min_size=1, max_size=12))
def test_whatever_is_offered_in_between_a_choice_of_now_is_told(offers: list[list[str]]) -> None:
    book = Book()
    for choices in offers:
        turn = book.ask(choices)
        assert turn.contract in choices
        assert 0 <= turn.remaining < len(choices)
