"""What runs for long, `csms serve`, `authority serve` and `station simulate`: what it says, when it ends."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from chargepki.cli.station_rows import station_row
from chargepki.pki.inventory.records import PresenceRecord, StationRecord, StationState
from chargepki.pki.pem import to_pem
from testkit.command_line import CommandLine
from testkit.commands import forked_program
from testkit.hierarchy import make_node

ACME = ("--organization", "Acme Charging")
PASSWORD = "a-password-of-20-chr"


class Service:
    """`csms serve` on a free port of 127.0.0.1."""

    def __init__(self, run: CommandLine, place: Path, *words: str | Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.log = place / "csms.log"
        environment = {**os.environ, "CHARGEPKI_HOME": str(run.home), **run.variables}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [forked_program(), "csms", "serve", "--listen", f"127.0.0.1:{self.port}", *words],
                env=environment, stdout=log, stderr=log,
            )  # fmt: skip
        deadline = time.monotonic() + 60
        while "ready: " not in self.said() and time.monotonic() < deadline and self.process.poll() is None:
            time.sleep(0.05)
        assert "ready: " in self.said(), self.said()

    def said(self) -> str:
        return self.log.read_text()

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(60)


@pytest.fixture
def queueing(run: CommandLine, place: Path) -> Iterator[Service]:
    """An endpoint of profile 1 that queues CSRs of CS-0001, whose password is in the file ``password``."""
    (place / "password").write_text(PASSWORD)
    for identity in ("CS-9", "CS-10"):
        run("station", "add", identity, "--security-profile", "1", "--password-file", place / "password")
    service = Service(
        run, place, "--security-profile", "1", "--allow-unsecured", "*",
        "--issue", "ChargingStationCertificate=t-cso-sub:ocpp/charging-station",
    )  # fmt: skip
    yield service
    service.stop()


def simulated(service: Service, place: Path, identity: str, *words: str) -> tuple[str | Path, ...]:
    return (
        "station", "simulate", f"ws://127.0.0.1:{service.port}", "--id", identity, "--store", place / identity,
        "--protocol", "ocpp2.0.1", "--password-file", place / "password", "--trust", place / "chain.pem", *words,
    )  # fmt: skip


def test_a_queued_csr_is_counted_and_its_answer_is_told(run: CommandLine, place: Path, queueing: Service) -> None:
    assert "queued for `chargepki authority serve`" in queueing.said()
    run(*simulated(queueing, place, "CS-9", *ACME, "--until", "csr-accepted", "--timeout", "15s"))
    assert run("inventory", "list", "--json").json()["queued_requests"] == 1
    said = run("authority", "serve", "--once").stderr
    (made,) = run("station", "show", "CS-9", "--json").json()["certificates"]
    (line,) = [line for line in said.splitlines() if "CS-9" in line]
    assert line.startswith("20") and "ocpp/charging-station  issued t-cso-sub@1 serial " in line
    assert made["id"].partition(":")[2] in line
    assert run("inventory", "list", "--json").json()["queued_requests"] == 0


@pytest.mark.parametrize("profiles", ["0,1", "1"])
def test_an_endpoint_without_tls_says_what_that_means(run: CommandLine, place: Path, profiles: str) -> None:
    allowed = ("--allow-unsecured", "OLD-*") if profiles == "1" else ()
    issue = ("--issue", "ChargingStationCertificate=t-cso-sub")
    service = Service(run, place, "--security-profile", profiles, *issue, *allowed)
    service.stop()
    assert "passwords in clear text (A00.FR.201" in service.said()
    words = "roots of stations like OLD-* are changed without TLS" if allowed else "CSRs are refused on this port"
    assert words in service.said()
    assert ("anybody who knows a station's identity can speak in its name" in service.said()) is (profiles != "1")


def test_a_simulation_that_does_not_get_there_ends(run: CommandLine, place: Path, queueing: Service) -> None:
    late = run.run(*simulated(queueing, place, "CS-9", *ACME, "--until", "certificate-proven", "--timeout", "1s"))
    late.check_one_error(4)
    assert "did not reach certificate-proven" in late.stderr
    stranger = run.run(*simulated(queueing, place, "STRANGER", "--until", "booted"))
    stranger.check_one_error(3)
    assert "3 times in a row" in stranger.stderr
    refused = run.run(*simulated(queueing, place, "CS-10", "--until", "certificate-proven"))
    refused.check_one_error(3)
    assert "the request has no O" in refused.stderr
    # The limit is for a simulation that does not end by itself: it then says so, and the words below are not there.
    contract = ("--no-enrol", "--contract", str(place / "chain.pem"), "--until", "authorized", "--timeout", "30s")
    car = run.run(*simulated(queueing, place, "CS-9", *contract))
    car.check_one_error(3)
    assert "did not reach authorized: the vehicle may not charge" in car.stderr
    run.run(*simulated(queueing, place, "CS-9", "--timeout", "1s")).check_one_error(2)


def test_a_fleet_is_registered_and_simulated(run: CommandLine, place: Path, queueing: Service) -> None:
    fleet = ("--count", "3", "--password-file", place / "password")
    added = run("station", "add", "V-{}", *fleet, "--security-profile", "1", "--json").json()["stations"]
    assert [row["id"] for row in added] == ["V-1", "V-2", "V-3"]
    run.run("station", "add", "V", *fleet).check_one_error(3)
    versions = ("--protocol", "ocpp1.6", "--protocol", "ocpp2.1")
    command = (*simulated(queueing, place, "V", "--no-enrol", *versions), "--count", "3", "--misbehave", "base64=3")
    done = run(*command, "--until", "booted", "--json").json()
    assert (done["stations"], done["booted"], done["ended"]) == (3, 3, 0)
    assert [row["protocol"] for row in done["rows"]] == ["ocpp2.0.1", "ocpp1.6", "ocpp2.1"]
    assert [row["misbehaves"] for row in done["rows"]] == [[], [], ["base64"]]
    assert sorted(path.name for path in (place / "V").iterdir()) == ["V-1", "V-2", "V-3"]
    table = run(*command, "--until", "booted")
    assert "all 3 stations: booted" in table.stderr and len(table.stdout.splitlines()) == 4
    # A station more than is on record: it is refused, told with its trouble, and the others are not.
    more = run.run(*command[:-4], "--count", "4", "--until", "booted")
    more.check_one_error(4)
    assert "3 of 4 stations reached booted" in more.stderr and "HTTP 401" in more.out


def test_a_fleet_that_cannot_be_is_refused(run: CommandLine, place: Path) -> None:
    (place / "password").write_text(PASSWORD)
    command = (
        "station", "simulate", "ws://127.0.0.1:1", "--id", "W", "--store", place / "W", "--protocol", "ocpp2.0.1",
        "--password-file", place / "password",
    )  # fmt: skip
    wrong: tuple[tuple[int, tuple[str, ...]], ...] = (
        (2, ("--protocol", "ocpp1.6")),
        (3, ("--misbehave", "nonsense")),
        (3, ("--misbehave", "csr-crlf=2")),
        (3, ("--count", "2", "--misbehave", "csr-crlf=3")),
        (3, ("--misbehave", "csr-crlf", "--misbehave", "csr-base64")),
        (4, ("--count", "2", "--password-dir", "absent")),
    )
    for code, words in wrong:
        run.run(*command, *words).check_one_error(code)
        assert not (place / "W").exists()


def test_a_driver_is_decided_about_before_any_connection(run: CommandLine, place: Path) -> None:
    (place / "password").write_text(PASSWORD)
    root = make_node("A mobility operator", None, ca=True)
    (place / "mo.pem").write_text(to_pem("CERTIFICATE", root.der))
    (place / "contract.pem").write_text(to_pem("CERTIFICATE", make_node("DEABC123456789", root, ca=False).der))
    command = (
        "station", "simulate", "ws://127.0.0.1:1", "--id", "D", "--store", place / "D", "--protocol", "ocpp2.1",
        "--password-file", place / "password", "--root", f"mo={place / 'mo.pem'}", "--contract",
        place / "contract.pem", "--driver-offline", "--until", "not-authorized", "--timeout", "60s",
        "--variable", "AuthCtrlr.LocalAuthorizeOffline=false",
    )  # fmt: skip
    said = run(*command, "--variable", "ISO15118Ctrlr.ContractValidationOffline=true").out
    assert "not charge: offline, and" in said
    for code, words in (
        (2, ("--id-token", "X")),
        (2, ("--root", "csms=x")),
        (2, ("--use", "combined", "--use", "v2g")),
        (2, ("--variable", "nonsense")),
        (3, ("--variable", "Nonsense=1")),
        (3, ("--variable", "ISO15118Ctrlr.PnCEnabled=yes")),
        (4, ("--vehicle-chain", "absent.pem")),
    ):
        run.run(*command, *words).check_one_error(code)


def test_what_a_station_can_do_wrong_is_listed(run: CommandLine) -> None:
    listed = run("station", "misbehaviours", "--json").json()["misbehaviours"]
    assert {"csr-storm", "serial-decimal", "firmware-corrupt"} < {row["name"] for row in listed}


def test_a_server_chain_that_ends_too_early_is_told_with_its_cure(run: CommandLine, place: Path) -> None:
    leaf = make_node("localhost", make_node("Some intermediate", None, ca=True), ca=False)
    (place / "leaf.pem").write_text(to_pem("CERTIFICATE", leaf.der))
    key = place / "leaf.key"
    key.write_bytes(leaf.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    key.chmod(0o600)
    service = Service(
        run, place, "--security-profile", "2", "--tls-cert", place / "leaf.pem", "--tls-key", key, "--issue-here"
    )
    service.stop()
    said = service.said()
    assert "the server chain ends below CN=Some intermediate" in said and "to fix: append the certificate" in said
    assert "to fix: add an RSA pair of --tls-cert and --tls-key" in said
    assert "queued for" not in said


def test_a_connection_whose_process_was_killed_counts_as_gone_after_a_while() -> None:
    now = datetime.now(UTC)
    station = StationRecord("CS-1", "CS-1", None, 2, StationState.ACTIVE, now)
    presence = PresenceRecord("CS-1", True, "dead", "c1", "ocpp2.1", 2, None, "127.0.0.1:1", now, now)
    assert station_row(station, presence, now=now + timedelta(minutes=14))["connected"] is True
    row = station_row(station, presence, now=now + timedelta(minutes=16))
    assert (row["connected"], row["connected_profile"], row["last_seen_at"]) == (False, None, now)
