"""Who breaks on which day when a root is rolled over, and the steps that prevent it."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta

import click
import pytest

from chargepki.cli.main import cli
from chargepki.ocpp_security.rollover_plan import BreakReason, RolloverPlan, StepKind, rollover_plan
from chargepki.pki.authority import Authority, IssueOrder
from chargepki.pki.authority.rollover import RolloverOrder, roll_over
from chargepki.pki.chain import verify_chain
from chargepki.pki.errors import ChainError, PolicyRefusal
from chargepki.pki.inventory import Transaction
from chargepki.pki.inventory.records import StationRecord, StationState
from chargepki.pki.inventory.trust_records import StationRootRecord, StationRootState
from chargepki.pki.questions import list_authorities
from chargepki.pki.questions.paths import PathFinder
from testkit.authorities import ACTOR, NOW, MemoryKeyStore, make_csr, ocpp_authority, open_inventory

YEAR = timedelta(days=365)


def plan_of(authority: Authority, at: datetime = NOW, *, limit: int = 100) -> RolloverPlan:
    inventory = authority.inventory
    return rollover_plan(inventory, list_authorities(inventory), "t-root", at, limit=limit)


def give(authority: Authority, station: str, ca: str, use: str = "csms") -> None:
    der = authority.inventory.get_ca(ca).certificate_der
    sha256 = hashlib.sha256(der or b"").hexdigest()

    def work(tx: Transaction) -> None:
        tx.put_station_root(StationRootRecord(station, use, sha256, StationRootState.INSTALLED, "op", NOW))
        tx.audit(ACTOR, "test.give", station, now=NOW)

    authority.inventory.write(work)


@pytest.fixture
def authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Authority]:
    """Four stations: two with the first root, one with another, one that nobody asked."""
    folder = tmp_path_factory.mktemp("plan")
    with closing(open_inventory(f"sqlite:///{folder / 'i.db'}", folder)) as inventory:
        made = ocpp_authority(inventory, keystore=MemoryKeyStore())

        def work(tx: Transaction) -> None:
            for name in ("A", "B", "C", "D"):
                tx.add_station(StationRecord(name, name, None, 3, StationState.ACTIVE, NOW))
            tx.audit(ACTOR, "test.add", "A", now=NOW)

        inventory.write(work)
        for station in "AB":
            give(made, station, "t-root@1")
        give(made, "C", "t-sub@1")
        yield made


def test_before_the_rollover_stations_break_when_the_root_ends(authority: Authority) -> None:
    plan = plan_of(authority)
    end = authority.inventory.get_ca("t-root").not_after
    assert end is not None and plan.breaks
    assert [(each.station, each.reason, each.breaks_at) for each in plan.stations] == [
        (name, BreakReason.ROOT_ENDS, end + timedelta(seconds=1)) for name in "AB"
    ]
    assert plan.unknown == ("D",)
    kinds = [step.kind for step in plan.steps]
    assert kinds == [StepKind.ASK, StepKind.ROLL_OVER, StepKind.INSTALL, StepKind.MOVE, StepKind.DELETE]
    for step in plan.steps:  # each is one that the program takes
        words = shlex.split(step.command)[1:]
        with cli.make_context("chargepki", words) as context:
            command: click.Command = cli
            while isinstance(command, click.Group):
                name, found, words = command.resolve_command(context, words)
                assert found is not None, step.command
                context, command = click.Context(found, info_name=name, parent=context), found
            command.make_context(name, list(words), parent=context.parent)
    assert plan.steps[2].command.endswith("--set use=csms --set root=t-root@2 --station A --station B")


def test_after_the_rollover_the_cross_certificate_sets_the_day(authority: Authority) -> None:
    found = roll_over(authority, RolloverOrder("t-root", cross_validity=2 * YEAR))
    assert found.new_with_old is not None
    plan = plan_of(authority)
    day = found.new_with_old.not_after + timedelta(seconds=1)
    assert {(each.station, each.reason, each.breaks_at) for each in plan.stations} == {
        (name, BreakReason.PATH_ENDS, day) for name in "AB"
    }
    install = next(step for step in plan.steps if step.kind is StepKind.INSTALL)
    assert (install.before, install.stations) == (day, 2)
    # Revoked, it leads nowhere: the next certificate from the new generation is refused.
    authority.revoke(found.new_with_old.id, "superseded")
    assert {each.reason for each in plan_of(authority).stations} == {BreakReason.NO_PATH}
    assert {each.breaks_at for each in plan_of(authority).stations} == {NOW}


def test_a_plan_that_was_carried_out_breaks_nothing_and_ends_with_the_deletion(authority: Authority) -> None:
    roll_over(authority, RolloverOrder("t-root"))
    give(authority, "A", "t-root@2")
    assert [each.station for each in plan_of(authority).stations] == ["B"]
    give(authority, "B", "t-root@2")
    plan = plan_of(authority)
    assert not plan.breaks and StepKind.INSTALL not in [step.kind for step in plan.steps]
    assert [step.command for step in plan.steps if step.kind is StepKind.MOVE] == ["chargepki ca rollover t-sub"]
    roll_over(authority, RolloverOrder("t-sub"))
    assert StepKind.MOVE not in [step.kind for step in plan_of(authority).steps]
    (delete,) = [step for step in plan_of(authority).steps if step.kind is StepKind.DELETE]
    assert delete.after == authority.inventory.get_ca("t-sub@1").not_after


def test_a_station_with_the_newest_root_alone_breaks_while_a_ca_issues_below_the_old_one(authority: Authority) -> None:
    found = roll_over(authority, RolloverOrder("t-root", cross_validity=2 * YEAR))
    for station in "AB":
        give(authority, station, "t-root@2")  # beside the first
    assert not plan_of(authority).breaks
    give(authority, "D", "t-root@2")  # a new station
    assert found.old_with_new is not None
    day = found.old_with_new.not_after + timedelta(seconds=1)
    (alone,) = plan_of(authority).stations
    assert (alone.station, alone.reason, alone.breaks_at) == ("D", BreakReason.NO_WAY_BACK, day)
    authority.revoke(found.old_with_new.id, "superseded")
    plan = plan_of(authority)
    assert [(each.station, each.breaks_at) for each in plan.stations] == [("D", NOW)]
    # Nothing has to be installed; it is the sub-CA that has to be moved, now.
    assert StepKind.INSTALL not in [step.kind for step in plan.steps]
    assert [step.before for step in plan.steps if step.kind is StepKind.MOVE] == [NOW]
    roll_over(authority, RolloverOrder("t-sub"))
    assert not plan_of(authority).breaks


def test_stations_believe_until_the_second_that_the_plan_names(authority: Authority) -> None:
    """The plan is held against paths that are verified with the clock moved, as a station would verify them."""
    roll_over(authority, RolloverOrder("t-root", cross_validity=2 * YEAR))
    roll_over(authority, RolloverOrder("t-sub"))
    inventory = authority.inventory
    (day,) = {each.breaks_at for each in plan_of(authority).stations}
    root, sub = (inventory.get_ca(name).certificate_der or b"" for name in ("t-root@1", "t-sub@2"))
    finder = PathFinder(list_authorities(inventory))
    (path,) = finder.paths("t-sub@2", [root], NOW)
    verify_chain(sub, path.certificates[1:], [root], at=day - timedelta(seconds=1))
    with pytest.raises(ChainError):
        verify_chain(sub, path.certificates[1:], [root], at=day)
    assert finder.paths("t-sub@2", [root], day) == []
    # Carried out: with the new root every path holds on that day.
    new = inventory.get_ca("t-root@2").certificate_der or b""
    verify_chain(sub, [], [new], at=day)
    give(authority, "A", "t-root@2")
    assert [each.station for each in plan_of(authority, day - timedelta(seconds=1)).stations] == ["B"]


def test_certificates_that_outlive_every_path_are_counted(authority: Authority) -> None:
    authority.issue(IssueOrder(ca="t-sub", profile="ocpp/charging-station", csr=make_csr("A"), station="A"))
    # Nothing outlives its root (the shell model), so on the day after there is nothing left to lose.
    assert plan_of(authority).certificates == ()


def test_a_ca_below_a_root_needs_no_plan(authority: Authority) -> None:
    with pytest.raises(PolicyRefusal, match="is no root"):
        rollover_plan(authority.inventory, list_authorities(authority.inventory), "t-sub", NOW)
    assert len(plan_of(authority, limit=1).stations) == 1
    assert plan_of(authority, limit=1).station_counts == {"csms root-ends": 2}
