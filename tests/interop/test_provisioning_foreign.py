"""What a vehicle is given, opened by others: EXI by EXIficient, signature and chains by openssl, key by iso15118."""

from __future__ import annotations

import ast
import hashlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.concatkdf import ConcatKDFHash
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from chargepki.pki.exi import Message, MessageSet, decode
from chargepki.pki.pem import to_pem
from testkit.contracts import ContractWorld, make_world
from testkit.exi_judge import JAR, ExiJudge, need_exi_judge
from testkit.exi_messages import facts_of_message, facts_of_xml, to_xml
from testkit.foreign import missing

pytestmark = pytest.mark.foreign

SECURITY = JAR.parent / "security.py"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ContractWorld]:
    need_exi_judge()
    if reason := missing("openssl", "openssl"):
        pytest.skip(reason)
    made = make_world(tmp_path_factory.mktemp("world"))
    yield made
    made.authority.inventory.close()


@pytest.fixture(scope="module")
def judge(world: ContractWorld) -> Iterator[ExiJudge]:
    with ExiJudge() as running:
        yield running


def openssl(*arguments: str | Path, data: bytes = b"") -> bytes:
    command = ["openssl", *map(str, arguments)]
    return subprocess.run(command, input=data, capture_output=True, check=True).stdout


def their_decryption() -> Any:
    """Return `decrypt_priv_key` of iso15118, as it is; its module needs packages whose pins conflict with ours."""
    tree = ast.parse(SECURITY.read_text(encoding="utf-8"))
    (function,) = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "decrypt_priv_key"]
    names: dict[str, Any] = {
        "EllipticCurvePrivateKey": ec.EllipticCurvePrivateKey,
        "EllipticCurvePublicKey": ec.EllipticCurvePublicKey,
        "ec": ec,
        "ConcatKDFHash": ConcatKDFHash,
        "SHA256": SHA256,
        "Cipher": Cipher,
        "algorithms": algorithms,
        "modes": modes,
    }
    exec(compile(ast.Module([function], []), str(SECURITY), "exec"), names)
    return names["decrypt_priv_key"]


@pytest.mark.parametrize("message_set", [MessageSet.ISO15118_2, MessageSet.ISO15118_20])
def test_others_open_what_a_vehicle_is_given(
    world: ContractWorld, judge: ExiJudge, message_set: MessageSet, tmp_path: Path
) -> None:
    is_2 = message_set is MessageSet.ISO15118_2
    vehicle = world.vehicle(message_set, "WAUABC12345678901D")
    world._provisioner = None
    world.contract(vehicle, "DE8AA001234567" if is_2 else "DE8AA001234568")
    response = world.answer(vehicle.request())
    # Read by the foreign codec: what it finds is what ours says.
    xml = judge.ask("decode", message_set, response)
    assert isinstance(xml, bytes), xml
    message = decode(response)
    assert facts_of_xml(xml) == facts_of_message(message)
    tree: Any = message.tree
    body = tree["Body"]["CertificateInstallationRes"] if is_2 else tree
    signature = tree["Header"]["Signature"]
    # The digest of each signed element, of the bytes that the foreign codec makes of it.
    names = ["ContractSignatureCertChain", "ContractSignatureEncryptedPrivateKey", "DHpublickey", "eMAID"]
    for name, reference in zip(
        names if is_2 else ["SignedInstallationData"], signature["SignedInfo"]["Reference"], strict=True
    ):
        fragment = judge.ask("encode-fragment", message_set, to_xml(Message(message_set, name, body[name])))
        assert isinstance(fragment, bytes), fragment
        digest = hashlib.sha256(fragment) if is_2 else hashlib.sha512(fragment)
        assert (digest.digest(), f"#{body[name]['Id']}") == (reference["DigestValue"], reference["URI"])
    info = Message(MessageSet.XMLDSIG, "SignedInfo", signature["SignedInfo"])
    signed = judge.ask("encode-fragment", MessageSet.XMLDSIG, to_xml(info))
    assert isinstance(signed, bytes), signed
    cps = body["SAProvisioningCertificateChain" if is_2 else "CPSCertificateChain"]
    _verify_signature(tmp_path, cps["Certificate"], signature["SignatureValue"]["value"], signed, is_2=is_2)
    _verify_chain(tmp_path, cps, world.root(message_set), strict=is_2)
    if is_2:
        leaf = x509.load_der_x509_certificate(body["ContractSignatureCertChain"]["Certificate"])
        sender = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), body["DHpublickey"]["value"])
        plain = their_decryption()(body["ContractSignatureEncryptedPrivateKey"]["value"], vehicle.key, sender)
        # SEC 1 with the scalar alone: openssl computes the public key.
        scalar = bytes.fromhex("30310201010420") + plain + bytes.fromhex("a00a06082a8648ce3d030107")
        public = openssl("ec", "-inform", "DER", "-pubout", "-outform", "DER", data=scalar)
        assert public == leaf.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        root = world.authority.inventory.get_ca("two-mo-root").certificate_der
        assert root is not None
        _verify_chain(tmp_path, body["ContractSignatureCertChain"], root, strict=True)


def _verify_signature(folder: Path, leaf: bytes, raw: bytes, signed: bytes, *, is_2: bool) -> None:
    half = len(raw) // 2
    der = encode_dss_signature(int.from_bytes(raw[:half], "big"), int.from_bytes(raw[half:], "big"))
    (folder / "leaf.pem").write_text(to_pem("CERTIFICATE", leaf))
    (folder / "key.pem").write_bytes(openssl("x509", "-in", folder / "leaf.pem", "-noout", "-pubkey"))
    (folder / "signature").write_bytes(der)
    digest = "-sha256" if is_2 else "-sha512"
    told = openssl("dgst", digest, "-verify", folder / "key.pem", "-signature", folder / "signature", data=signed)
    assert told == b"Verified OK\n"


def _verify_chain(folder: Path, chain: Any, root: bytes, *, strict: bool) -> None:
    """Ask openssl; it refuses the critical extensions of -20, whose clause it does not know."""
    below = chain["SubCertificates"]["Certificate"]
    (folder / "root.pem").write_text(to_pem("CERTIFICATE", root))
    (folder / "sub.pem").write_text("".join(to_pem("CERTIFICATE", each) for each in below))
    (folder / "one.pem").write_text(to_pem("CERTIFICATE", chain["Certificate"]))
    at = str(int(x509.load_der_x509_certificate(chain["Certificate"]).not_valid_before_utc.timestamp()) + 600)
    more = [] if strict else ["-ignore_critical"]
    arguments: list[str | Path] = [
        "verify",
        *more,
        "-attime",
        at,
        "-CAfile",
        folder / "root.pem",
        "-untrusted",
        folder / "sub.pem",
    ]
    assert openssl(*arguments, folder / "one.pem").endswith(b": OK\n")
