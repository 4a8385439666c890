"""`chargepki ca request`, `sign-request`, `accept`, and `crl import`: between two workspaces, by files alone."""

from __future__ import annotations

from pathlib import Path

from testkit.command_line import CommandLine, snapshot


def test_a_sub_ca_of_an_offline_root_from_the_request_to_its_list(
    run: CommandLine, fresh: CommandLine, tmp_path: Path
) -> None:
    online = CommandLine(fresh.home, run.variables)
    request, answer, crl, www = (tmp_path / name for name in ("request.json", "answer.json", "r.crl", "www"))
    words = ("ca", "request", "s", "--profile", "ocpp/cso-sub", "--subject", "CN=S,O=Acme,C=DE", "--out", request)
    made = online(*words, "--json").json()
    assert made == online(*words, "--json").json()
    before = snapshot(run.home)
    sign = ("ca", "sign-request", request, "--issuer", "t-cso-root")
    assert run(*sign, "--dry-run", "--json").json()["verdict"]["request"]["accepted"] is True
    run.run(*sign, "--sha256", "00", "--out", answer).check_one_error(3)
    run("ca", "sign-request", request, "--issuer", "t-cso-root", code=2)
    assert snapshot(run.home) == before and not answer.exists()
    answered = run(*sign, "--sha256", made["sha256"], "--out", answer, "--json").json()
    before = snapshot(online.home / "keys")
    online.run("ca", "accept", answer).check_one_error(3)
    root = ("--root-sha256", answered["root_sha256"])
    assert online("ca", "accept", answer, *root, "--dry-run", "--json").json()["state"] == "active"
    assert online("ca", "show", "s", "--json").json()["state"] == "pending"
    assert online("ca", "accept", answer, *root, "--json").json()["issuer"] == "t-cso-root@1"
    assert snapshot(online.home / "keys") == before
    run("crl", "publish", "--ca", "t-cso-root", "--validity", "180d", "--out", crl)
    online("crl", "import", crl, "--dry-run")
    assert not www.exists()
    row = online("crl", "import", crl, "--publish-dir", www, "--json").json()
    assert row["ca"] == "t-cso-root@1"
    assert (www / "crl" / "t-cso-root@1.crl").read_bytes() == crl.read_bytes()
    assert "not here" in online.run("crl", "publish", "--ca", "t-cso-root").check_one_error(4).stderr
    assert "no CA on record" in run.run("crl", "import", crl).check_one_error(3).stderr
    run("crl", "publish", "--all", "--validity", "180d", code=2)
