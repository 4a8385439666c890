"""`chargepki ca rollover`, `ca cross-sign` and the chains that follow from them."""

from __future__ import annotations

from pathlib import Path

from cryptography import x509

from testkit.command_line import CommandLine, snapshot


def test_a_rollover_from_the_dry_run_to_the_chain_for_an_old_station(run: CommandLine, tmp_path: Path) -> None:
    before = snapshot(run.home)
    assert run("ca", "rollover", "t-cso-root", "--dry-run", "--json").json()["profile"] == "ocpp/cso-root"
    assert snapshot(run.home) == before
    run("ca", "chain", "t-cso-root", "--out", tmp_path / "old.pem")
    row = run("ca", "rollover", "t-cso-root", "--cross-validity", "1y", "--json").json()
    assert (row["schema"], row["id"], row["succeeds"], row["succeeded_state"]) == (
        "chargepki/ca-rollover", "t-cso-root@2", "t-cso-root@1", "retired",
    )  # fmt: skip
    assert row["new_with_old"].startswith("t-cso-root@1:") and row["old_with_new"].startswith("t-cso-root@2:")
    again = run("ca", "rollover", "t-cso-root")
    assert "has certified nothing yet" in again.stderr
    plan = run("ca", "rollover-plan", "t-cso-root", "--json").json()
    assert (plan["schema"], plan["breaks"], plan["unknown_count"]) == ("chargepki/rollover-plan", False, 2)
    assert [step["kind"] for step in plan["steps"]] == ["ask-stations", "move-sub-ca"]
    assert "chargepki ca rollover t-cso-sub" in run("ca", "rollover-plan", "t-cso-root").out
    run("ca", "rollover", "t-cso-sub")
    (usual,) = [run("ca", "chain", "t-cso-sub").stdout]
    assert len(x509.load_pem_x509_certificates(usual)) == 2
    crossed = run("ca", "chain", "t-cso-sub", "--anchor", tmp_path / "old.pem")
    assert "through t-cso-root@1:" in crossed.stderr
    assert len(x509.load_pem_x509_certificates(crossed.stdout)) == 2
    assert run("audit", "verify").code == 0


def test_a_chain_to_a_root_that_nothing_leads_to_is_no(run: CommandLine, place: Path, tmp_path: Path) -> None:
    run("ca", "create", "o-root", "--profile", "ocpp/cso-root", "--subject", "CN=Other,O=Other,C=DE")
    run("ca", "chain", "o-root", "--out", tmp_path / "other.pem")
    refused = run("ca", "chain", "t-cso-sub", "--anchor", tmp_path / "other.pem", code=1)
    assert "no certificate leads from t-cso-sub@1" in refused.stderr and not refused.out
    words = ("ca", "cross-sign", "t-cso-root", "--issuer", "o-root", "--out", tmp_path / "x.pem", "--json")
    row = run(*words).json()
    assert row["issuer_ca"] == "o-root@1" and run(*words).json() == row
    assert row["certificate_pem"] == (tmp_path / "x.pem").read_text()
    assert run("ca", "chain", "t-cso-sub", "--anchor", tmp_path / "other.pem").out.count("BEGIN") == 2
    run.run("ca", "chain", "t-cso-sub", "--anchor", place / "station.csr").check_one_error(3)
    run.run("ca", "chain", "t-cso-sub", "--station", "CS-0001").check_one_error(3)
    for wrong in (("--use", "csms"), ("--at", "2030-01-01"), ("--anchor", "x", "--station", "CS-0001")):
        run("ca", "chain", "t-cso-sub", *wrong, code=2)


def test_a_cross_certificate_that_helps_nobody_and_a_rollover_of_nothing_are_refused(run: CommandLine) -> None:
    before = snapshot(run.home)
    for words, why in (
        (("t-manufacturer-root", "--issuer", "t-cso-root", "--validity", "50y"), "outlive"),
        (("t-cso-root", "--issuer", "t-manufacturer-root"), "path length 0"),
        (("t-cso-sub", "--issuer", "t-cso-root"), "no root"),
    ):
        assert why in run.run("ca", "cross-sign", *words).check_one_error(3).stderr
    run.run("ca", "rollover", "nosuch").check_one_error(3)
    run.run("ca", "rollover", "t-cso-root", "--key", "rot13").check_one_error(3)
    shown = run("ca", "cross-sign", "t-manufacturer-root", "--issuer", "t-cso-root", "--dry-run", "--json")
    assert shown.json()["profile"] == "common/cross"
    assert snapshot(run.home) == before
