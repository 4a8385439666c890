"""`chargepki station`: register, show, remove, passwords, operations, events; hostile names and passwords."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from testkit.command_line import CommandLine, snapshot
from testkit.hierarchy import make_node

STATION_FIELDS = {
    "id", "serial_number", "organization", "security_profile", "state", "has_password", "password_changed_at",
    "created_at", "connected", "protocol", "connected_profile", "certificate", "last_seen_at",
    "vendor", "model", "firmware_version",
}  # fmt: skip
OPERATION_FIELDS = {
    "id", "kind", "station", "state", "parameters", "requester", "created_at", "deadline", "outcome",
}  # fmt: skip


def test_add_prints_one_documented_object(run: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("a-password-of-20-chr\n")
    words = ("--serial-number", "SN-7", "--organization", "Acme", "--security-profile", "2")
    row = run("station", "add", "CS-7", *words, "--password-file", tmp_path / "password", "--json").json()
    assert row.keys() == STATION_FIELDS | {"schema", "schema_version", "deviations", "issue"}
    assert (row["schema"], row["id"], row["serial_number"]) == ("chargepki/station", "CS-7", "SN-7")
    assert row["has_password"] is True and row["connected"] is False
    assert "argon2" not in str(row)


def test_a_station_without_password_is_told_what_comes_next(run: CommandLine) -> None:
    assert "next: chargepki station set-password CS-8 --record-only" in run("station", "add", "CS-8").stderr


def test_adding_twice_is_refused_and_removing_is_undone_by_adding(run: CommandLine) -> None:
    before = snapshot(run.home)
    run.run("station", "add", "CS-0001").check_one_error(3)
    assert "--yes" in run.run("station", "remove", "CS-0001").check_one_error(3).stderr
    assert snapshot(run.home) == before
    removed = run("station", "remove", "CS-0001", "--yes", "--json")
    assert removed.json()["state"] == "removed"
    assert "next: chargepki cert revoke t-cso-sub@1:" in removed.stderr
    run("station", "remove", "CS-0001", "--yes")
    assert run("station", "add", "CS-0001", "--json").json()["state"] == "active"


def test_show_tells_certificates_and_operations(run: CommandLine) -> None:
    run("station", "trigger-renewal", "CS-0001")
    shown = run("station", "show", "CS-0001", "--json").json()
    assert len(shown["certificates"]) == 2
    (operation,) = shown["operations"]
    assert operation.keys() == OPERATION_FIELDS and operation["parameters"] == {"use": "ChargingStationCertificate"}
    text = run("station", "show", "CS-0001").out
    assert "trigger-renewal" in text and "ocpp/charging-station" in text


def test_list_and_events(run: CommandLine) -> None:
    rows = run("station", "list", "--json").json()["stations"]
    assert [row["id"] for row in rows] == ["CS-0001", "CS-0002"] and rows[0].keys() == STATION_FIELDS


def test_a_password_is_made_and_shown_only_where_it_must_be_carried(run: CommandLine) -> None:
    made = run("station", "set-password", "CS-0001", "--record-only", "--json").json()
    assert len(made["password"]) == 20
    queued = run("station", "set-password", "CS-0001", "--json")
    assert queued.json().keys() == OPERATION_FIELDS | {"schema", "schema_version"}
    assert "password" not in queued.json()["parameters"] and "queued; look at it with" in queued.stderr


def test_waiting_for_a_station_that_is_away_ends_in_time(run: CommandLine) -> None:
    done = run("station", "trigger-renewal", "CS-0001", "--wait", "1s", "--json")
    assert done.json()["state"] == "queued" and "waiting up to 1 s" in done.stderr


def test_exceptions_of_a_station_are_set_shown_and_ended(run: CommandLine, tmp_path: Path) -> None:
    maker = tmp_path / "acme-maker.pem"
    maker.write_bytes(make_node("Maker", None, ca=True).certificate.public_bytes(Encoding.PEM))
    words = ("--onboarding-ca", maker, "--accept-expired", "--password-grace", "1h")
    row = run("station", "set", "CS-0001", *words, "--json").json()
    assert [clause in text for clause, text in zip(("406", "429", "A01.FR.03"), row["deviations"], strict=True)]
    assert "acme-maker.pem" in row["deviations"][0] and "3600 s" in row["deviations"][2]
    assert run("station", "show", "CS-0001", "--json").json()["deviations"] == row["deviations"]
    run("station", "set", "CS-0001", "--no-onboarding", "--no-accept-expired", "--no-password-grace")
    assert run("station", "show", "CS-0001", "--json").json()["deviations"] == []


def test_an_onboarding_ca_that_is_none_is_refused_and_nothing_changes(run: CommandLine, tmp_path: Path) -> None:
    leaf = tmp_path / "leaf.pem"
    leaf.write_bytes(make_node("Leaf", None, ca=False).certificate.public_bytes(Encoding.PEM))
    before = snapshot(run.home)
    assert (
        "no CA certificate" in run.run("station", "set", "CS-0001", "--onboarding-ca", leaf).check_one_error(3).stderr
    )
    assert (
        "of the operator"
        in run.run("station", "set", "CS-0001", "--onboarding-ca", "t-cso-sub").check_one_error(3).stderr
    )
    run.run("station", "set", "CS-0001", "--onboarding-ca", tmp_path / "absent.pem").check_one_error(4)
    run.run("station", "set", "CS-0404", "--accept-expired").check_one_error(3)
    run.run("station", "set", "CS-0001").check_one_error(2)
    assert snapshot(run.home) == before


BAD_IDENTITIES = ["", "a b", "a/b", "\x1b[2J", "x" * 49, "a:b", "é", "a\n", ".."]


@pytest.mark.parametrize("identity", BAD_IDENTITIES)
def test_an_identity_that_ocpp_forbids_is_refused(run: CommandLine, identity: str) -> None:
    before = snapshot(run.home)
    done = run.run("station", "add", "--", identity)
    if identity == "..":
        assert done.code == 0, "dots are allowed in an identity"
        return
    done.check_one_error(3)
    assert snapshot(run.home) == before
    for verb in ("show", "remove", "events", "set-password", "trigger-renewal"):
        run.run("station", verb, "--", identity).check_one_error(3)
    assert snapshot(run.home) == before


@pytest.mark.parametrize("serial", ["", "x" * 26, "\x1b[2J", "a\n", "é" * 70])
def test_a_serial_number_that_ocpp_forbids_is_refused(run: CommandLine, serial: str) -> None:
    before = snapshot(run.home)
    run.run("station", "add", "CS-9", "--serial-number", serial).check_one_error(3)
    assert snapshot(run.home) == before


@pytest.mark.parametrize("organization", ["", "\x1b[2J", "a\nb", "x" * 65])
def test_an_organization_that_no_certificate_can_have_is_refused(run: CommandLine, organization: str) -> None:
    before = snapshot(run.home)
    run.run("station", "add", "CS-9", "--organization", organization).check_one_error(3)
    assert snapshot(run.home) == before


@pytest.mark.parametrize("password", [b"short", b"x" * 65, "é".encode() * 65, b"a" * 15, b"", b"a-password\nof-20-chr"])
def test_a_password_that_fits_no_version_is_refused_and_not_repeated(run: CommandLine, password: bytes) -> None:
    before = snapshot(run.home)
    for words in (("add", "CS-9"), ("set-password", "CS-0001"), ("set-password", "CS-0001", "--record-only")):
        done = run.run("station", *words, "--password-file", "-", stdin=password).check_one_error(3)
        assert not password or password not in done.stderr.encode()
    assert snapshot(run.home) == before


@settings(max_examples=40)
@given(text=st.text(max_size=60))
def test_whatever_is_typed_as_a_name_is_answered_and_never_a_bug(prepared: Path, text: str) -> None:
    run = CommandLine(prepared / "home", {})
    before = snapshot(prepared)
    for words in (("station", "show"), ("ca", "show"), ("cert", "show"), ("inventory", "show"), ("profile", "show")):
        done = run.run(*words, "--", text)
        done.check_one_error(2 if "\0" in text else 4 if done.code == 4 else 3)
    assert snapshot(prepared) == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("http://x",), "not the URL"),
        (("ws://",), "not the URL"),
        (("ws://me:s3cret@x",), "not the URL"),
        (("ws://x:99999",), "not the URL"),
        (("ws://[::1",), "not the URL"),
        (("ws://127.0.0.1:1", "--no-password"), "neither a certificate nor a password"),
        (("ws://x", "--until", "never"), ""),
        (("ws://x", "--id", "a b"), ""),
    ],
    ids=repr,
)
def test_a_simulated_station_with_a_bad_address_leaves_no_store(
    fresh: CommandLine, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    store = tmp_path / "store"
    url, *rest = words
    (tmp_path / "password").write_text("a-password-of-20-chr")
    if "--no-password" in rest:
        rest.remove("--no-password")
    else:
        rest += ["--password-file", str(tmp_path / "password")]
    identity = () if "--id" in rest else ("--id", "CS-1")
    done = fresh.run("station", "simulate", url, *rest, *identity, "--store", store, "--protocol", "ocpp1.6")
    done.check_one_error(2 if "--until" in rest else 3)
    assert said in done.stderr and not store.exists()


def test_what_a_station_was_called_cannot_steer_the_terminal(run: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stations write texts into the inventory; tables and fields show control characters as escapes."""
    from chargepki.cli.output import Output

    output = Output(json=False, json_lines=False, quiet=False, verbose=False)
    written: list[str] = []
    monkeypatch.setattr(output, "text", written.append)
    row = {"tech_info": "a\x1b[2Jb\nc", "list": ["x\x07"], "map": {"k": "\x9b"}}
    output.rows("s", tuple(row), [row])
    output.fields("s", row)
    assert written and all(line.isprintable() for text in written for line in text.splitlines())
