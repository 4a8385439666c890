"""A second implementation of PKCS #11: the token of NSS, which is not SoftHSM in a single line.

NSS wants to be told where its database is when it is initialised, in a field that PKCS #11 has reserved. Programs leave
that to p11-kit (``x-init-reserved``); here a function put in the place of its `C_Initialize` says it, because p11-kit
reads no configuration of one's own in a process of root.
"""

from __future__ import annotations

import base64
import ctypes
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pkcs11
import pytest
from cryptography import x509

from chargepki.pki.keys import KeyAlgorithm
from chargepki.pki.names import build_name
from chargepki.pki.signer import SoftwareKeyStore
from chargepki.pki.signer_pkcs11 import Pkcs11KeyStore
from chargepki.pki.signer_token import TokenKeyStore
from testkit.command_line import CommandLine
from testkit.foreign import missing
from testkit.foreign import run as run_tool
from testkit.requests import make_csr
from testkit.tokens import PIN

pytestmark = pytest.mark.foreign

TOKEN = "pkcs11:token=NSS%20Certificate%20DB"
_MODULES = (
    "/usr/lib/x86_64-linux-gnu/libsoftokn3.so", "/usr/lib/aarch64-linux-gnu/libsoftokn3.so",
    "/usr/lib64/libsoftokn3.so",
)  # fmt: skip
_OS_LOCKING_OK = 2
FIRMWARE = build_name([("CN", "F"), ("O", "Maker")])


class _Arguments(ctypes.Structure):
    """CK_C_INITIALIZE_ARGS as NSS has it (pkcs11t.h): its parameters stand before the reserved pointer."""

    _fields_ = [
        ("mutexes", ctypes.c_void_p * 4), ("flags", ctypes.c_ulong), ("parameters", ctypes.c_char_p),
        ("reserved", ctypes.c_void_p),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CommandLine]:
    """A workspace that makes its keys in a token of NSS."""
    module = next((Path(name) for name in _MODULES if Path(name).exists()), None)
    if (reason := missing("certutil", "libnss3-tools")) or module is None:
        pytest.skip(reason or "the token of NSS (libsoftokn3.so) was not found")
    folder = tmp_path_factory.mktemp("nss")
    (folder / "pin").write_text(f"{PIN}\n")
    (folder / "pin").chmod(0o600)
    (folder / "db").mkdir()
    done = run_tool("certutil", "-N", "-d", f"sql:{folder / 'db'}", "-f", folder / "pin")
    assert done.returncode == 0, done.stderr
    functions = ctypes.POINTER(ctypes.c_void_p)()
    assert ctypes.CDLL(str(module)).C_GetFunctionList(ctypes.byref(functions)) == 0
    function = ctypes.CFUNCTYPE(ctypes.c_ulong, ctypes.c_void_p)
    # CK_FUNCTION_LIST: the version, then the functions, C_Initialize first.
    original = functions[1]
    where = f"configdir='sql:{folder / 'db'}' certPrefix='' keyPrefix='' secmod='secmod.db' flags="
    arguments = _Arguments(flags=_OS_LOCKING_OK, parameters=where.encode())
    initialise = function(lambda _: function(original)(ctypes.addressof(arguments)))
    functions[1] = ctypes.cast(initialise, ctypes.c_void_p).value
    yield CommandLine(
        folder / "home",
        {
            "CHARGEPKI_PKCS11_MODULE": str(module), "CHARGEPKI_PKCS11_PIN_FILE": str(folder / "pin"),
            "CHARGEPKI_KEY_TOKEN": TOKEN, "CHARGEPKI_PUBLIC_URL": "http://pki.test",
        },
    )  # fmt: skip
    pkcs11.lib(str(module)).finalize()
    functions[1] = original


def test_every_kind_of_signature_is_made_in_a_token_of_nss(run: CommandLine, tmp_path: Path) -> None:
    """Certificates, lists, OCSP responses, log heads and firmware, with keys on curves and RSA, judged by openssl."""
    root, sub = ("--profile", "ocpp/cso-root"), ("--profile", "ocpp/cso-sub", "--issuer", "root")
    run("ca", "create", "root", *root, "--subject", "CN=Root,O=Acme,C=DE")
    run("ca", "create", "sub", *sub, "--subject", "CN=Sub,O=Acme,C=DE", "--key", "rsa2048")
    row = run("ca", "show", "root", "--json").json()
    assert row["key"].startswith(f"{TOKEN};object=root@1")
    run("ca", "chain", "root", "--out", tmp_path / "root.pem")
    run("ca", "chain", "sub", "--out", tmp_path / "sub.pem")
    leaf = ("--profile", "ocpp/charging-station", "--subject", "CN=CS-1,O=Acme", "--new-key")
    run("cert", "issue", "--ca", "sub", *leaf, "--key-out", tmp_path / "leaf.key", "--out", tmp_path / "leaf.pem")
    verified = run_tool("openssl", "verify", "-CAfile", tmp_path / "root.pem", "-untrusted", tmp_path / "sub.pem",
                        tmp_path / "leaf.pem")  # fmt: skip
    assert verified.returncode == 0, verified.stderr
    run("crl", "publish", "--ca", "sub", "--out", tmp_path / "sub.crl")
    listed = run_tool("openssl", "crl", "-in", tmp_path / "sub.crl", "-inform", "DER", "-noout", "-CAfile",
                      tmp_path / "sub.pem")  # fmt: skip
    assert listed.stderr == "verify OK\n"
    run("ocsp", "presign", "--all", "--out-dir", tmp_path / "staples")
    serial = x509.load_pem_x509_certificate((tmp_path / "leaf.pem").read_bytes()).serial_number
    staple = tmp_path / "staples" / "sub@1" / f"{serial:x}.ocsp"
    answered = run_tool("openssl", "ocsp", "-respin", staple, "-issuer", tmp_path / "sub.pem", "-cert",
                        tmp_path / "leaf.pem", "-CAfile", tmp_path / "root.pem", "-verify_other",
                        tmp_path / "sub.pem", "-no_nonce")  # fmt: skip
    assert "Response verify OK" in answered.stderr and "leaf.pem: good" in answered.stdout, answered
    check_the_log(run, tmp_path)
    sign_firmware(run, tmp_path)
    for path in run.home.rglob("*"):
        assert not path.is_file() or b"PRIVATE KEY" not in path.read_bytes(), path


def check_the_log(run: CommandLine, folder: Path) -> None:
    run("audit", "rotate-log-key")
    run("audit", "checkpoint", "--out", folder / "head.json")
    run("audit", "log-key", "--out", folder / "log.pem")
    fields = json.loads((folder / "head.json").read_text())
    (folder / "signature").write_bytes(base64.b64decode(fields.pop("signature")))
    del fields["schema_version"]
    fields["schema"] = "chargepki.audit-head/1"
    (folder / "message").write_text(json.dumps(fields, sort_keys=True, separators=(",", ":")))
    done = run_tool("openssl", "dgst", "-sha256", "-verify", folder / "log.pem", "-signature", folder / "signature",
                    folder / "message")  # fmt: skip
    assert done.stdout == "Verified OK\n", done


def sign_firmware(run: CommandLine, folder: Path) -> None:
    variables = run.variables
    tokens = Pkcs11KeyStore(Path(variables["CHARGEPKI_PKCS11_MODULE"]), lambda label: PIN.encode())
    uri = TokenKeyStore(tokens, TOKEN, SoftwareKeyStore(folder / "none", lambda: b"x")).create(
        "firmware", KeyAlgorithm.SECP256R1
    )
    run("ca", "create", "maker", "--profile", "ocpp/manufacturer-root", "--subject", "CN=Maker,O=Maker")
    key = tokens.open(uri).private_key
    (folder / "fw.csr").write_bytes(make_csr(FIRMWARE, key))
    run("cert", "issue", "--ca", "maker", "--profile", "ocpp/firmware-signing", "--csr", folder / "fw.csr", "--out",
        folder / "fw.pem")  # fmt: skip
    (folder / "image").write_bytes(os.urandom(5000))
    run("firmware", "sign", folder / "image", "--key", uri, "--cert", folder / "fw.pem", "--raw", "--out",
        folder / "image.sig")  # fmt: skip
    public = run_tool("openssl", "x509", "-in", folder / "fw.pem", "-noout", "-pubkey").stdout
    (folder / "fw.pub").write_text(public)
    done = run_tool("openssl", "dgst", "-sha256", "-verify", folder / "fw.pub", "-signature", folder / "image.sig",
                    folder / "image")  # fmt: skip
    assert done.stdout == "Verified OK\n", done
