"""`chargepki approval` and `ca ceremony`: a second person by key, and a script before witnesses who sign."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from chargepki.pki.authority.ceremony import Script, Transcript, check_transcript
from chargepki.pki.errors import InputError
from testkit.command_line import CommandLine, snapshot

PEOPLE = ("alice", "bob")


@pytest.fixture
def people(run: CommandLine, tmp_path: Path) -> Path:
    """A folder with the keys of two registered people and of one who is not."""
    for name in (*PEOPLE, "mallory"):
        key = ec.generate_private_key(ec.SECP256R1())
        path = tmp_path / f"{name}.key"
        path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        path.chmod(0o600)
        public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        (tmp_path / f"{name}.pub").write_bytes(public)
        if name in PEOPLE:
            run("approval", "register", name, "--public-key", tmp_path / f"{name}.pub")
    return tmp_path


def approve(run: CommandLine, folder: Path, name: str, key: str = "") -> Path:
    out = folder / f"{name}.json"
    signing = ("approval", "sign", folder / "request.json", "--approver", name, "--key", folder / f"{key or name}.key")
    run(*signing, "--out", out)
    return out


def test_an_act_that_needs_two_people_is_done_by_two_keys_alone(run: CommandLine, people: Path) -> None:
    (run.home / "chargepki.toml").write_text('[approvals]\n"ca.rollover" = 2\n"ca.revoke" = 1\n"ca.sign-request" = 1\n')
    act = ("ca", "rollover", "t-cso-sub")
    keys = snapshot(run.home / "keys")
    assert "needs 2 approvals and has 0" in run.run(*act).check_one_error(3).stderr
    run(*act, "--request-approval", people / "request.json")
    alice, bob = approve(run, people, "alice"), approve(run, people, "bob")
    assert "has 1" in run.run(*act, "--approval", alice, "--approval", alice).check_one_error(3).stderr
    forged = approve(run, people, "bob", "mallory")
    assert "did not sign" in run.run(*act, "--approval", alice, "--approval", forged).check_one_error(3).stderr
    stranger = approve(run, people, "mallory")
    assert "nobody of that name" in run.run(*act, "--approval", alice, "--approval", stranger).check_one_error(3).stderr
    bob = approve(run, people, "bob")
    other = run.run("ca", "rollover", "t-cso-root", "--approval", alice, "--approval", bob)
    assert "another request" in other.check_one_error(3).stderr
    assert snapshot(run.home / "keys") == keys
    # A dry run needs nobody.
    run(*act, "--dry-run")
    assert run(*act, "--approval", alice, "--approval", bob, "--json").json()["id"] == "t-cso-sub@2"
    used = [each for each in run("audit", "show", "--json").json()["entries"] if each["action"] == "approval.use"]
    assert [each["approver"] for each in used[0]["details"]["approvals"]] in (["alice", "bob"], ["bob", "alice"])
    # What was done once starts from another state: the approvals fit no second time.
    again = run.run(*act, "--again", "--approval", alice, "--approval", bob)
    assert "another request" in again.check_one_error(3).stderr
    # Neither revoking a CA nor certifying one by another command goes round it; a leaf is nobody's business.
    listed = run("cert", "list", "--profile", "ocpp/cso-sub", "--json").json()["certificates"]
    revoke = ("cert", "revoke", listed[0]["id"], "--reason", "superseded", "--yes")
    refused = run.run(*revoke)
    assert refused.code == 3 and "needs 1" in refused.stderr
    issue = ("cert", "issue", "--ca", "t-cso-root", "--profile", "common/cross", "--csr", people / "request.json")
    run.run(*issue).check_one_error(3)
    leaf = run("cert", "list", "--profile", "ocpp/charging-station", "--state", "issued", "--json").json()
    run("cert", "revoke", leaf["certificates"][0]["id"], "--reason", "superseded")


def test_a_configuration_that_says_nonsense_is_refused(run: CommandLine) -> None:
    for text in ("[approvals]\nnosuch = 1\n", '[approvals]\n"ca.create" = "two"\n', '[approvals]\n"ca.create" = 99\n'):
        (run.home / "chargepki.toml").write_text(text)
        run.run("ca", "rollover", "t-cso-sub").check_one_error(3)


SCRIPT = """title = "A root"
witnesses = ["alice", "bob"]
[[step]]
say = "the machine has no network"
[[step]]
run = ["ca", "create", "x-root", "--profile", "ocpp/cso-root", "--subject", "CN=X,O=Acme,C=DE"]
[[step]]
run = ["crl", "publish", "--ca", "x-root"]
"""


def test_a_ceremony_from_its_script_to_the_verified_transcript(run: CommandLine, people: Path) -> None:
    script, transcript = people / "script.toml", people / "transcript.json"
    script.write_text(SCRIPT)
    words = ("ca", "ceremony", "run", script, "--transcript", transcript)
    assert run(*words, "--dry-run", "--json").json()["steps"] == 3
    assert not transcript.exists()
    # What is only said needs a person, and nothing after it is carried out.
    assert "confirmed by a person" in run.run(*words).stderr
    assert Transcript.parse(transcript.read_bytes()).content["steps"] == []
    done = run(*words, "--confirm-all", "--json").json()
    assert done["outcome"] == "complete" and run("ca", "show", "x-root", "--json").json()["state"] == "active"
    run.run(*words, "--confirm-all").check_one_error(3)
    verdict = run("ca", "ceremony", "verify", transcript, "--json", code=1).json()
    assert verdict["findings"] == ["the witness alice has not signed", "the witness bob has not signed"]
    wrong = ("ca", "ceremony", "sign", transcript, "--witness", "alice", "--key", people / "mallory.key")
    assert "not the key" in run.run(*wrong).check_one_error(3).stderr
    for name in PEOPLE:
        run("ca", "ceremony", "sign", transcript, "--witness", name, "--key", people / f"{name}.key")
    verify = ("ca", "ceremony", "verify", transcript, "--script", script)
    assert run(*verify, "--json").json()["valid"] is True
    script.write_text(SCRIPT + "\n# changed\n")
    run(*verify, code=1)
    check_every_change_is_seen(Transcript.parse(transcript.read_bytes()), transcript, run)


def check_every_change_is_seen(good: Transcript, path: Path, run: CommandLine) -> None:
    steps = good.content["steps"]
    for change in (
        {"title": "Another"},
        {"steps": steps[:-1]},
        {"steps": [*steps[:-1], {**steps[-1], "code": 3}]},
        {"script": SCRIPT.replace("x-root", "y-root")},
        {"witnesses": {"alice": good.content["witnesses"]["alice"]}},
        {"log_hash": "00" * 32},
        {"outcome": "interrupted"},
    ):
        path.write_bytes(Transcript({**good.content, **change}, good.signatures).encode())
        assert run("ca", "ceremony", "verify", path, "--json", code=1).json()["findings"], change
    assert check_transcript(good) == []


@pytest.mark.campaign
def test_a_step_that_fails_ends_the_ceremony_and_it_goes_on_from_there(run: CommandLine, people: Path) -> None:
    script, transcript = people / "script.toml", people / "transcript.json"
    script.write_text(
        'title = "T"\nwitnesses = []\n[[step]]\nrun = ["ca", "list"]\n[[step]]\nrun = ["ca", "show", "later"]\n'
    )
    words = ("ca", "ceremony", "run", script, "--transcript", transcript)
    assert "step 2 ended with 3" in run.run(*words).stderr
    assert len(Transcript.parse(transcript.read_bytes()).content["steps"]) == 1
    run("ca", "create", "later", "--profile", "ocpp/cso-root", "--subject", "CN=L,O=Acme,C=DE")
    run(*words)
    run("ca", "ceremony", "verify", transcript)


@pytest.mark.parametrize(
    "text",
    ["", "title = 1", "title='x'", "title='x'\n[[step]]\nsay='a'\nrun=['b']", "title='x'\n[[step]]\nrun=[]",
     "title='x'\nwitnesses=['a','a']\n[[step]]\nsay='b'", "title='x'\nmore=1\n[[step]]\nsay='b'"],
    ids=range(7),
)  # fmt: skip
def test_a_script_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        Script.parse(text.encode())
