"""`chargepki exi`: EXI to JSON and back, through files and pipes, and what is refused."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from testkit.command_line import CommandLine
from testkit.layout import ROOT

VECTORS = ROOT / "fixtures" / "exi"
REQUEST = (VECTORS / "iso15118-2-CertificateInstallationReq.exi").read_bytes()
WRITTEN = {
    "bytes": REQUEST,
    "base64": base64.b64encode(REQUEST) + b"\n",
    "hexadecimal": REQUEST.hex().encode() + b"\n",
    "lines of base64": base64.encodebytes(REQUEST),
}


@pytest.mark.parametrize("form", WRITTEN)
def test_bytes_base64_and_hexadecimal_are_read(fresh: CommandLine, form: str) -> None:
    done = fresh("exi", "decode", "-", stdin=WRITTEN[form])
    assert json.loads(done.out) == json.loads((VECTORS / "iso15118-2-CertificateInstallationReq.json").read_text())
    assert done.stderr == "CertificateInstallationReq of iso15118-2, 960 bytes\n"
    assert not fresh.home.exists(), "reading a message needs no workspace"


def test_what_is_decoded_can_be_encoded(fresh: CommandLine, tmp_path: Path) -> None:
    source, target = tmp_path / "request.json", tmp_path / "request.exi"
    source.write_bytes(fresh("exi", "decode", "-", stdin=REQUEST).stdout)
    assert fresh("exi", "encode", str(source)).out == base64.b64encode(REQUEST).decode() + "\n"
    fresh("exi", "encode", str(source), "--out", str(target))
    assert target.read_bytes() == REQUEST
    assert fresh("exi", "encode", str(source), "-o", "-").stdout == REQUEST
    document = fresh("exi", "decode", "-", "--json", stdin=REQUEST)
    assert (document.json()["schema"], document.json()["message_set"]) == ("chargepki/exi-message", "iso15118-2")
    written = fresh("exi", "encode", "-", "--json", stdin=document.stdout).json()
    assert (written["schema"], written["bytes"]) == ("chargepki/exi-stream", 960)
    assert base64.b64decode(written["exi"]) == REQUEST


def test_an_error_names_element_and_bit(fresh: CommandLine) -> None:
    done = fresh("exi", "decode", "-", stdin=REQUEST[:500], code=3)
    assert "V2G_Message/Body/CertificateInstallationReq/OEMProvisioningCert, bit " in done.stderr
    error = fresh("exi", "decode", "-", "--json", stdin=REQUEST[:500], code=3).json()
    assert error["code"] == "exi" and "bytes are announced" in error["what"]


def test_text_of_a_stranger_does_not_reach_the_terminal_as_it_is(fresh: CommandLine) -> None:
    steering = json.dumps({"eMAID": {"Id": "\x9b2J\u202e", "value": "DE8AA1A2B3C4D5"}}).encode()
    done = fresh("exi", "decode", "-", stdin=fresh("exi", "encode", "-", stdin=steering).stdout)
    assert done.out.isascii() and json.loads(done.out) == json.loads(steering)


def test_the_schema_can_be_named(fresh: CommandLine) -> None:
    done = fresh("exi", "decode", "-", "--set", "iso15118-20", stdin=REQUEST, code=3)
    assert "starts with no message about certificates" in done.stderr
    fragment = json.loads((VECTORS / "iso15118-2-CertificateInstallationReq-fragment.json").read_text())
    refused = fresh("exi", "encode", "-", "--set", "iso15118-20", stdin=json.dumps(fragment).encode(), code=3)
    assert "CertificateInstallationReq" in refused.stderr


def test_limits_are_ignored_when_asked(fresh: CommandLine) -> None:
    long = json.dumps({"DHpublickey": {"Id": "a", "value": base64.b64encode(bytes(66)).decode()}}).encode()
    assert "at most 65" in fresh("exi", "encode", "-", stdin=long, code=3).stderr
    stream = fresh("exi", "encode", "-", "--ignore-limits", stdin=long).stdout
    assert "at most 65" in fresh("exi", "decode", "-", stdin=stream, code=3).stderr
    assert json.loads(fresh("exi", "decode", "-", "--ignore-limits", stdin=stream).out) == json.loads(long)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "this is no JSON"),
        (b"[" * 100_000, "this is no JSON"),
        (b'{"eMAID": {"Id": "a", "Id": "b", "value": "DE"}}', "names a field twice"),
        (b'{"schema": "chargepki/exi-message", "message_set": "din"}', "no message set"),
        (b'{"eMAID": {"Id": 1e999, "value": "DE"}}', "no value of a message"),
        (b"\xff\xfe", "this is no JSON"),
    ],
)
def test_hostile_json_is_one_error(fresh: CommandLine, content: bytes, words: str) -> None:
    assert words in fresh("exi", "encode", "-", stdin=content, code=3).check_one_error(3).stderr


@pytest.mark.parametrize("content", [b"", b"hello", b"gA==", b"\x80", b"z" * 5000, b"80" * 70_000])
def test_what_is_no_exi_is_one_error(fresh: CommandLine, content: bytes) -> None:
    fresh("exi", "decode", "-", stdin=content, code=3).check_one_error(3)
