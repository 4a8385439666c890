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


def test_the_responder_of_an_offline_root_answers_once_the_root_has_certified_it(
    run: CommandLine, fresh: CommandLine, tmp_path: Path
) -> None:
    online = CommandLine(fresh.home, run.variables)
    request, answer = tmp_path / "request.json", tmp_path / "answer.json"
    online("ca", "request", "s", "--profile", "ocpp/cso-sub", "--subject", "CN=S,O=Acme,C=DE", "--out", request)
    root = run("ca", "sign-request", request, "--issuer", "t-cso-root", "--out", answer, "--json").json()["root_sha256"]
    online("ca", "accept", answer, "--root-sha256", root)
    presign = ("ocsp", "presign", "--ca", "t-cso-root")
    assert "nobody answers for t-cso-root@1" in online.run(*presign).check_one_error(3).stderr
    asked = ("ca", "request", "t-cso-root", "--profile", "common/ocsp-signer", "--validity", "1y", "--out", request)
    before = snapshot(online.home)
    assert online(*asked, "--dry-run", "--json").json()["ca"] == "t-cso-root@1" and snapshot(online.home) == before
    made = online(*asked, "--json").json()
    assert made == online(*asked, "--json").json() and made["profile"] == "common/ocsp-signer"
    online.run(*asked, "--key", "secp384r1").check_one_error(2)
    refused = run("ca", "sign-request", request, "--issuer", "t-cso-sub", "--out", answer, code=3)
    assert "says who answers for it" in refused.stderr
    run("ca", "sign-request", request, "--issuer", "t-cso-root", "--sha256", made["sha256"], "--out", answer)
    online("ca", "accept", answer, "--dry-run")
    online.run(*presign).check_one_error(3)
    assert "is answered for" in online("ca", "accept", answer).stderr
    row = online(*presign, "--out-dir", tmp_path / "staples", "--json").json()
    serial = next(
        each["serial"]
        for each in online("cert", "list", "--json").json()["certificates"]
        if each["profile"] == "ocpp/cso-sub"
    )
    staple = tmp_path / "staples" / "t-cso-root@1" / f"{serial}.ocsp"
    assert row["cas"][0]["written"] == 2  # of the sub-CA, and of the responder itself
    shown = online("ocsp", "show", staple, "--json").json()
    assert shown["answers"][0]["status"] == "good" and "OCSP 1" in shown["signed_by"][0]["subject"]
