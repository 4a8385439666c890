"""The whole command suite, once, in a workspace whose keys all lie in a token (SoftHSM), the log key among them.

Every command of the program is in one of three lists: it signs with a key of the workspace and is run here, it works
with a key of somebody else's, or it uses no private key and works while the token is away. A new command that is in
none of them fails here.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from testkit.databases import postgresql_server, postgresql_url
from testkit.foreign import missing
from testkit.foreign import run as run_tool
from testkit.token_suite import EMAID, PCID, TokenSuite, run_every_command_that_signs, run_main_part
from testkit.tokens import PIN, Token, borrowed_token

pytestmark = pytest.mark.foreign
__all__ = ["postgresql_server", "postgresql_url"]

ALSO_SIGN = {"approval sign", "ca ceremony sign", "firmware sign", "restore"}
"""Commands that write nothing to the inventory as it is, and sign all the same."""
KEYS_OF_OTHERS = {"demo", "est enrol", "est renew", "station simulate", "vehicle open", "vehicle request"}
"""Commands that act for a client, a station or a vehicle with a key in a file of its own, or for all of them."""
REFUSE = {"ca change-passphrase", "ca import"}
"""Commands about keys in files, which have nothing to do here, and say so."""
KEYLESS: dict[str, tuple[str, ...]] = {
    "alerts list": (),
    "approval list": (),
    "approval rules": (),
    "audit checkpoint": ("--out", "head.json"),
    "audit export": (),
    "audit log-key": (),
    "audit show": (),
    "audit verify": (),
    "backup verify": ("b.age", "--identity", "identity"),
    "ca ceremony verify": ("transcript.json",),
    "ca chain": ("t-cso-sub",),
    "ca list": (),
    "ca rollover-plan": ("t-cso-root",),
    "ca show": ("t-cso-sub",),
    "campaign kinds": (),
    "campaign list": (),
    "campaign show": ("leak",),
    "campaign stations": ("leak",),
    "cert count": ("--where", "state = 'issued'"),
    "cert list": (),
    "cert show": ("leaf.pem",),
    "cert verify": ("--trust", "root.pem", "--untrusted", "sub.pem", "leaf.pem"),
    "config show": (),
    "contract list": (),
    "contract show": (EMAID,),
    "crl show": ("sub.crl",),
    "csr check": ("one.csr", "--profile", "ocpp/charging-station"),
    "doctor": ("leaf.pem", "root.pem"),
    "est account list": (),
    "est cacerts": ("--help",),
    "est request list": (),
    "exi decode": ("request.exi",),
    "exi encode": ("--help",),
    "firmware approvers": (),
    "firmware list": (),
    "firmware mutate": ("--help",),
    "firmware show": ("m1",),
    "firmware verify": ("image", "--signature", "image.sig", "--cert", "fw.pem"),
    "inventory census": (),
    "inventory check": (),
    "inventory drift": (),
    "inventory export": (),
    "inventory grant-reader": ("--help",),
    "inventory impact": ("t-cso-root@1",),
    "inventory keys": (),
    "inventory list": (),
    "inventory orphans": (),
    "inventory report": ("--findings", "questions"),
    "inventory report-account": ("reader", "--file", "readers.txt", "--password-out", "reader.txt"),
    "inventory revocations": (),
    "inventory show": ("CS-1",),
    "inventory timeline": (),
    "lint": ("leaf.pem",),
    "ocsp show": ("--help",),
    "profile list": (),
    "profile show": ("ocpp/csms",),
    "query list": (),
    "query show": ("soon",),
    "station events": ("CS-1",),
    "station list": (),
    "station logs list": (),
    "station logs save": ("--help",),
    "station logs show": ("--help",),
    "station operations": (),
    "station migrate": ("--plan", "--to", "3"),
    "station misbehaviours": (),
    "station roots": ("CS-1",),
    "station show": ("CS-1",),
    "vehicle list": (),
    "vehicle roots": (),
    "vehicle show": (PCID,),
}
"""Commands that use no private key, with what they are run with while no token can be reached."""


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Token]:
    with borrowed_token(tmp_path_factory.mktemp("token"), ("ec256", "ec384")) as made:
        yield made


@pytest.fixture(scope="module")
def suite(token: Token, tmp_path_factory: pytest.TempPathFactory) -> TokenSuite:
    """The workspace after every command that signs has done so."""
    made = TokenSuite(token, tmp_path_factory.mktemp("suite"))
    run_every_command_that_signs(made)
    return made


# ---------------------------------------------------------------- what the lists promise


def check_that_every_command_is_in_one_of_the_lists_and_those_that_sign_have_done_so(suite: TokenSuite) -> None:
    signing = {name for name, writes in suite.known.items() if writes} | ALSO_SIGN
    lists = (signing, KEYS_OF_OTHERS, set(KEYLESS))
    assert sum(map(len, lists)) == len(set().union(*lists)), "a command is in two lists"
    assert set().union(*lists) == suite.known.keys(), "say what keys a new command uses, and run it here"
    assert signing - REFUSE - suite.done == set(), "run these commands in the token workspace, too"


def check_that_no_private_key_of_the_workspace_is_in_a_file(suite: TokenSuite) -> None:
    """Not one key file in four workspaces, which had no passphrase; the log key is an URI and a public key."""
    for name in ("home", "offline", "branch", "restored"):
        home = suite.file(name)
        assert not (home / "keys").exists()
        assert {path.name for path in home.rglob("*.key")} <= {"audit.key", "sealing.key"}
        for path in home.rglob("*"):
            assert not path.is_file() or b"PRIVATE KEY" not in path.read_bytes(), path
        assert (home / "audit.key").read_text().startswith("pkcs11:token=HSM;object=audit-log-")


NAMELESS_KEYS = """
import sys
import pkcs11
from pkcs11 import Attribute

with pkcs11.lib(sys.argv[1]).get_token(token_label="HSM").open(user_pin=sys.argv[2]) as session:
    for key in session.get_objects({Attribute.CLASS: pkcs11.ObjectClass.PRIVATE_KEY}):
        if not key[Attribute.LABEL]:
            print(bytes(key[Attribute.EC_PARAMS]))
"""
"""Prints the curve of each private key that has no name."""


def check_that_keys_were_made_in_the_token_and_can_never_leave_it(suite: TokenSuite) -> None:
    """By the tool of OpenSC, which is not ours."""
    if reason := missing("pkcs11-tool", "opensc"):
        pytest.skip(reason)
    done = run_tool("pkcs11-tool", "--module", suite.token.module, "--token-label", "HSM", "--login", "--pin", PIN,
                    "--list-objects", "--type", "privkey")  # fmt: skip
    assert done.returncode == 0, done.stderr
    blocks = [block for block in done.stdout.split("Private Key Object") if "label:" in block]
    listed = [block for block in blocks if block.partition("label:")[2].partition("\n")[0].strip()]
    # A token that goes away while it makes a key may keep an object without a name: there must be no key in it.
    nameless = run_tool(sys.executable, "-c", NAMELESS_KEYS, suite.token.module, PIN)
    assert nameless.stdout.split() == ["b''"] * (len(blocks) - len(listed)), nameless
    access = {block.partition("label:")[2].split()[0]: block.partition("Access:")[2].strip() for block in listed}
    logs = [label for label in access if label.startswith("audit-log-")]
    assert {"t-cso-root@1", "t-cso-root@2", "t-cso-sub@1", "t-rsa@1", "s@1", "off-root@1"} <= access.keys()
    assert len(logs) == 4, "one for each workspace that was made and each change, none for what was restored"
    made_by_us = {label: said for label, said in access.items() if label not in ("ec256", "ec384")}
    assert set(made_by_us.values()) == {"sensitive, always sensitive, never extractable, local"}, made_by_us


def check_that_the_pin_is_written_nowhere(suite: TokenSuite) -> None:
    """Neither into a log of a service, nor the inventory, nor the backup, nor any other file."""
    for path in suite.folder.rglob("*"):
        assert not path.is_file() or PIN.encode() not in path.read_bytes(), path


def check_that_what_was_signed_in_the_token_verifies_elsewhere(suite: TokenSuite) -> None:
    suite.run("audit", "verify")
    suite.run("inventory", "check")
    chain = ("-CAfile", suite.file("root.pem"), "-untrusted", suite.file("sub.pem"))
    for leaf in (suite.file("out") / "7.pem", suite.file("csms-2.pem"), suite.file("e-2.pem")):
        done = run_tool("openssl", "verify", *chain, leaf)
        assert done.returncode == 0, done.stderr
    assert run_tool("openssl", "crl", "-in", suite.file("sub.crl"), "-inform", "DER", "-noout", "-CAfile",
                    suite.file("sub.pem")).stderr == "verify OK\n"  # fmt: skip


def check_that_commands_without_a_key_work_without_the_token(
    suite: TokenSuite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(suite.folder)
    gone = {"CHARGEPKI_PKCS11_MODULE": "/absent.so", "CHARGEPKI_PKCS11_PIN_FILE": None}
    for name, words in KEYLESS.items():
        done = suite.run.run(*name.split(), *words, variables=gone)
        assert done.code in (0, 1) and "PKCS #11" not in done.stderr, (name, done.code, done.stderr)


def check_that_commands_about_key_files_say_what_to_do_instead(suite: TokenSuite, tmp_path: Path) -> None:
    """No key file is there whose passphrase could be changed, and none is put into the token."""
    (tmp_path / "new").write_text("another\n")
    (tmp_path / "old").write_text("one\n")
    for name in ("new", "old"):
        (tmp_path / name).chmod(0o600)
    files = ("--new-passphrase-file", tmp_path / "new", "--passphrase-file", tmp_path / "old")
    before = suite.run("audit", "export").out
    for words in (files, ()):
        refused = suite.run.run("ca", "change-passphrase", *words).check_one_error(3)
        assert "no key file" in refused.stderr and "--change-pin" in refused.stderr
    done = run_tool(
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "3650",
        "-subj", "/C=DE/O=Old/CN=Old",
        "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign", "-keyout",
        tmp_path / "ca.key", "-out", tmp_path / "ca.pem",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for dry in ((), ("--dry-run",)):
        taken = suite.run.run("ca", "import", "old", tmp_path, "--profile", "ocpp/cso-root", *dry)
        assert "chargepki ca rollover" in taken.check_one_error(3).stderr
    assert suite.run("audit", "export").out == before


def test_the_whole_command_suite_in_a_token(suite: TokenSuite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One test, for the suite takes long, and tests of one module may be spread over several processes."""
    check_that_every_command_is_in_one_of_the_lists_and_those_that_sign_have_done_so(suite)
    check_that_no_private_key_of_the_workspace_is_in_a_file(suite)
    check_that_the_pin_is_written_nowhere(suite)
    check_that_what_was_signed_in_the_token_verifies_elsewhere(suite)
    check_that_commands_without_a_key_work_without_the_token(suite, monkeypatch)
    check_that_commands_about_key_files_say_what_to_do_instead(suite, tmp_path)
    check_that_keys_were_made_in_the_token_and_can_never_leave_it(suite)


@pytest.mark.campaign
def test_the_main_part_of_the_suite_on_postgresql(
    token: Token, postgresql_url: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever differs between the databases differs on the way to the token as well: forks, sessions, the log."""
    suite = TokenSuite(token, tmp_path_factory.mktemp("postgresql"), database=postgresql_url)
    run_main_part(suite)
    check_that_what_was_signed_in_the_token_verifies_elsewhere(suite)
    assert len(suite.run("audit", "verify", "--json").json()["key_changes"]) == 1
    assert not list(suite.run.home.rglob("*.db"))
