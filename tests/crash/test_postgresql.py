"""PostgreSQL goes away while a command runs, and comes back; and a client is killed at everything that it sends."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from testkit.authorities import make_csr
from testkit.crash import CHANGING_CALLS, SEED, Call, Fault, Outcome, Place, Runner, choose, need_strace
from testkit.crash_judge import key_files, problems
from testkit.crash_postgresql import PostgresqlServer
from testkit.crash_scenarios import ISSUE, open_place
from testkit.effort import CAMPAIGN

pytestmark = [pytest.mark.slow, pytest.mark.foreign, pytest.mark.timeout(3600 if CAMPAIGN else 300)]

SENDING = ("sendto", "sendmsg")
FULL_STOP_EVERY = 1 if CAMPAIGN else 9
"""At every so manieth call the whole server stops; at the others it ends our sessions, which is quicker."""

_numbers = itertools.count(1)


@pytest.fixture
def place(server: PostgresqlServer, postgresql_template: tuple[Place, str], folder: Path) -> Place:
    """A workspace whose inventory is in that server."""
    template, name = postgresql_template
    return Place(template.copy_to(folder / "place").root, server.new_database(like=name)[1])


def new_request(place: Place) -> tuple[str, list[str]]:
    """Return the name of a new request and the command that answers it."""
    name = f"n{next(_numbers)}"
    (place.root / f"{name}.csr").write_bytes(make_csr(f"CS-{name}"))
    return name, [*ISSUE, "--csr", f"{name}.csr", "--request-id", name, "--out", f"out/{name}.pem"]


def sends(runner: Runner, place: Place) -> tuple[Call, ...]:
    """Return the calls of an undisturbed run that send something to the server or change something on the disk."""
    # The first command in a workspace does more than those after it, which are the ones to be killed.
    assert runner.run(place, *new_request(place)[1]).code == 0
    # In the second in which a CRL shard was opened, every command publishes it again, which takes messages of its own.
    time.sleep(1.0)
    outcome = runner.run(place, *new_request(place)[1], traced=True, calls=(*CHANGING_CALLS, *SENDING))
    assert outcome.code == 0, outcome.stderr
    # The messages of the session's start belong to no transaction; the first write to a file comes long after.
    return tuple(call for call in outcome.calls if call.name in (*SENDING, "rename", "link"))


def answered_once(runner: Runner, place: Place, name: str, command: list[str], first: Outcome) -> Iterator[str]:
    """Judge what is there, repeat the command, and yield what is wrong."""
    yield from problems(place, [first])
    early = (place.out / f"{name}.pem").read_bytes() if (place.out / f"{name}.pem").exists() else None
    repeat = runner.run(place, *command)
    if repeat.code != 0:
        yield f"the repeat ended with {repeat.code}: {repeat.stderr.strip()}"
        return
    if early not in (None, (place.out / f"{name}.pem").read_bytes()):
        yield "the repeat gave another certificate"
    with open_place(place) as inventory:
        made = [record for record in inventory.list_certificates() if record.request_key == f"id:{name}"]
        if len(made) != 1 or list(inventory.list_reserved()):
            yield f"{len(made)} certificates, {len(list(inventory.list_reserved()))} reserved"


def test_a_client_killed_at_anything_it_sends_loses_nothing(runner: Runner, place: Place) -> None:
    need_strace()
    keys = key_files(place)
    calls = choose(sends(runner, place), sample=20, every=CAMPAIGN)
    wrong: list[str] = []
    reached = 0
    for call in calls:
        name, command = new_request(place)
        first = runner.run(
            place, *command, fault=Fault(call.name, call.nth, "signal=KILL"), calls=(*CHANGING_CALLS, *SENDING)
        )
        reached += first.killed
        wrong += [f"{call}: {item}" for item in answered_once(runner, place, name, command, first)]
    print(f"{len(calls)} kill points, {reached} reached, seed {SEED}")
    assert not wrong, "\n".join([f"seed {SEED}", *wrong])
    assert reached >= len(calls) - 2
    assert problems(place, keys=keys) == []


def stopped_then(action: Callable[[], None]) -> Callable[[int, Path], None]:
    """Return a function that waits until a process stands still at its fault, acts, and lets it go on."""

    def act(pid: int, log: Path) -> None:
        while "stopped by SIGSTOP" not in log.read_text():
            if not Path(f"/proc/{pid}").exists():
                return  # it has ended without that call
            time.sleep(0.005)
        action()
        os.kill(pid, signal.SIGCONT)

    return act


def test_a_server_that_goes_away_at_any_message_is_one_clear_error_and_the_repeat_succeeds(
    runner: Runner, server: PostgresqlServer, place: Place
) -> None:
    need_strace()
    calls = choose([call for call in sends(runner, place) if call.name in SENDING], sample=18, every=CAMPAIGN)
    wrong: list[str] = []
    codes: list[int] = []
    for number, call in enumerate(calls):
        full_stop = number % FULL_STOP_EVERY == FULL_STOP_EVERY - 1
        name, command = new_request(place)
        first = runner.run(
            place,
            *command,
            fault=Fault(call.name, call.nth, "signal=STOP"),
            calls=SENDING,
            meanwhile=stopped_then(server.crash if full_stop else server.disconnect_all),
        )
        codes.append(first.code)
        if full_stop:
            server.start()
        errors = [line for line in first.stderr.splitlines() if line.startswith("error: ")]
        # A read is tried again on a new connection, so a lost session alone need not be noticed; nor need the loss of
        # the whole server be, once the commit is answered. Then the certificate is there, and `answered_once` holds it
        # against what the server has after its restart: a commit that was lost would make another one.
        done = first.code == 0 and (not full_stop or (place.out / f"{name}.pem").exists())
        if not (done or first.code == 4) or len(errors) != bool(first.code):
            wrong.append(f"{call}: it ended with {first.code}: {first.stderr.strip()}")
        wrong += [f"{call}: {item}" for item in answered_once(runner, place, name, command, first)]
    print(f"{len(calls)} messages, exit codes {codes}")
    assert not wrong, "\n".join(wrong)
    assert 4 in codes


def test_no_server_at_all_is_one_clear_error_for_every_command(
    runner: Runner, server: PostgresqlServer, place: Place
) -> None:
    server.crash()
    for command in (
        new_request(place)[1],
        ["ca", "create", "n", "--profile", "ocpp/cso-root", "--subject", "CN=N,O=T,C=DE"],
        ["cert", "revoke", (place.root / "b.id").read_text(), "--reason", "superseded"],
        ["crl", "publish", "--ca", "s"],
        ["authority", "serve", "--once"],
        ["audit", "verify"],
        ["ca", "list"],
    ):
        outcome = runner.run(place, *command)
        assert outcome.code == 4, f"{command}: {outcome.code}: {outcome.stderr}"
        assert outcome.stderr.count("error: ") == 1 and "cannot be reached" in outcome.stderr
    server.start()
    assert runner.run(place, "ca", "create", "n", "--profile", "ocpp/cso-root", "--subject", "CN=N,O=T,C=DE").code == 0
    assert problems(place) == []
