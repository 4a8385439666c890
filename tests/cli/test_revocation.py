"""Revocation on the command line: holds, dates, what is served when a command returns, and lost keys."""

from __future__ import annotations

import json
from pathlib import Path

from cryptography import x509

from testkit.command_line import CommandLine

ISSUE = ("cert", "issue", "--ca", "t-cso-sub", "--profile", "ocpp/charging-station", "--csr")


def live_one(run: CommandLine) -> str:
    """Return the id of the valid station certificate of the prepared workspace."""
    (row,) = run("cert", "list", "--state", "issued", "--station", "CS-0001", "--json").json()["certificates"]
    return str(row["id"])


def served(folder: Path) -> dict[int, x509.RevokedCertificate]:
    """Return the entries of the full list as another parser reads them."""
    crl = x509.load_der_x509_crl((folder / "crl" / "t-cso-sub@1.crl").read_bytes())
    return {entry.serial_number: entry for entry in crl}


def test_a_hold_is_served_when_the_command_returns_and_gone_when_it_is_released(
    run: CommandLine, tmp_path: Path
) -> None:
    live = live_one(run)
    serial = int(live.partition(":")[2], 16)
    where = ("--publish", "--publish-dir", tmp_path / "www")
    date = "2020-01-01T00:00:00Z"
    held = run("cert", "revoke", live, "--reason", "certificateHold", "--invalidity-date", date, *where)
    assert "served: CRL" in held.stderr
    entry = served(tmp_path / "www")[serial]
    assert entry.extensions.get_extension_for_class(x509.CRLReason).value.reason is x509.ReasonFlags.certificate_hold
    when = entry.extensions.get_extension_for_class(x509.InvalidityDate).value.invalidity_date_utc
    assert f"{when:%Y-%m-%dT%H:%M:%SZ}" == date
    row = run("cert", "release", live, *where, "--json").json()
    assert (row["state"], row["revoked_at"], row["invalidity_date"]) == ("issued", None, None)
    assert serial not in served(tmp_path / "www")
    again = run("cert", "release", live, *where)
    assert "not on hold: nothing was done" in again.stderr
    run("cert", "revoke", live, "--reason", "superseded", *where)
    refused = run.run("cert", "release", live).check_one_error(3)
    assert "revoked for good, for superseded" in refused.stderr


def test_a_release_can_be_tried_first(run: CommandLine) -> None:
    live = live_one(run)
    run("cert", "revoke", live, "--reason", "certificateHold")
    assert run("cert", "release", live, "--dry-run", "--json").json()["state"] == "issued"
    assert run("cert", "show", live, "--json").json()["state"] == "revoked"


def test_a_wait_for_a_list_that_nobody_signs_ends_and_the_revocation_stands(run: CommandLine) -> None:
    live = live_one(run)
    words = ("cert", "revoke", live, "--reason", "superseded", "--publish", "--wait", "1s")
    done = run.run(*words, variables={"CHARGEPKI_PASSPHRASE_FILE": None})
    assert done.code == 4 and "does not tell so yet" in done.stderr and "crl publish --ca t-cso-sub@1" in done.stderr
    assert run("cert", "show", live, "--json").json()["state"] == "revoked"


def test_remove_from_crl_is_no_reason_and_the_error_names_the_command(run: CommandLine) -> None:
    refused = run.run("cert", "revoke", live_one(run), "--reason", "removeFromCRL").check_one_error(3)
    assert "chargepki cert release" in refused.stderr


def test_a_ca_whose_key_does_not_open_does_not_stop_the_lists_of_the_others(run: CommandLine, tmp_path: Path) -> None:
    (run.home / "keys" / "t-cso-root@1.key").unlink()
    done = run.run("crl", "publish", "--all", "--publish-dir", tmp_path / "www", "--json")
    assert done.code == 4 and "the CRL of t-cso-root@1 was not renewed" in done.stderr
    assert {row["ca"] for row in json.loads(done.stdout)["crls"]} == {"t-cso-sub@1", "t-manufacturer-root@1"}
    assert not (tmp_path / "www" / "crl" / "t-cso-root@1.crl").exists()
    assert served(tmp_path / "www")


def test_revoking_a_ca_tells_its_blast_radius_first(run: CommandLine) -> None:
    (sub,) = run("cert", "list", "--profile", "ocpp/cso-sub", "--json").json()["certificates"]
    done = run("cert", "revoke", sub["id"], "--reason", "cACompromise", "--dry-run", "--json")
    assert "1 valid certificate under CA t-cso-sub@1 can no longer be trusted" in done.stderr
    assert done.json()["untrusted"] == {"certificates": 1, "sub_cas": []}
    assert run("ca", "show", "t-cso-sub", "--json").json()["state"] == "active"
