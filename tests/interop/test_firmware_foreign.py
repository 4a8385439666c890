"""Signatures made here are verified by openssl and Java, and theirs by us."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import pytest

from chargepki.ocpp_security.firmware import sign_firmware, verify_firmware
from chargepki.pki.pem import pem_blocks
from chargepki.pki.private_keys import serialise_private_key
from testkit.chains import AT, Made
from testkit.firmware import IMAGE, maker, pem, signer_of
from testkit.foreign import Tool, java_program, need, run

pytestmark = pytest.mark.foreign

NAMES = ("ecdsa", "rsa")


def of(name: str) -> Made:
    made = getattr(maker(), name)
    assert isinstance(made, Made)
    return made


def ours(made: Made) -> bytes:
    return sign_firmware(io.BytesIO(IMAGE), signer_of(made), made.der, at=AT).raw


def accept(made: Made, signature: bytes) -> None:
    text = base64.b64encode(signature).decode()
    verify_firmware(io.BytesIO(IMAGE), signature=text, certificate_pem=pem(made), trust=maker().trust, at=AT)


@pytest.mark.parametrize("name", NAMES)
def test_openssl_and_we_verify_each_other(name: str, tmp_path: Path) -> None:
    need(Tool.OPENSSL)
    made = of(name)
    for file, content in {
        "image": IMAGE,
        "cert.pem": pem(made).encode(),
        "key.pem": serialise_private_key(made.key),
        "ours": ours(made),
    }.items():
        (tmp_path / file).write_bytes(content)
    public = run("openssl", "x509", "-in", tmp_path / "cert.pem", "-noout", "-pubkey").stdout
    (tmp_path / "public.pem").write_text(public)
    pss = ("-sigopt", "rsa_padding_mode:pss") if name == "rsa" else ()
    for salt in (("-sigopt", "rsa_pss_saltlen:32"), ("-sigopt", "rsa_pss_saltlen:auto")) if pss else ((),):
        done = run(
            "openssl", "dgst", "-sha256", *pss, *salt, "-verify", tmp_path / "public.pem",
            "-signature", tmp_path / "ours", tmp_path / "image",
        )  # fmt: skip
        assert done.stdout == "Verified OK\n", done.stderr
    # Without a word about the salt, openssl takes the longest there is room for.
    for salt in ((), ("-sigopt", "rsa_pss_saltlen:digest")) if pss else ((),):
        done = run(
            "openssl", "dgst", "-sha256", *pss, *salt, "-sign", tmp_path / "key.pem",
            "-out", tmp_path / "theirs", tmp_path / "image",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        accept(made, (tmp_path / "theirs").read_bytes())


def test_java_and_we_verify_each_other() -> None:
    need(Tool.JAVA)
    image = base64.b64encode(IMAGE).decode()
    questions: list[tuple[str, ...]] = []
    for name, scheme in (("ecdsa", "ecdsa"), ("rsa", "32")):
        made = of(name)
        certificate, good = base64.b64encode(made.der).decode(), bytearray(ours(made))
        key = base64.b64encode(pem_blocks(serialise_private_key(made.key), max_bytes=1 << 16)[0].der).decode()
        questions.append(("verify", f"{name} ours", scheme, certificate, image, base64.b64encode(good).decode()))
        good[-1] ^= 1
        questions.append(("verify", f"{name} bad", scheme, certificate, image, base64.b64encode(good).decode()))
        questions.append(("sign", f"{name} theirs", scheme, key, image))
    questions.append(("sign", "rsa other salt", "17", key, image))
    text = "".join("\t".join(question) + "\n" for question in questions)
    done = run(*java_program("VerifyFirmware"), text=text, timeout=110)
    assert done.returncode == 0, done.stderr[-2000:]
    answers = dict(line.split("\t") for line in done.stdout.splitlines())
    for name in NAMES:
        assert (answers[f"{name} ours"], answers[f"{name} bad"]) == ("accepted", "refused")
        accept(of(name), base64.b64decode(answers[f"{name} theirs"]))
    accept(of("rsa"), base64.b64decode(answers["rsa other salt"]))
