"""Golden vectors of wrapped contract keys: opened to the keys that they say, and written the same."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tomllib
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, x448

from chargepki.pki.contract_keys import (
    WrapForm,
    WrappedKey,
    additional_data,
    unwrap_ec_key,
    unwrap_x448_key,
    wrap_ec_key,
    wrap_x448_key,
)
from testkit.layout import ROOT

FOLDER = ROOT / "fixtures" / "contract_keys"
ENTRIES = tomllib.loads((FOLDER / "manifest.toml").read_text(encoding="utf-8"))["vector"]
AAD = additional_data("WAUABC12345678901D", bytes(range(8)))


def scalar(label: str, octets: int) -> int:
    return int.from_bytes(hashlib.sha512(label.encode()).digest()[: octets - 1], "big") + 1


def test_every_file_is_named_and_unchanged() -> None:
    files = {path.name for path in FOLDER.iterdir() if path.name not in ("manifest.toml", "__main__.py", "__pycache__")}
    assert files == {entry["file"] for entry in ENTRIES}
    for entry in ENTRIES:
        assert hashlib.sha256((FOLDER / entry["file"]).read_bytes()).hexdigest() == entry["sha256"]


def test_the_generator_reproduces_them() -> None:
    done = subprocess.run([sys.executable, "-m", "fixtures.contract_keys", "--check"], cwd=ROOT, check=False)
    assert done.returncode == 0


@pytest.mark.parametrize("entry", [entry for entry in ENTRIES if entry["id"] != "x448"], ids=lambda entry: entry["id"])
def test_a_key_on_a_nist_curve_is_the_one_of_the_vector(entry: dict[str, Any]) -> None:
    vector = json.loads((FOLDER / entry["file"]).read_text(encoding="utf-8"))
    form = WrapForm(vector["form"])
    curve, octets = (ec.SECP256R1(), 32) if form is WrapForm.ISO15118_2 else (ec.SECP521R1(), 66)
    vehicle, ephemeral = (ec.derive_private_key(scalar(label, octets), curve) for label in ("vehicle", "ephemeral"))
    contract = ec.derive_private_key(int(vector["contract"], 16), curve)
    aad = b"" if form is WrapForm.ISO15118_2 else AAD
    wrapped = WrappedKey(form, bytes.fromhex(vector["public"]), bytes.fromhex(vector["encrypted"]))
    opened = unwrap_ec_key(wrapped, vehicle, contract=contract.public_key(), aad=aad)
    assert opened.private_numbers() == contract.private_numbers()
    iv = bytes(range(16 if form is WrapForm.ISO15118_2 else 12))
    assert wrap_ec_key(contract, vehicle.public_key(), form=form, ephemeral=ephemeral, iv=iv, aad=aad) == wrapped


def test_a_key_of_x448_is_the_one_of_the_vector() -> None:
    vector = json.loads((FOLDER / "x448.json").read_text(encoding="utf-8"))
    vehicle, ephemeral, contract = (
        x448.X448PrivateKey.from_private_bytes(hashlib.sha512(label).digest()[:56])
        for label in (b"vehicle", b"ephemeral", b"contract")
    )
    wrapped = WrappedKey(WrapForm.X448, bytes.fromhex(vector["public"]), bytes.fromhex(vector["encrypted"]))
    opened = unwrap_x448_key(wrapped, vehicle, contract=contract.public_key(), aad=AAD)
    assert opened.private_bytes_raw().hex() == vector["contract"]
    assert wrap_x448_key(contract, vehicle.public_key(), ephemeral=ephemeral, iv=bytes(range(12)), aad=AAD) == wrapped
