"""`chargepki cert renew`: the same name with new dates, once; and everything that is due, in a wave."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from chargepki.cli import renewing_due
from chargepki.pki import names
from chargepki.pki.authority import utc_now
from chargepki.pki.authority.renewal import LONGEST_WINDOW, due_at, find_due, renewal_window
from chargepki.pki.inventory.records import CertificateRecord, CertificateState
from chargepki.pki.keys import KeyAlgorithm
from testkit.command_line import CommandLine, snapshot
from testkit.requests import key_of, make_csr

SUBJECT = "CN=csms.acme.eu,O=Acme Charging"


def issue(run: CommandLine, folder: Path, *extra: str, subject: str = SUBJECT, profile: str = "ocpp/csms") -> str:
    """Issue a certificate and return its id."""
    (folder / "first.csr").write_bytes(make_csr(names.parse_rdns(subject)))
    done = run(
        "cert", "issue", "--ca", "t-cso-sub", "--profile", profile, "--csr", folder / "first.csr", *extra, "--json"
    )
    return str(done.json()["id"])


def leaf(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificates(path.read_bytes())[0]


def test_the_successor_has_the_same_name_key_and_length_of_life(run: CommandLine, tmp_path: Path) -> None:
    old = issue(run, tmp_path, "--validity", "40d", "--dns", "alt.acme.eu", "--out", str(tmp_path / "old.pem"))
    done = run("cert", "renew", old, "--out", tmp_path / "new.pem", "--chain-out", tmp_path / "chain.pem")
    before, after = leaf(tmp_path / "old.pem"), leaf(tmp_path / "new.pem")
    assert after.serial_number != before.serial_number and after.subject == before.subject
    assert after.public_key() == before.public_key()
    assert after.extensions.get_extension_for_class(x509.SubjectAlternativeName) == (
        before.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    )
    assert after.not_valid_after_utc - after.not_valid_before_utc == (
        before.not_valid_after_utc - before.not_valid_before_utc
    )
    assert f"cert revoke {old} --reason superseded" in done.stderr, "the old one stays valid until told otherwise"
    assert run("cert", "show", old, "--json").json()["state"] == "issued"
    again = run("cert", "renew", old, "--json").json()
    assert again["repeated"] is True and int(again["serial"], 16) == after.serial_number
    another = run("cert", "renew", old, "--again", "--json").json()
    assert another["repeated"] is False


def test_a_request_or_a_new_key_re_keys_it_once(run: CommandLine, tmp_path: Path) -> None:
    old = issue(run, tmp_path)
    key = key_of(KeyAlgorithm.SECP256R1, 1)
    (tmp_path / "new.csr").write_bytes(make_csr(names.parse_rdns("CN=csms.acme.eu"), key))
    renewed = run("cert", "renew", old, "--csr", tmp_path / "new.csr", "--out", tmp_path / "new.pem", "--json").json()
    certificate = leaf(tmp_path / "new.pem")
    assert certificate.public_key() == key.public_key()
    assert certificate.subject == names.parse_rdns("O=Acme Charging,CN=csms.acme.eu"), "what it leaves out is kept"
    refused = run.run("cert", "renew", old, "--new-key", "--key-out", tmp_path / "new.key").check_one_error(3)
    assert renewed["id"] in refused.stderr and "--again" in refused.stderr
    assert not list(tmp_path.glob("new.key*")), "no key is made for nothing"
    run(
        "cert", "renew", old, "--new-key", "--key-out", tmp_path / "new.key", "--again", "--out", tmp_path / "third.pem"
    )
    private = load_pem_private_key((tmp_path / "new.key").read_bytes(), None)
    assert leaf(tmp_path / "third.pem").public_key() == private.public_key()


@pytest.mark.parametrize("reason", ["keyCompromise", "superseded"])
def test_what_was_revoked_is_not_renewed(run: CommandLine, tmp_path: Path, reason: str) -> None:
    old = issue(run, tmp_path)
    run("cert", "revoke", old, "--reason", reason)
    before = run("cert", "list", "--json").json()
    assert "a renewal would undo that" in run.run("cert", "renew", old).check_one_error(3).stderr
    assert run("cert", "list", "--json").json() == before


def test_a_request_for_somebody_else_and_a_ca_are_refused(run: CommandLine, tmp_path: Path) -> None:
    old = issue(run, tmp_path)
    (tmp_path / "other.csr").write_bytes(make_csr(names.parse_rdns("CN=evil.acme.eu,O=Acme Charging")))
    done = run.run("cert", "renew", old, "--csr", tmp_path / "other.csr").check_one_error(3)
    assert "CN=evil.acme.eu" in done.stderr
    rows = run("cert", "list", "--profile", "ocpp/cso-sub", "--json").json()["certificates"]
    assert "ca create" in run.run("cert", "renew", rows[0]["id"]).check_one_error(3).stderr
    run.run("cert", "renew", "00ff").check_one_error(3)


def test_options_that_do_not_go_together_are_refused(run: CommandLine, tmp_path: Path) -> None:
    for arguments in (
        (), ("--due", "00"), ("--due", "--csr", "x"), ("00", "--out-dir", "x"), ("00", "--rate", "3"),
        ("00", "--new-key"), ("00", "--key", "ed25519"), ("00", "--csr", "x", "--new-key"),
    ):  # fmt: skip
        assert run.run("cert", "renew", *arguments).code == 2, arguments


def test_a_dry_run_shows_what_would_be_signed(run: CommandLine, place: Path, tmp_path: Path) -> None:
    old = issue(run, tmp_path, "--out", str(tmp_path / "old.pem"))
    before = snapshot(place)
    shown = run("cert", "renew", old, "--dry-run", "--json").json()
    assert shown["schema"] == "chargepki/certificate-preview"
    assert run("cert", "renew", "--due", "--dry-run", "--json").json()["certificates"] == []
    assert snapshot(place) == before


def test_what_is_due_is_renewed_by_campaign_or_into_files_and_only_once(
    run: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    station_csr = {"subject": "CN=CS-0002,O=Acme Charging", "profile": "ocpp/charging-station"}
    station = issue(run, tmp_path, "--validity", "90d", **station_csr)
    csms = issue(run, tmp_path, "--validity", "90d", subject="CN=due.acme.eu,O=Acme Charging")
    out = tmp_path / "renewed"
    due = ("cert", "renew", "--due", "--ca", "t-cso-sub", "--json")
    assert run(*due).json()["certificates"] == []
    # A day before their end, whatever their place in the window is.
    eve = utc_now() + timedelta(days=89)
    monkeypatch.setattr(renewing_due, "utc_now", lambda: eve)
    planned = {row["certificate"]: row["action"] for row in run(*due, "--dry-run").json()["certificates"]}
    assert (planned[station], planned[csms]) == ("campaign", "renew") and not out.exists()
    assert run.run(*due).code == 2, "the new ones need a folder"
    done = {row["certificate"]: row for row in run(*due, "--out-dir", out, "--rate", "5").json()["certificates"]}
    assert done.keys() == planned.keys()
    written = Path(done[csms]["out"])
    assert f"{leaf(written).serial_number:x}" == done[csms]["successor"].partition(":")[2]
    (campaign,) = run("campaign", "list", "--json").json()["campaigns"]
    assert done[station]["why"] == campaign["name"] and campaign["kind"] == "trigger-renewal"
    assert [row["station"] for row in run("campaign", "stations", campaign["name"], "--json").json()["stations"]] == [
        "CS-0002"
    ]
    monkeypatch.setattr(renewing_due, "find_due", only(csms, station))
    assert run(*due, "--out-dir", out).json()["certificates"] == [], "both are under way"
    written.unlink()
    (row,) = run(*due, "--out-dir", out).json()["certificates"]
    assert row["successor"] == done[csms]["successor"] and written.exists(), "what was issued and lost is written again"


def only(*wanted: str) -> Callable[..., Iterator[Any]]:
    """Leave out the successors: by a clock that is months ahead, they are due themselves."""

    def find(*arguments: Any, **options: Any) -> Iterator[Any]:
        return (found for found in find_due(*arguments, **options) if found[0].id in wanted)

    return find


def test_places_in_the_window_differ_and_lie_in_its_first_half() -> None:
    now = utc_now()
    records = [record(now, timedelta(days=90), number) for number in range(200)]
    places = [(due_at(each) - each.not_after + LONGEST_WINDOW) / LONGEST_WINDOW for each in records]
    assert renewal_window(records[0]) == LONGEST_WINDOW and len(set(places)) == len(places)
    assert 0 <= min(places) < 0.1 and 0.4 < max(places) <= 0.5
    short = record(now, timedelta(hours=3), 0)
    assert renewal_window(short) == timedelta(hours=1) and due_at(short) >= short.not_after - timedelta(hours=1)


def record(now: datetime, lasts: timedelta, number: int) -> CertificateRecord:
    return CertificateRecord(
        id=f"t@1:{number:x}", ca="t@1", serial=f"{number:x}", profile="ocpp/csms", state=CertificateState.ISSUED,
        subject="CN=x", subject_der=b"", spki_sha256="", not_before=now, not_after=now + lasts, request_key="",
        requester="", reserved_at=now,
    )  # fmt: skip
