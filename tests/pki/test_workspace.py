"""Who acts is asked of the kernel, not of the environment that the caller chooses."""

from __future__ import annotations

import os

import pytest

from chargepki.pki.inventory.records import ActorKind
from chargepki.pki.workspace import os_actor

pwd = pytest.importorskip("pwd", reason="this system has no user database")


@pytest.mark.parametrize("variable", ["LOGNAME", "USER", "LNAME", "USERNAME", "SUDO_USER"])
@pytest.mark.parametrize("claim", ["auditor", "root\nevil", ""])
def test_nobody_acts_under_another_name_by_setting_a_variable(
    monkeypatch: pytest.MonkeyPatch, variable: str, claim: str
) -> None:
    monkeypatch.setenv(variable, claim)
    actor = os_actor()
    assert actor.name == pwd.getpwuid(os.getuid()).pw_name
    assert (actor.kind, actor.authenticated) == (ActorKind.OS_USER, False)


def test_a_user_without_a_name_acts_under_the_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USER", "auditor")
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000_001)
    assert os_actor().name == "uid-4000000001"
