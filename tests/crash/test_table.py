"""Each command of the program that writes has a crash test: a new one without a row fails here."""

from __future__ import annotations

import pytest

from testkit.crash_commands import ALL, ELSEWHERE, UNTRIED, command_of, writing_commands
from testkit.crash_recovery import RECOVERY
from testkit.layout import ROOT


def test_every_command_that_writes_has_a_row() -> None:
    tried = {command_of(row.arguments) for row in ALL.values()}
    tried |= {command_of(row.arguments) for row in RECOVERY.values()}
    commands = set(writing_commands())
    assert len(commands) > 60, "the tree of commands was not read"
    others = {*ELSEWHERE, *UNTRIED}
    assert commands - tried - others == set()
    assert others & tried == set(), "tried, and said not to be tried here"
    assert others <= commands


@pytest.mark.parametrize("place", ELSEWHERE.values())
def test_what_is_tried_elsewhere_is_tried_there(place: str) -> None:
    path, _, name = place.partition("::")
    assert f"def {name}(" in (ROOT / "tests" / "crash" / path).read_text()
