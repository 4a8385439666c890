"""Every way to lose a token: one clear error, nothing lost, and the next command goes on."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pkcs11
import pyrage
import pytest

from chargepki.pki import signer_pkcs11
from chargepki.pki.authority import IssueOrder
from chargepki.pki.authority.core import utc_now
from chargepki.pki.authority.queue import enqueue
from chargepki.pki.errors import SignerError
from chargepki.pki.inventory import AuditKey, Inventory
from chargepki.pki.inventory.records import IssuanceState
from chargepki.pki.keys import KeyAlgorithm
from chargepki.pki.names import build_name
from chargepki.pki.pkcs11_uri import parse_pkcs11_uri
from chargepki.pki.signer import SoftwareKeyStore
from chargepki.pki.signer_pkcs11 import Pkcs11KeyStore
from chargepki.pki.signer_token import TokenKeyStore
from chargepki.pki.token_library import LOST, REASONS
from testkit.command_line import CommandLine, Done
from testkit.foreign import run as run_tool
from testkit.inventories import ACTOR
from testkit.requests import make_csr
from testkit.small_disk import do_without_mount, fill_but, small_disk
from testkit.token_suite import Service, TokenSuite
from testkit.tokens import PIN, Token, borrowed_token

pytestmark = pytest.mark.foreign

LEAF = ("--ca", "sub", "--profile", "ocpp/charging-station")


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Token]:
    with borrowed_token(tmp_path_factory.mktemp("token"), ("ec256",)) as made:
        yield made


@pytest.fixture(scope="module")
def prepared(token: Token, tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    """A root and a sub-CA in the token, the log key as well."""
    folder = tmp_path_factory.mktemp("prepared")
    variables = {"CHARGEPKI_KEY_TOKEN": "pkcs11:token=HSM", "CHARGEPKI_PUBLIC_URL": "http://pki.test"}
    run = CommandLine(folder / "home", {**token.variables, **variables})
    run("ca", "create", "root", "--profile", "ocpp/cso-root", "--subject", "CN=Root,O=Acme,C=DE")
    run("ca", "create", "sub", "--profile", "ocpp/cso-sub", "--issuer", "root", "--subject", "CN=Sub,O=Acme,C=DE")
    (folder / "one.csr").write_bytes(make_csr(build_name([("CN", "CS-1"), ("O", "Acme")])))
    return run


@pytest.fixture
def run(prepared: CommandLine, tmp_path: Path) -> CommandLine:
    """A copy of the workspace; its keys are those of the token."""
    shutil.copytree(prepared.home, tmp_path / "home")
    shutil.copy(prepared.home.parent / "one.csr", tmp_path)
    pkcs11.lib(prepared.variables["CHARGEPKI_PKCS11_MODULE"]).reinitialize()  # a login holds for the whole process
    return CommandLine(tmp_path / "home", prepared.variables)


def issue(run: CommandLine) -> Done:
    return run.run("cert", "issue", *LEAF, "--csr", run.home.parent / "one.csr")


def content(run: CommandLine) -> str:
    """Return what the inventory holds: its log, and by that every row."""
    return run("audit", "export").out


# ---------------------------------------------------------------- the log key


def test_heads_of_the_log_are_signed_in_the_token_and_openssl_verifies_a_checkpoint(
    run: CommandLine, tmp_path: Path
) -> None:
    uri, _, pem = (run.home / "audit.key").read_text().partition("\n")
    assert uri.startswith("pkcs11:token=HSM;object=audit-log-") and "PRIVATE" not in pem
    assert (run.home / "audit.key").stat().st_mode & 0o777 == 0o600
    run("audit", "checkpoint", "--out", tmp_path / "head.json")
    run("audit", "log-key", "--out", tmp_path / "log.pem")
    fields = json.loads((tmp_path / "head.json").read_text())
    (tmp_path / "signature").write_bytes(base64.b64decode(fields.pop("signature")))
    del fields["schema_version"]
    fields["schema"] = "chargepki.audit-head/1"
    (tmp_path / "message").write_text(json.dumps(fields, sort_keys=True, separators=(",", ":")))
    done = run_tool("openssl", "dgst", "-sha256", "-verify", tmp_path / "log.pem", "-signature",
                    tmp_path / "signature", tmp_path / "message")  # fmt: skip
    assert done.stdout == "Verified OK\n", done
    run("audit", "verify", "--checkpoint", tmp_path / "head.json", "--log-key", tmp_path / "log.pem")


def test_the_log_key_moves_from_a_file_into_the_token_and_back(token: Token, tmp_path: Path) -> None:
    """What was kept before stays good: old checkpoints, the old public key; and each move is in the log."""
    run = CommandLine(tmp_path / "home", token.variables)
    sealed = {"CHARGEPKI_KEY_TOKEN": "pkcs11:token=HSM"}
    run("station", "add", "CS-1")
    assert "PRIVATE KEY" in (run.home / "audit.key").read_text()
    run("audit", "log-key", "--out", tmp_path / "old.pem")
    run("audit", "checkpoint", "--out", tmp_path / "old.json")
    before = labels(token)
    planned = run("audit", "rotate-log-key", "--dry-run", "--json", variables=sealed).json()
    assert planned["place"] == "pkcs11:token=HSM" and planned["key_id"] is None and labels(token) == before
    # A key that an interrupted run made as a file is not the one that was asked for.
    AuditKey.generate().store(run.home / "audit.key.next")
    moved = run("audit", "rotate-log-key", "--json", variables=sealed).json()
    assert moved["place"].startswith("pkcs11:token=HSM;object=audit-log-") and moved["entry"] == 2
    assert "PRIVATE KEY" not in (run.home / "audit.key").read_text() and len(labels(token)) == len(before) + 1
    assert not (run.home / "audit.key.next").exists()
    # The key signs where it lies, also for who makes no keys in the token; without the token nobody writes.
    run("station", "add", "CS-2")
    with token.away():
        run.run("station", "add", "CS-3").check_one_error(4)
        run.run("audit", "rotate-log-key").check_one_error(4)
        for log_key in ((), ("--log-key", tmp_path / "old.pem")):
            said = run("audit", "verify", "--checkpoint", tmp_path / "old.json", *log_key).out
            assert "entry 2 changed the log key" in said and "agreed" in said
    back = run("audit", "rotate-log-key", "--json").json()
    assert back["place"] == str(run.home / "audit.key") and back["old_key_id"] == moved["key_id"]
    report = run("audit", "verify", "--checkpoint", tmp_path / "old.json", "--json").json()
    assert [change["entry"] for change in report["key_changes"]] == [2, 4] and report["findings"] == []
    assert "PRIVATE KEY" in (run.home / "audit.key").read_text()
    assert len(labels(token)) == len(before) + 1, "backups from before need it"
    # The token was lost before the key was in it: nothing of it stays, and the same command goes on.
    with token.away():
        run.run("audit", "rotate-log-key", variables=sealed).check_one_error(4)
    assert not (run.home / "audit.key.next").exists()
    run("audit", "rotate-log-key", variables=sealed)
    run("audit", "verify")
    for label in set(labels(token)) - set(before):
        destroy(token, label)


def test_another_key_under_the_name_of_the_log_key_signs_nothing(run: CommandLine, token: Token) -> None:
    path = run.home / "audit.key"
    path.write_text(f"{token.uri('ec256')}\n{path.read_text().partition(chr(10))[2]}")
    before = content(run)
    assert "is not the log key" in run.run("station", "add", "CS-9").check_one_error(4).stderr
    assert content(run) == before
    for damaged in ("pkcs11:token=HSM;object=x\n", "pkcs11:\xff\n", "pkcs11:token=HSM;object=x\nMCowBQYDK2VwAyEA"):
        path.write_text(damaged)
        run.run("station", "add", "CS-9").check_one_error(4)


def test_a_log_key_whose_file_cannot_be_written_leaves_no_key_behind(
    token: Token, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = CommandLine(tmp_path / "new", {**token.variables, "CHARGEPKI_KEY_TOKEN": "pkcs11:token=HSM"})

    def full(*_: object) -> None:
        raise SignerError("no space")

    before = labels(token)
    with monkeypatch.context() as patch:
        patch.setattr("chargepki.pki.inventory.audit_key.AuditKey.store", full)
        run.run("station", "add", "CS-1").check_one_error(4)
    assert labels(token) == before
    run("station", "add", "CS-1")
    assert len(labels(token)) == len(before) + 1


def labels(token: Token) -> list[str]:
    library = pkcs11.lib(str(token.module))
    library.reinitialize()
    with library.get_token(token_label="HSM").open(user_pin=PIN) as session:
        found = session.get_objects({pkcs11.Attribute.CLASS: pkcs11.ObjectClass.PRIVATE_KEY})
        return sorted(str(key[pkcs11.Attribute.LABEL]) for key in found)


# ---------------------------------------------------------------- the token is away


@pytest.mark.parametrize(
    "words",
    [
        ("cert", "issue", *LEAF, "--csr", "one.csr"),
        ("ca", "create", "new", "--profile", "ocpp/cso-sub", "--issuer", "root", "--subject", "CN=N,O=Acme"),
        ("crl", "publish", "--ca", "sub", "--out", "sub.crl"),
    ],
    ids=["certificate", "CA", "list"],
)
def test_a_token_lost_at_any_signature_loses_nothing(
    run: CommandLine, token: Token, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The token is taken out before its first use, its second, and so on; each time the same command goes on."""
    monkeypatch.chdir(run.home.parent)
    use, count = Pkcs11KeyStore._do, 0

    def losing(at: int) -> Callable[..., Any]:
        def lose(self: Pkcs11KeyStore, *arguments: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            if count == at:
                with token.away():
                    return use(self, *arguments, **options)
            return use(self, *arguments, **options)

        return lose

    home = run.home.with_name("kept")
    shutil.copytree(run.home, home)
    created = 0
    for at in range(1, 40):
        count = 0
        with monkeypatch.context() as patch:
            patch.setattr(Pkcs11KeyStore, "_do", losing(at))
            patch.setattr(signer_pkcs11, "_PAUSES", ())
            lost = run.run(*words)
        if count < at:
            assert lost.code == 0 and at > 3, "the token was lost at every use of it"
            break
        assert "Traceback" not in lost.stderr
        if lost.code:
            lost.check_one_error(4)
        run("audit", "verify")
        # What was reserved is completed, or was never there: one object, with the number that was on record.
        run(*words)
        run("audit", "verify")
        run("inventory", "check")
        made = run("cert", "list", "--json").json()["certificates"]
        assert len(made) - len({row["serial"] for row in made}) == 0
        assert [row["state"] for row in made if row["state"] not in ("issued",)] == []
        created += 1
        shutil.rmtree(run.home)
        shutil.copytree(home, run.home)
        if words[0] == "ca":
            destroy(token, "new@1")
    assert created > 3


def destroy(token: Token, label: str) -> None:
    store = Pkcs11KeyStore(token.module, lambda label: PIN.encode())
    maker = TokenKeyStore(store, "pkcs11:token=HSM", SoftwareKeyStore(token.folder / "none", lambda: b"x"))
    maker.discard(token.uri(label))


def test_a_store_notices_that_its_key_was_exchanged(token: Token) -> None:
    """As when a token is taken out, and another one of the same name with a key of the same name is plugged in."""
    store = Pkcs11KeyStore(token.module, lambda label: PIN.encode())
    maker = TokenKeyStore(store, "pkcs11:token=HSM", SoftwareKeyStore(token.folder / "none", lambda: b"x"))
    uri = maker.create("exchanged", KeyAlgorithm.SECP256R1)
    signer = store.open(uri)
    maker.discard(uri)
    maker.create("exchanged", KeyAlgorithm.SECP256R1)
    with pytest.raises(SignerError, match="another key than before"):
        signer.sign(b"message")
    maker.discard(uri)


def test_the_wrong_key_and_two_keys_under_the_name_of_a_ca_sign_nothing(run: CommandLine, token: Token) -> None:
    store = Pkcs11KeyStore(token.module, lambda label: PIN.encode())
    maker = TokenKeyStore(store, "pkcs11:token=HSM", SoftwareKeyStore(token.folder / "none", lambda: b"x"))
    run("ca", "create", "third", "--profile", "ocpp/cso-root", "--subject", "CN=Third,O=Acme,C=DE")
    before = content(run)
    words = ("crl", "publish", "--ca", "third")
    # The name is taken by a second key: neither is chosen.
    session = pkcs11.lib(str(token.module)).get_token(token_label="HSM").open(rw=True)  # logged in by the command
    parameters = {pkcs11.Attribute.EC_PARAMS: bytes.fromhex("06082a8648ce3d030107")}
    domain = session.create_domain_parameters(pkcs11.KeyType.EC, parameters, local=True)
    domain.generate_keypair(store=True, label="third@1", id=b"second")
    session.close()
    assert "several keys have that name" in run.run(*words).check_one_error(4).stderr
    maker.discard(token.uri("third@1"))  # both
    assert "no private key of that name" in run.run(*words).check_one_error(4).stderr
    maker.create("third@1", KeyAlgorithm.SECP256R1)
    assert "is not the key of third@1" in run.run(*words).check_one_error(4).stderr
    assert content(run) == before
    maker.discard(token.uri("third@1"))


@pytest.mark.campaign
def test_an_issuer_that_serves_goes_on_when_its_token_is_back(token: Token, tmp_path: Path) -> None:
    """What is queued meanwhile waits. The log key is a file here: otherwise nothing could be queued either."""
    suite = TokenSuite(token, tmp_path)
    suite.run("ca", "create", "top", "--profile", "ocpp/cso-root", "--subject", "CN=Top,O=Acme,C=DE")
    suite.run("ca", "create", "under", "--profile", "ocpp/cso-sub", "--issuer", "top", "--subject", "CN=U,O=Acme,C=DE")
    suite.run("audit", "rotate-log-key", variables={"CHARGEPKI_KEY_TOKEN": None})
    serving = Service(suite, "authority", "serve")
    url, key = f"sqlite:///{suite.run.home / 'inventory.db'}", AuditKey.load(suite.run.home / "audit.key")
    try:
        with Inventory.open(url, log_key=key) as inventory:

            def ask(name: str) -> str:
                csr = make_csr(build_name([("CN", name), ("O", "Acme")]))
                order = IssueOrder("under", "ocpp/charging-station", csr=csr)
                return enqueue(inventory, order, actor=ACTOR, now=utc_now()).id

            first = ask("CS-1")
            serving.until(lambda: inventory.get_issuance(first).state is IssuanceState.ISSUED)
            with token.away():
                second = ask("CS-2")
                serving.until(lambda: "no token fits" in serving.said())
                assert inventory.get_issuance(second).state is not IssuanceState.REFUSED
            serving.until(lambda: inventory.get_issuance(second).state is IssuanceState.ISSUED)
    finally:
        serving.stop()
    assert "Traceback" not in serving.said()
    suite.run("audit", "verify")


# ---------------------------------------------------------------- PINs


def test_a_wrong_pin_is_used_once_by_a_command_and_by_all_processes_of_a_service(
    run: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pin").write_text("00000000\n")
    (tmp_path / "pin").chmod(0o600)
    read, tries = signer_pkcs11._read_pin, 0

    def count(path: Path) -> bytes:
        nonlocal tries
        tries += 1
        return read(path)

    monkeypatch.setattr(signer_pkcs11, "_read_pin", count)
    wrong = {"CHARGEPKI_PKCS11_PIN_FILE": str(tmp_path / "pin")}
    before = content(run)
    for words in (
        ("serve", "--listen", "127.0.0.1:0", "--workers", "2"),
        ("csms", "serve", "--listen", "127.0.0.1:0", "--security-profile", "1", "--issue-here", "--issue",
         "ChargingStationCertificate=sub"),
        ("authority", "serve", "--once"),
        ("cert", "issue-batch", *LEAF, "--csr-dir", str(tmp_path), "--out-dir", str(tmp_path / "out")),
    ):  # fmt: skip
        pkcs11.lib(run.variables["CHARGEPKI_PKCS11_MODULE"]).reinitialize()
        tries = 0
        refused = run.run(*words, variables=wrong)
        said = [line for line in refused.stderr.splitlines() if line.startswith("error: ")]
        assert refused.code == 4 and len(said) == 1 and "PIN is wrong" in refused.stderr, (words, refused)
        assert tries == 1, words
    assert content(run) == before


def test_the_last_try_of_a_token_is_not_spent_on_a_file(tmp_path: Path) -> None:
    """SoftHSM never locks itself; this is what a token's flags say that does."""
    opened: list[object] = []
    token = SimpleNamespace(
        label="HSM", flags=pkcs11.TokenFlag.USER_PIN_FINAL_TRY | pkcs11.TokenFlag.TOKEN_INITIALIZED,
        open=lambda **pin: opened.append(pin),
    )  # fmt: skip
    (tmp_path / "pin").write_text("1234")
    (tmp_path / "pin").chmod(0o600)
    wanted = parse_pkcs11_uri("pkcs11:token=HSM;object=x")
    from_file = Pkcs11KeyStore(None, lambda label: b"5678", pin_file=tmp_path / "pin")
    with pytest.raises(SignerError, match="locks itself"):
        from_file._log_in(token, b"HSM", wanted)
    assert opened == []
    # Who types it sees what it is about; and is asked once, also when the session is opened anew.
    asked: list[str] = []

    def ask(label: str) -> bytes:
        asked.append(label)
        return b"5678"

    typed = Pkcs11KeyStore(None, ask)
    typed._log_in(token, b"HSM", wanted)
    typed._log_in(token, b"HSM", wanted)
    assert opened == [{"user_pin": "5678"}] * 2 and asked == ["HSM"]


@pytest.mark.parametrize("name", sorted({*LOST, *REASONS, "HostMemory", "DataInvalid"}))
def test_whatever_a_token_answers_is_one_clear_error(token: Token, name: str) -> None:
    """Also what SoftHSM never says: no room for a key, no session left, a locked PIN."""
    store = Pkcs11KeyStore(token.module, lambda label: PIN.encode())
    wanted = parse_pkcs11_uri(token.uri("ec256"))
    calls = 0

    def work(_: object) -> None:
        nonlocal calls
        calls += 1
        raise getattr(pkcs11, name)

    with pytest.raises(SignerError) as caught:
        store.use(wanted, work)
    error = caught.value
    assert error.what and error.why and error.fix and PIN not in str(error)
    assert calls == (2 if name in LOST else 1), "only what was lost is looked for again"


def test_a_token_that_cannot_be_written_leaves_nothing_reserved_that_the_next_run_does_not_take_up(
    run: CommandLine, token: Token, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full token: SoftHSM has no bound, so its answer stands in, between the reservation and the key."""
    create = ("ca", "create", "late", "--profile", "ocpp/cso-root", "--subject", "CN=Late,O=Acme,C=DE")

    def full(*_: object) -> None:
        raise pkcs11.DeviceMemory

    with monkeypatch.context() as patch:
        patch.setattr("chargepki.pki.signer_token._generate", full)
        refused = run.run(*create).check_one_error(4)
    assert "the token is full" in refused.stderr and "remove keys" in refused.stderr
    assert run("ca", "show", "late", "--json").json()["state"] == "pending"
    assert run(*create, "--json").json()["state"] == "active"
    run("audit", "verify")
    destroy(token, "late@1")


def test_a_token_on_a_disk_that_is_really_full_says_so_and_loses_nothing(tmp_path: Path) -> None:
    """SoftHSM's own answer; each command logs in anew, which writes to the token as well."""
    with small_disk(tmp_path / "disk", 96) as disk:
        if disk is None:
            do_without_mount("SoftHSM's answer is raised in its place above")
            return
        with borrowed_token(disk, ("ec256",)) as token:
            keep_keys_on_a_full_disk(token, tmp_path)
        pkcs11.lib(str(token.module)).finalize()


def keep_keys_on_a_full_disk(token: Token, folder: Path) -> None:
    run = CommandLine(folder / "home", {**token.variables, "CHARGEPKI_KEY_TOKEN": "pkcs11:token=HSM"})
    library = pkcs11.lib(str(token.module))

    def anew(*words: str) -> Done:
        library.reinitialize()
        return run.run(*words)

    root = ("--profile", "ocpp/cso-root", "--subject")
    run("ca", "create", "root", *root, "CN=Root,O=Acme,C=DE")
    codes = []
    for free in (0, 4096, 8192):
        create = ("ca", "create", f"late-{free}", *root, f"CN=Late {free},O=Acme,C=DE")
        fill_but(token.folder / "filler", free)
        first = anew(*create)
        codes.append(first.code)
        if first.code:
            assert "has room" in first.check_one_error(4).stderr and "cannot be made" in first.stderr
        # What is there already signs on: lists, and the heads of the log.
        assert anew("crl", "publish", "--ca", "root").code == 0
        (token.folder / "filler").unlink()
        if first.code:
            assert anew(*create).code == 0
        assert run("ca", "show", f"late-{free}", "--json").json()["state"] == "active"
        assert anew("crl", "publish", "--ca", f"late-{free}").code == 0
    assert codes[0] == 4 and codes[-1] == 0, codes
    assert labels(token) == sorted([*(f"late-{free}@1" for free in (0, 4096, 8192)), "ec256", "root@1", *logs(token)])
    run("audit", "verify")


def logs(token: Token) -> list[str]:
    found = [label for label in labels(token) if label.startswith("audit-log-")]
    assert len(found) == 1
    return found


# ---------------------------------------------------------------- restore


def test_a_restore_names_the_token_that_it_needs_and_changes_nothing_without_it(
    run: CommandLine, token: Token, tmp_path: Path
) -> None:
    identity = pyrage.x25519.Identity.generate()
    (tmp_path / "identity").write_text(f"{identity}\n")
    (tmp_path / "identity").chmod(0o600)
    run("backup", "create", "--recipient", str(identity.to_public()), "--out", tmp_path / "b.age")
    elsewhere = CommandLine(tmp_path / "elsewhere", run.variables)
    words = (tmp_path / "b.age", "--identity", tmp_path / "identity")
    with token.away():
        refused = elsewhere.run("restore", *words).check_one_error(4)
        assert "the key of the log" in refused.stderr and "pkcs11:token=HSM" in refused.stderr
        assert not (tmp_path / "elsewhere").exists()
        drill = elsewhere("backup", "verify", *words, "--json", code=1).json()
        assert len(drill["findings"]) == 3 and drill["tokens_checked"] is True
    without = {"CHARGEPKI_PKCS11_MODULE": None}
    assert "were not looked for" in elsewhere("backup", "verify", *words, variables=without).stderr
    row = elsewhere("restore", *words, "--json").json()
    assert row["findings"] == [] and row["log_key_uri"].startswith("pkcs11:token=HSM;object=audit-log-")
    assert row["keys_elsewhere"] == [f"{ca}@1: pkcs11:token=HSM;object={ca}@1;type=private" for ca in ("root", "sub")]
    assert issue(CommandLine(elsewhere.home, run.variables)).code == 0
    elsewhere("audit", "verify")
