"""Keys that stay in a token (SoftHSM): firmware, requests and CAs signed with them, and every way to lose the token."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pkcs11
import pytest
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from chargepki.pki import files, keys, private_keys, signer_pkcs11
from chargepki.pki.errors import ChargePkiError, Conflict, InputError, PolicyRefusal, SignerError
from chargepki.pki.keys import KeyAlgorithm
from chargepki.pki.names import build_name
from chargepki.pki.pkcs11_uri import parse_pkcs11_uri
from chargepki.pki.signer import Signer, SoftwareKeyStore
from chargepki.pki.signer_pkcs11 import Pkcs11KeyStore
from chargepki.pki.signer_token import TokenKeyStore, _generate, check_token_uri
from testkit.command_line import CommandLine
from testkit.foreign import run as run_tool
from testkit.tokens import PIN, Token, borrowed_token

pytestmark = pytest.mark.foreign
P256 = KeyAlgorithm.SECP256R1


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Token]:
    with borrowed_token(tmp_path_factory.mktemp("token")) as made:
        yield made


@pytest.fixture
def store(token: Token) -> Pkcs11KeyStore:
    return Pkcs11KeyStore(token.module, lambda label: PIN.encode())


@pytest.fixture(scope="module")
def command(token: Token, tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    folder = tmp_path_factory.mktemp("workspace")
    (folder / "passphrase").write_bytes(b"correct horse battery staple\n")
    (folder / "passphrase").chmod(0o600)
    made = CommandLine(
        folder / "home",
        {
            **token.variables,
            "CHARGEPKI_PASSPHRASE_FILE": str(folder / "passphrase"),
            "CHARGEPKI_PUBLIC_URL": "http://pki.test",
        },
    )
    made("ca", "create", "maker", "--profile", "ocpp/manufacturer-root", "--subject", "CN=Maker Root,O=Maker")
    return made


def request(signer: Signer) -> bytes:
    """Return a CSR, built by the library's own builder: it takes a token's key like any other."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(build_name([("CN", "Firmware"), ("O", "Maker")]))
    assert isinstance(signer.private_key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey)
    return builder.sign(signer.private_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@pytest.mark.parametrize("label", ["ec256", "ec384", "rsa"])
def test_a_key_of_a_token_signs_like_any_other_and_never_leaves_it(
    store: Pkcs11KeyStore, token: Token, label: str
) -> None:
    signer = store.open(token.uri(label))
    scheme = keys.signature_algorithm(signer.algorithm)
    assert keys.verify(signer.public_key, signer.sign(b"message"), b"message", scheme.der)
    if isinstance(signer.private_key, rsa.RSAPrivateKey):
        assert isinstance(signer.public_key, rsa.RSAPublicKey)
        for scheme_ in (padding.PKCS1v15(), padding.PSS(padding.MGF1(hashes.SHA384()), 10)):
            raw = signer.private_key.sign(b"message", scheme_, hashes.SHA384())
            signer.public_key.verify(raw, b"message", scheme_, hashes.SHA384())
    with pytest.raises(UnsupportedAlgorithm):
        private_keys.serialise_private_key(signer.private_key)
    assert PIN not in repr(signer) + repr(store)


@pytest.mark.parametrize("label", ["ec256", "rsa"])
def test_firmware_is_signed_in_a_token_and_openssl_takes_it(
    command: CommandLine, store: Pkcs11KeyStore, token: Token, tmp_path: Path, label: str
) -> None:
    (tmp_path / "image").write_bytes(os.urandom(50_000))
    (tmp_path / "csr.pem").write_bytes(request(store.open(token.uri(label))))
    command(
        "cert", "issue", "--ca", "maker", "--profile", "ocpp/firmware-signing", "--csr", tmp_path / "csr.pem",
        "--out", tmp_path / "cert.pem",
    )  # fmt: skip
    uri = f"{token.uri(label)}?pin-source=file:{token.pin_file}"
    command(
        "firmware", "sign", tmp_path / "image", "--key", uri, "--cert", tmp_path / "cert.pem", "--raw",
        "--out", tmp_path / "signature", variables={"CHARGEPKI_PKCS11_PIN_FILE": None},
    )  # fmt: skip
    words = ("--signature", tmp_path / "signature", "--cert", tmp_path / "cert.pem")
    command("firmware", "verify", tmp_path / "image", *words)
    public = run_tool("openssl", "x509", "-in", tmp_path / "cert.pem", "-noout", "-pubkey").stdout
    (tmp_path / "public.pem").write_text(public)
    options = ("-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:32") if label == "rsa" else ()
    done = run_tool(
        "openssl", "dgst", "-sha256", *options, "-verify", tmp_path / "public.pem",
        "-signature", tmp_path / "signature", tmp_path / "image",
    )  # fmt: skip
    assert done.stdout == "Verified OK\n", done.stderr


def test_a_ca_keeps_its_key_in_a_token(
    command: CommandLine, store: Pkcs11KeyStore, token: Token, tmp_path: Path
) -> None:
    words = ("ca", "create", "hsm-root", "--profile", "ocpp/manufacturer-root", "--subject", "CN=HSM Root,O=Maker")
    uri = token.uri("ec384")
    command(*words, "--key-uri", uri, "--dry-run")
    # A root in a token needs no passphrase.
    row = command(*words, "--key-uri", uri, "--json", variables={"CHARGEPKI_PASSPHRASE_FILE": None}).json()
    assert (row["name"], row["key"], row["state"]) == ("hsm-root", uri, "active")
    assert not list(command.home.rglob("hsm-root*.key"))
    (tmp_path / "csr.pem").write_bytes(request(store.open(token.uri("ec256"))))
    command(
        "cert", "issue", "--ca", "hsm-root", "--profile", "ocpp/firmware-signing", "--csr", tmp_path / "csr.pem",
        "--out", tmp_path / "leaf.pem", variables={"CHARGEPKI_PASSPHRASE_FILE": None},
    )  # fmt: skip
    command("ca", "chain", "hsm-root", "--out", tmp_path / "root.pem")
    command(
        "cert", "verify", "--trust", f"manufacturer={tmp_path / 'root.pem'}", "--purpose", "firmware-signing",
        tmp_path / "leaf.pem",
    )  # fmt: skip
    again = ("ca", "create", "other", *words[3:])
    assert "has the key" in command(*again, "--key-uri", uri, code=3).check_one_error(3).stderr
    command(*again, "--key-uri", uri, "--key", "secp256r1", code=3).check_one_error(3)
    command(*again, "--key-uri", "file:x.key", code=3).check_one_error(3)
    command("audit", "verify")


def test_a_child_process_signs_with_a_session_of_its_own(store: Pkcs11KeyStore, token: Token) -> None:
    signer = store.open(token.uri("ec256"))
    scheme = keys.signature_algorithm(signer.algorithm).der
    child = os.fork()
    if child == 0:
        right = keys.verify(signer.public_key, signer.sign(b"child"), b"child", scheme)
        os._exit(0 if right else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert keys.verify(signer.public_key, signer.sign(b"parent"), b"parent", scheme)


def test_no_session_is_open_when_a_process_forks_and_both_sign_afterwards(store: Pkcs11KeyStore, token: Token) -> None:
    signer = store.open(token.uri("ec256"))
    library = pkcs11.lib(str(token.module))
    store.let_go()
    assert not library.initialized, "a child would inherit what the module has opened"
    child = os.fork()
    if child == 0:
        os._exit(0 if signer.sign(b"child") else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert signer.sign(b"parent")


def test_processes_that_log_in_at_once_do_so_in_turn(token: Token, monkeypatch: pytest.MonkeyPatch) -> None:
    """SoftHSM empties the file of its token at each login, and fills it only after it gave up its lock.

    Without turns, about every third of six processes that log in at once finds no token there.
    """
    store = Pkcs11KeyStore(token.module, lambda label: b"", pin_file=token.pin_file)
    signer = store.open(token.uri("ec256"))
    for _ in range(3):
        store.let_go()
        children: list[int] = []
        gate, open_gate = os.pipe()
        for _ in range(6):
            child = os.fork()
            if child == 0:
                try:
                    os.close(open_gate)
                    # Nobody has to look a second time.
                    monkeypatch.setattr(signer_pkcs11, "_PAUSES", ())
                    os.read(gate, 1)
                    os._exit(0 if signer.sign(b"child") else 1)
                finally:
                    os._exit(3)
            children.append(child)
        os.close(gate)
        os.close(open_gate)
        assert [os.waitpid(child, 0)[1] for child in children] == [0] * 6
        assert signer.sign(b"parent")


def test_nobody_waits_for_ever_for_a_process_that_stands_still(token: Token, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_MAX_TURN_SECONDS", 0.05)
    with files.turn(token.pin_file), files.turn(token.pin_file):
        pass


@pytest.mark.parametrize("looks", [1, 3])
def test_a_token_that_another_program_just_writes_is_looked_for_again(
    store: Pkcs11KeyStore, token: Token, looks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path,) = (token.folder / "tokens").glob("*/token.object")
    content = path.read_bytes()
    pauses: list[float] = []

    def wait(pause: float) -> None:
        pauses.append(pause)
        if len(pauses) == looks:
            path.write_bytes(content)

    monkeypatch.setattr(time, "sleep", wait)
    pkcs11.lib(str(token.module)).reinitialize()
    pkcs11.lib(str(token.module)).finalize()
    path.write_bytes(b"")
    try:
        assert store.open(token.uri("ec256")).sign(b"message")
    finally:
        path.write_bytes(content)
    assert len(pauses) == looks


def test_a_token_that_stays_damaged_is_told_after_a_moment(
    store: Pkcs11KeyStore, token: Token, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path,) = (token.folder / "tokens").glob("*/token.object")
    content, pauses = path.read_bytes(), list[float]()
    monkeypatch.setattr(time, "sleep", pauses.append)
    pkcs11.lib(str(token.module)).finalize()
    path.write_bytes(b"")
    try:
        with pytest.raises(SignerError):
            store.open(token.uri("ec256"))
    finally:
        path.write_bytes(content)
    assert 0 < sum(pauses) < 2


def test_a_token_that_goes_away_is_told_and_comes_back_without_a_restart(store: Pkcs11KeyStore, token: Token) -> None:
    signer = store.open(token.uri("ec256"))
    with token.away(), pytest.raises(SignerError, match=r"no token fits|cannot be used"):
        signer.sign(b"message")
    assert signer.sign(b"message")


def test_a_wrong_pin_is_tried_once(token: Token) -> None:
    asked: list[str] = []

    def wrong(label: str) -> bytes:
        asked.append(label)
        return b"00000000"

    # A login holds for the whole process; this one starts without.
    pkcs11.lib(str(token.module)).reinitialize()
    store = Pkcs11KeyStore(token.module, wrong)
    with pytest.raises(SignerError, match="PIN is wrong"):
        store.open(token.uri("ec256"))
    with pytest.raises(SignerError, match="refused the PIN before"):
        store.open(token.uri("rsa"))
    assert asked == ["HSM"]


def test_what_cannot_be_reached_is_one_clear_error_without_the_pin(
    command: CommandLine, token: Token, tmp_path: Path
) -> None:
    (tmp_path / "image").write_bytes(b"image")
    command("ca", "chain", "maker", "--out", tmp_path / "cert.pem")
    command(
        "cert", "issue", "--ca", "maker", "--profile", "ocpp/firmware-signing", "--subject", "CN=F,O=Maker",
        "--new-key", "--key-out", tmp_path / "key", "--out", tmp_path / "fw.pem",
    )  # fmt: skip
    loose = tmp_path / "loose"
    loose.write_text(PIN)
    loose.chmod(0o644)
    good = token.uri("ec256")
    cases: list[tuple[int, str, dict[str, str | None], str]] = [
        (4, good, {"CHARGEPKI_PKCS11_MODULE": None}, "no PKCS #11 module is configured"),
        (4, good, {"CHARGEPKI_PKCS11_MODULE": "/absent.so"}, "no PKCS #11 module /absent.so"),
        (4, good, {"CHARGEPKI_PKCS11_MODULE": str(loose)}, "cannot be used"),
        (4, "pkcs11:token=Other;object=ec256", {}, "no token fits"),
        (4, "pkcs11:token=HSM;object=absent", {}, "no private key of that name"),
        (3, good, {"CHARGEPKI_PKCS11_PIN_FILE": None}, "no terminal to ask on"),
        (4, f"{good}?pin-source={loose}", {}, "chmod"),
        (3, f"{good}?pin-value={PIN}", {}, "carries the PIN"),
        (3, f"{good}?module-path=/opt/x.so", {}, "names the module"),
        (4, good, {}, "not the one that the certificate names"),
    ]
    for code, uri, variables, words in cases:
        done = command.run(
            "firmware", "sign", tmp_path / "image", "--key", uri, "--cert", tmp_path / "fw.pem", variables=variables
        ).check_one_error(code)
        assert words in done.stderr, (uri, done.stderr)
        assert PIN not in done.out + done.stderr


@pytest.mark.parametrize(
    "uri",
    [
        "pkcs11:", "pkcs11:token=HSM", "pkcs11:object=a;object=b", "pkcs11:object=%zz", "pkcs11:object=%ff",
        "pkcs11:object=a;type=cert", "pkcs11:object=a;slot-id=1", "pkcs11:object=a?pin-source=pin",
        "pkcs11:object=a?pin-source=|id", "pkcs11:object=a?x-vendor=1", "pkcs11:" + "a" * 5000, "file:a.key",
    ],
)  # fmt: skip
def test_other_uris_are_refused_before_a_token_is_looked_for(uri: str) -> None:
    with pytest.raises(ChargePkiError) as caught:
        Pkcs11KeyStore(None, lambda label: b"").open(uri)
    assert not isinstance(caught.value, SignerError | PolicyRefusal)


# ---------------------------------------------------------------- a workspace whose keys are made in a token


@pytest.fixture
def sealed(token: Token, tmp_path: Path) -> CommandLine:
    """A workspace that makes its keys in the token, and has no passphrase."""
    variables = {"CHARGEPKI_KEY_TOKEN": "pkcs11:token=HSM", "CHARGEPKI_PUBLIC_URL": "http://pki.test"}
    return CommandLine(tmp_path / "home", {**token.variables, **variables})


def test_keys_from_before_the_token_stay_where_they_are(sealed: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "passphrase").write_bytes(b"correct horse battery staple\n")
    (tmp_path / "passphrase").chmod(0o600)
    before = {"CHARGEPKI_KEY_TOKEN": None, "CHARGEPKI_PASSPHRASE_FILE": str(tmp_path / "passphrase")}
    words = ("--profile", "ocpp/cso-root", "--subject", "CN=Old,O=Acme")
    sealed("ca", "create", "old", *words, variables=before)
    moved = {"CHARGEPKI_PASSPHRASE_FILE": str(tmp_path / "passphrase")}
    sealed("crl", "publish", "--ca", "old", variables=moved)
    sub = ("--profile", "ocpp/cso-sub", "--subject", "CN=New,O=Acme")
    row = sealed("ca", "create", "moved", "--issuer", "old", *sub, "--json", variables=moved).json()
    assert row["key"].startswith("pkcs11:token=HSM;object=moved@1")


def test_a_creation_that_the_token_stops_is_taken_up_again(
    sealed: CommandLine, token: Token, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full token, one that is gone, a wrong PIN: one clear error each, and the same command goes on."""
    create = ("ca", "create", "held", "--profile", "ocpp/cso-root", "--subject", "CN=Held,O=Acme")

    def full(*_: object) -> None:
        raise pkcs11.DeviceMemory

    with monkeypatch.context() as patch:
        patch.setattr("chargepki.pki.signer_token._generate", full)
        assert "the token is full" in sealed(*create, code=4).check_one_error(4).stderr
    away = {"CHARGEPKI_KEY_TOKEN": "pkcs11:token=Other"}
    assert "no token fits" in sealed("ca", "create", "gone", *create[3:], code=4, variables=away).stderr
    (tmp_path / "pin").write_text("00000000\n")
    (tmp_path / "pin").chmod(0o600)
    pkcs11.lib(str(token.module)).reinitialize()  # a login holds for the whole process
    wrong = {"CHARGEPKI_PKCS11_PIN_FILE": str(tmp_path / "pin")}
    assert "the PIN is wrong" in sealed(*create, code=4, variables=wrong).check_one_error(4).stderr
    assert sealed(*create, "--json").json()["state"] == "active"
    sealed("audit", "verify")


def test_a_key_of_a_token_is_never_overwritten_nor_of_an_algorithm_that_it_cannot_sign_with(
    sealed: CommandLine, token: Token
) -> None:
    create = ("ca", "create", "odd", "--profile", "ocpp/cso-root", "--subject", "CN=Odd,O=Acme")
    assert "no ed25519 key is made in a token" in sealed(*create, "--key", "ed25519", code=4).stderr
    tokens = Pkcs11KeyStore(token.module, lambda label: PIN.encode())
    store = TokenKeyStore(tokens, "pkcs11:token=HSM", SoftwareKeyStore(sealed.home / "keys", lambda: b"x"))
    assert store.exists("ec256") and not store.exists("absent")
    with pytest.raises(Conflict):
        store.create("ec256", P256)


@pytest.mark.parametrize(
    "uri", ["", "pkcs11:", "file:x", "pkcs11:token=HSM;object=a", "pkcs11:id=%01", "pkcs11:slot-id=1", "pkcs11:token=%"]
)
def test_what_names_no_token_is_refused(uri: str) -> None:
    with pytest.raises(InputError):
        check_token_uri(uri)


def test_a_token_that_would_give_its_keys_away_keeps_none_of_them() -> None:
    destroyed: list[str] = []

    class Half(dict[object, bool]):
        def destroy(self) -> None:
            destroyed.append("half")

    class Leaky:
        def generate_keypair(self, *_: object, **asked: object) -> tuple[Half, Half]:
            template = asked["private_template"]
            assert isinstance(template, dict) and template[pkcs11.Attribute.EXTRACTABLE] is False
            return Half(), Half({pkcs11.Attribute.EXTRACTABLE: True, pkcs11.Attribute.SENSITIVE: True})

    with pytest.raises(SignerError, match="can be taken out"):
        _generate(Leaky(), parse_pkcs11_uri("pkcs11:token=HSM;object=a"), KeyAlgorithm.RSA2048)
    assert len(destroyed) == 2
