"""Two processes run the new commands at once, on either database: one of them does it, and nothing is done twice."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from chargepki.pki.inventory.records import CaState, CertificateState
from testkit.crash import Outcome, Place, Runner
from testkit.crash_commands import ALL
from testkit.crash_judge import problems
from testkit.crash_recovery import RECOVERY, prepare
from testkit.crash_scenarios import ISSUE, build_template, filled, open_place
from testkit.databases import database_url, sqlite_url
from testkit.effort import CAMPAIGN
from tests.crash.test_two_processes import together

__all__ = ["database_url", "sqlite_url"]

pytestmark = [pytest.mark.slow, pytest.mark.campaign]

# Each of them twice at once: one does it, the other finds it done, or is told so (exit 3).
TWICE = (
    "rollover-root", "rollover-sub", "cross-sign", "request", "sign-request", "accept", "crl-import", "renew-due",
    "create-hierarchy", "release", "approval-register", "approval-require", "contract-provision", "presign",
)  # fmt: skip


@pytest.fixture
def empty(database_url: str, folder: Path) -> Place:
    return Place.new(folder / "place", None if database_url.startswith("sqlite") else database_url)


@pytest.fixture
def place(empty: Place, runner: Runner) -> Place:
    build_template(runner, empty)
    return empty


def done(outcomes: Sequence[Outcome]) -> None:
    """Each of them did it, or says clearly why not."""
    for outcome in outcomes:
        assert outcome.code in (0, 3), outcome.stderr
        assert (outcome.code == 0) is ("error: " not in outcome.stderr) and "Traceback" not in outcome.stderr
    assert any(outcome.code == 0 for outcome in outcomes), [outcome.stderr for outcome in outcomes]


@pytest.mark.parametrize("name", TWICE)
def test_the_same_command_twice_at_once_is_done_once(
    name: str, empty: Place, runner: Runner, request: pytest.FixtureRequest
) -> None:
    row = ALL[name]
    place = empty if row.start == "empty" else request.getfixturevalue("place")
    row.setup(runner, place)
    outcomes = together(runner, place, [filled(row.arguments, place)] * 2)
    done(outcomes)
    assert problems(place, outcomes) == []
    with open_place(place) as inventory:
        assert row.settled(place, inventory) is None
        assert list(inventory.list_reserved()) == []


def test_a_rollover_while_others_issue_leaves_one_issuing_generation(place: Place, runner: Runner) -> None:
    batch = ("cert", "issue-batch", *ISSUE[2:], "--csr-dir", "csrs", "--out-dir", "out/batch", "--jobs", "1")
    for round_ in range(5 if CAMPAIGN else 1):
        outcomes = together(
            runner,
            place,
            [
                ("ca", "rollover", "s", "--again"),
                (*ISSUE, "--csr", "a.csr", "--request-id", f"r{round_}", "--out", f"out/{round_}.pem"),
                (*batch[:-2], "--out-dir", f"out/batch{round_}", "--jobs", "1"),
                ("ca", "rollover", "r", "--again"),
            ],
        )
        # The authority may lose the generation that it had opened: it says so.
        for outcome in outcomes:
            assert outcome.code in (0, 3), outcome.stderr
        assert runner.run(place, *ISSUE, "--csr", "a.csr", "--request-id", f"after{round_}").code == 0
        assert problems(place, outcomes) == []
    with open_place(place) as inventory:
        for name in "rs":
            states = [ca.state for ca in inventory.list_cas(name=name)]
            assert states.count(CaState.ACTIVE) == 1 and CaState.PENDING not in states, states
        assert list(inventory.list_reserved()) == []


def test_a_change_of_passphrase_while_others_issue_loses_no_key(place: Place, runner: Runner) -> None:
    prepare(runner, place)
    change = RECOVERY["change-passphrase"].arguments
    issue = [
        (*ISSUE, "--csr", "a.csr", "--request-id", f"r{number}", "--out", f"out/{number}.pem") for number in (1, 2)
    ]
    outcomes = together(runner, place, [change, *issue, change])
    # Those that came too late have the old passphrase (4), as has the second change.
    assert [each.code for each in (outcomes[0], outcomes[3])].count(0) >= 1, [each.stderr for each in outcomes]
    assert {each.code for each in outcomes} <= {0, 3, 4}
    assert not any("Traceback" in each.stderr for each in outcomes)
    shutil.copy(place.root / "new", place.root / "passphrase")
    assert runner.run(place, *ISSUE, "--csr", "a.csr", "--request-id", "r9").code == 0
    assert problems(place, outcomes) == []


def test_two_restores_at_once_leave_the_workspace_of_one(place: Place, runner: Runner) -> None:
    prepare(runner, place)
    outcomes = together(runner, place, [RECOVERY["restore"].arguments] * 2)
    assert {each.code for each in outcomes} <= {0, 3, 4} and 0 in {each.code for each in outcomes}
    assert not any("Traceback" in each.stderr for each in outcomes), [each.stderr for each in outcomes]
    assert runner.run(place, *ISSUE, "--csr", "a.csr", "--out", "out/a.pem").code == 0
    assert problems(place) == []


def test_two_backups_and_an_import_at_once(place: Place, runner: Runner) -> None:
    prepare(runner, place)
    backup = RECOVERY["backup"].arguments[:-1]
    commands = [(*backup, "out/1.age"), (*backup, "out/2.age"), *[RECOVERY["import"].arguments] * 2]
    outcomes = together(runner, place, commands)
    assert [each.code for each in outcomes[:2]] == [0, 0], [each.stderr for each in outcomes]
    done(outcomes[2:])
    for name in ("1.age", "2.age"):
        verified = runner.run(place, "backup", "verify", f"out/{name}", "--identity", "identity")
        assert verified.code == 0, verified.stderr
    assert problems(place, outcomes) == []
    with open_place(place) as inventory:
        assert RECOVERY["import"].settled(place, inventory) is None


def test_a_restore_on_two_machines_and_beside_a_server_uses_no_number_twice(place: Place, runner: Runner) -> None:
    """An old backup put back over a newer state, and on another machine too, while processes go on."""
    prepare(runner, place)
    for number in range(3):
        assert runner.run(place, *ISSUE, "--csr", "a.csr", "--request-id", f"late{number}").code == 0
        assert runner.run(place, "crl", "publish", "--ca", "s").code == 0
    drill = Place.new(place.root.with_name("drill"))
    for name in ("before.age", "identity", "a.csr"):
        shutil.copy(place.root / name, drill.root / name)
    before: list[tuple[str, int]] = []
    serials: list[str] = []

    def look(where: Place) -> None:
        with open_place(where) as inventory:
            before.extend((crl.ca, crl.number) for crl in inventory.list_crls())
            serials.extend(each.id for each in inventory.list_certificates())

    look(place)
    served = together(
        runner,
        place,
        [
            RECOVERY["restore"].arguments,
            *[(*ISSUE, "--csr", "a.csr", "--request-id", f"beside{number}") for number in range(2)],
            ("crl", "publish", "--ca", "s"),
        ],
    )
    assert {each.code for each in served} <= {0, 3, 4}, [each.stderr for each in served]
    assert not any("Traceback" in each.stderr for each in served), [each.stderr for each in served]
    if served[0].code != 0:  # in use: a service is to be stopped first
        again = runner.run(place, *RECOVERY["restore"].arguments)
        assert again.code == 0, again.stderr
    known = set(serials)
    for where in (place, drill):
        if where is drill:
            restored = runner.run(drill, "restore", "before.age", "--identity", "identity")
            assert restored.code == 0, restored.stderr
        for _ in range(2):
            assert runner.run(where, "crl", "publish", "--ca", "s").code == 0
        assert runner.run(where, *ISSUE, "--csr", "a.csr", "--again").code == 0
        with open_place(where) as inventory:
            # What the backup held is in every copy; everything else has a number that nobody had.
            made = [crl for crl in inventory.list_crls() if crl.number > 1 << 60]
            assert made, "no list after the restore"
            fresh = [(crl.ca, crl.number) for crl in made]
            assert not set(fresh) & set(before)
            before.extend(fresh)
            new = {each.id for each in inventory.list_certificates() if each.state is CertificateState.ISSUED}
            assert new - known, "nothing was issued after the restore"
            known |= new
        assert problems(where) == []
    assert max(Counter(before).values()) == 1
