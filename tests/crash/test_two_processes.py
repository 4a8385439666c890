"""Several processes on one inventory at once: no serial twice, one whole log, one certificate a request."""

from __future__ import annotations

import json
import os
import subprocess
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography import x509

from chargepki.pki.inventory.records import CertificateState
from testkit.authorities import make_csr
from testkit.commands import forked_python
from testkit.crash import Outcome, Place, Runner
from testkit.crash_judge import key_files, problems
from testkit.crash_scenarios import ISSUE, build_template, open_place
from testkit.databases import database_url, sqlite_url
from testkit.effort import CAMPAIGN
from testkit.layout import ROOT

__all__ = ["database_url", "sqlite_url"]

pytestmark = pytest.mark.slow

PROCESSES = 2
OWN = 2000 if CAMPAIGN else 40
SHARED = 2000 if CAMPAIGN else 40


@pytest.fixture
def place(database_url: str, runner: Runner, folder: Path) -> Place:
    """A workspace with a root, a sub-CA and one certificate, on either database."""
    made = Place.new(folder / "place", None if database_url.startswith("sqlite") else database_url)
    build_template(runner, made)
    return made


def together(runner: Runner, place: Place, commands: Sequence[Sequence[str]]) -> list[Outcome]:
    """Run the commands at the same time."""
    with ThreadPoolExecutor(len(commands)) as pool:
        return list(pool.map(lambda arguments: runner.run(place, *arguments), commands))


def start_workers(place: Place, requests: Sequence[Sequence[tuple[str, str]]]) -> list[list[tuple[str, str]]]:
    """Run a process a list of requests, all at once, and return their answers."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests" / "lib")}
    processes: list[subprocess.Popen[str]] = []
    for own in requests:
        process = subprocess.Popen(
            [forked_python(), "-m", "testkit.crash_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )
        assert process.stdin is not None
        task = {"home": str(place.home), "url": place.url, "threads": 4, "requests": own}
        process.stdin.write(json.dumps(task) + "\n")
        process.stdin.flush()
        processes.append(process)
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()
    answers = []
    for process in processes:
        assert process.stdout is not None
        answers.append([(name, answer) for name, answer in json.loads(process.stdout.read())])
        process.stdout.close()
        assert process.wait(60) == 0
    return answers


def test_processes_that_issue_at_once_share_no_serial_and_answer_one_request_alike(place: Place) -> None:
    shared = [(f"shared-{number}", make_csr(f"CS-S{number}").decode()) for number in range(SHARED)]
    requests = []
    for process in range(PROCESSES):
        own = [(f"own-{process}-{number}", make_csr(f"CS-O{process}-{number}").decode()) for number in range(OWN)]
        # Own and shared requests alternate, so that the same one is asked for at the same time.
        requests.append([item for pair in zip(own, shared, strict=True) for item in pair])
    answers = start_workers(place, requests)
    certificates: dict[str, set[str]] = defaultdict(set)
    for name, answer in (pair for answered in answers for pair in answered):
        certificates[name].add(answer)
    errors = [answer for given in certificates.values() for answer in given if ":" in answer]
    assert errors == []
    assert {name for name, given in certificates.items() if len(given) != 1} == set()
    leaves = [x509.load_der_x509_certificate(bytes.fromhex(answer)) for (answer,) in certificates.values()]
    assert len({leaf.serial_number for leaf in leaves}) == PROCESSES * OWN + SHARED
    with open_place(place) as inventory:
        issued = {record.der.hex() for record in inventory.list_certificates() if record.der is not None}
        assert {answer for (answer,) in certificates.values()} <= issued
        assert list(inventory.list_reserved()) == []
        # Two roots, the sub-CA and the template's own certificate are the only others.
        assert len(issued) == PROCESSES * OWN + SHARED + 4
    assert problems(place) == []


def test_the_same_command_twice_at_once_makes_one_certificate(place: Place, runner: Runner) -> None:
    for round_ in range(20 if CAMPAIGN else 4):
        commands = [
            (*ISSUE, "--csr", "a.csr", "--request-id", f"r{round_}", "--out", f"out/{round_}-{twin}.pem")
            for twin in range(3)
        ]
        outcomes = together(runner, place, commands)
        assert [outcome.code for outcome in outcomes] == [0, 0, 0], [outcome.stderr for outcome in outcomes]
        assert len({(place.out / f"{round_}-{twin}.pem").read_bytes() for twin in range(3)}) == 1
    assert problems(place) == []


def test_every_kind_of_command_at_once_leaves_one_whole_log(place: Place, runner: Runner) -> None:
    before = key_files(place)
    target = (place.root / "b.id").read_text()
    outcomes = together(
        runner,
        place,
        [
            (*ISSUE, "--csr", "a.csr", "--out", "out/a.pem"),
            ("authority", "serve", "--once", "--publish-dir", "www"),
            ("authority", "serve", "--once", "--publish-dir", "www"),
            ("cert", "revoke", target, "--reason", "superseded", "--publish-dir", "www"),
            ("crl", "publish", "--ca", "s", "--publish-dir", "www"),
            ("crl", "publish", "--ca", "s", "--publish-dir", "www"),
            ("ca", "create", "n", "--profile", "ocpp/cso-sub", "--issuer", "r", "--subject", "CN=New,O=T,C=DE"),
        ],
    )
    assert [outcome.code for outcome in outcomes] == [0] * 7, [outcome.stderr for outcome in outcomes]
    assert problems(place, outcomes, keys=before) == []
    with open_place(place) as inventory:
        numbers = [crl.number for crl in inventory.list_crls("s@1")]
        assert len(set(numbers)) == len(numbers)
        latest = inventory.latest_crl("s@1")
        assert latest is not None and latest.entries == 1
        assert (place.published / "crl" / "s@1.crl").read_bytes() == latest.der
        assert inventory.get_certificate(target).state is CertificateState.REVOKED
        made = [record for record in inventory.list_certificates() if "CN=CS-Q" in record.subject]
        assert len(made) == 3
        assert list(inventory.list_reserved()) == []


def test_processes_that_create_one_workspace_at_once_agree_on_it(
    database_url: str, runner: Runner, folder: Path
) -> None:
    for round_ in range(20 if CAMPAIGN else 3):
        if round_ and not database_url.startswith("sqlite"):
            break  # one fresh database a test
        place = Place.new(folder / f"new{round_}", None if database_url.startswith("sqlite") else database_url)
        commands = [
            ("ca", "create", name, "--profile", "ocpp/cso-root", "--subject", f"CN={name},O=T,C=DE")
            for name in ("one", "two", "two")
        ]
        outcomes = together(runner, place, commands)
        # Of two that create the same CA one may come too late; then it says so and has changed nothing.
        assert outcomes[0].code == 0, outcomes[0].stderr
        assert sorted(outcome.code for outcome in outcomes[1:]) in ([0, 0], [0, 3]), [o.stderr for o in outcomes]
        assert problems(place) == []
        with open_place(place) as inventory:
            assert {ca.id: str(ca.state) for ca in inventory.list_cas()} == {"one@1": "active", "two@1": "active"}
            assert len(list(inventory.list_certificates())) == 2
