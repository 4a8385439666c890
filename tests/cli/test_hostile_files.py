"""Hostile content for every command that reads a file: one clear error, the right exit code, nothing changed."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chargepki.pki.der import decode_der_or_pem, to_pem
from testkit.command_line import CommandLine, Done, snapshot, without_privileges

ISSUE = ("cert", "issue", "--ca", "t-cso-sub", "--profile", "ocpp/charging-station")
SERVE = ("csms", "serve", "--listen", "127.0.0.1:0", "--security-profile")
SIMULATE = ("station", "simulate", "ws://127.0.0.1:1", "--id", "CS-1", "--store", "store", "--protocol", "ocpp2.0.1")


@dataclass(frozen=True)
class Reader:
    """A command and the place of the file among its arguments."""

    before: tuple[str, ...]
    after: tuple[str, ...] = ()
    code: int = 3
    """Exit code for content that cannot be decoded."""
    too_large: int = 0
    """Exit code for more content than is read at all, where it is another one."""

    def run(self, run: CommandLine, file: Path | str, stdin: bytes = b"") -> Done:
        return run.run(*self.before, file, *self.after, stdin=stdin)


READERS = {
    "csr check": Reader(("csr", "check"), ("--profile", "ocpp/charging-station"), code=1),
    "cert issue": Reader((*ISSUE, "--csr"), ("--out", "leaf.pem")),
    "cert show": Reader(("cert", "show")),
    "crl show": Reader(("crl", "show")),
    "lint": Reader(("lint",), code=1),
    "lint --profile": Reader(("lint",), ("--profile", "iso15118-2/secc"), code=1),
    "audit verify": Reader(("audit", "verify", "--checkpoint"), code=1),
    "station add": Reader(("station", "add", "NEW", "--password-file")),
    "station set-password": Reader(("station", "set-password", "CS-0001", "--record-only", "--password-file")),
    "station set-password over OCPP": Reader(("station", "set-password", "CS-0001", "--password-file")),
    "station simulate trust": Reader((*SIMULATE, "--trust")),
    "station simulate password": Reader((*SIMULATE, "--password-file")),
    "csms serve client trust": Reader((*SERVE, "3", "--tls-ca", "t-cso-sub", "--client-trust")),
    "csms serve certificate": Reader((*SERVE, "2", "--tls-key", "new.key", "--tls-cert")),
    "csms serve key": Reader((*SERVE, "2", "--tls-cert", "live.pem", "--tls-key"), too_large=4),
}

CONTENTS: dict[str, bytes] = {
    "empty": b"",
    "line break": b"\n",
    "spaces": b" " * 300,
    "binary": bytes(range(256)) * 4,
    "NUL bytes": bytes(600),
    "invalid UTF-8": b"\xff\xfe\xfa" * 50,
    "escape sequences": b"\x1b[2J\x1b]0;owned\x07" * 9,
    "10 MB of text": b"A" * 10_000_000,
    "10 MB of zeros": bytes(10_000_000),
    "10 MB of blank lines": b"\n" * 10_000_000,
    "10 MB in one PEM": b"-----BEGIN CERTIFICATE-----\n" + b"QUFB" * 2_500_000 + b"\n-----END CERTIFICATE-----\n",
    "20,000 PEM blocks": b"-----BEGIN X-----\nQUFB\n-----END X-----\n" * 20_000,
    "wrong label": to_pem("PRIVATE KEY", b"\x30\x03\x02\x01\x01").encode(),
    "label with escape": b"-----BEGIN \x1b[2J-----\nQUFB\n-----END \x1b[2J-----\n",
    "PEM without end": b"-----BEGIN CERTIFICATE REQUEST-----\nMIIB\n",
    "PEM of nothing": b"-----BEGIN CERTIFICATE REQUEST-----\n-----END CERTIFICATE REQUEST-----\n",
    "PEM of no base64": b"-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n",
    "certificate PEM of garbage": to_pem("CERTIFICATE", b"garbage").encode(),
    "request PEM of garbage": to_pem("CERTIFICATE REQUEST", b"garbage").encode(),
    "CRL PEM of garbage": to_pem("X509 CRL", b"garbage").encode(),
    "indefinite length": b"\x30\x80\x00\x00",
    "endless length": b"\x30\x8f" + b"\xff" * 20,
    "deep DER": b"\x30\x80" * 30_000,
    "deep definite DER": b"".join(b"\x30\x82" + (4 * n).to_bytes(2, "big") for n in range(5000, 0, -1)),
    "JSON object": b"{}",
    "JSON list": b"[1, 2]",
    "JSON number": b"1e999",
    "JSON nested deeply": b"[" * 100_000,
    "JSON cut": b'{"schema": "chargepki/' + b"x" * 100,
}  # fmt: skip


@pytest.fixture(autouse=True)
def beside_the_workspace(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)


def check(done: Done, code: int) -> None:
    """One error for people, or, where findings are the answer, a report that says no."""
    if done.arguments[0] == "lint" and done.code == 1 and "error:" in done.out:
        assert "Traceback" not in done.stderr
        return
    done.check_one_error(code)


@pytest.mark.parametrize("content", CONTENTS.values(), ids=list(CONTENTS))
def test_hostile_content_is_one_clear_error_for_every_reader(run: CommandLine, place: Path, content: bytes) -> None:
    path = place / "hostile"
    path.write_bytes(content)
    path.chmod(0o600)  # or nobody would read it as a key
    before = snapshot(place)
    for reader in READERS.values():
        check(reader.run(run, path), reader.too_large if reader.too_large and len(content) > 1 << 20 else reader.code)
        assert snapshot(place) == before, reader.before


@pytest.mark.parametrize("name", ["csr check", "cert issue", "cert show", "crl show", "lint"])
def test_hostile_content_on_standard_input_is_one_clear_error(run: CommandLine, place: Path, name: str) -> None:
    before = snapshot(place)
    for content in ("empty", "binary", "10 MB of text", "wrong label", "deep DER"):
        check(READERS[name].run(run, "-", stdin=CONTENTS[content]), READERS[name].code)
    assert snapshot(place) == before


@pytest.mark.parametrize("name", READERS)
def test_what_is_no_file_is_one_clear_error(run: CommandLine, place: Path, name: str) -> None:
    (place / "loop.pem").symlink_to("loop.pem")
    (place / "folder.pem").mkdir()
    before = snapshot(place)
    reader = READERS[name]
    for file, codes in {
        "missing.pem": (4,),
        "loop.pem": (4,),
        "folder.pem": (reader.code, 4),
        # A private key is only read from a plain file.
        "/dev/zero": (reader.too_large or reader.code,),
        "missing/folder.pem": (4,),
        "passphrase/file.pem": (4,),
        "x" * 5000 + ".pem": (4,),
        "\udcff.pem": (4,),
    }.items():
        done = reader.run(run, file)
        assert done.code in codes, (file, done)
        done.check_one_error(done.code)
    assert snapshot(place) == before


def test_an_unreadable_file_is_one_clear_error(prepared: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="chargepki-") as folder:
        file = Path(folder) / "secret.pem"
        file.write_bytes(b"x")
        file.chmod(0)
        fresh = CommandLine(Path(folder) / "home")
        with without_privileges(Path(folder)):
            for name in ("csr check", "cert show", "crl show", "lint"):
                assert "Permission denied" in READERS[name].run(fresh, file).check_one_error(4).stderr


# -- truncation and mutation -------------------------------------------------------------------------------------------


def sound(place: Path) -> Iterator[tuple[str, bytes, Callable[[int], bool]]]:
    """Yield a reader, what it accepts, and which exit codes the damaged object may end with."""
    certificate = decode_der_or_pem((place / "live.pem").read_bytes(), ("CERTIFICATE",), "certificate", 1 << 20)
    yield "csr check", (place / "station.csr").read_bytes(), lambda code: code == 1
    yield "cert issue", (place / "station.csr").read_bytes(), lambda code: code == 3
    yield "cert show", certificate, lambda code: code in (0, 3)
    yield "crl show", (place / "sub.crl").read_bytes(), lambda code: code in (0, 3)
    yield "lint", certificate, lambda code: code in (0, 1)
    yield "lint", (place / "sub.crl").read_bytes(), lambda code: code in (0, 1)


def test_objects_cut_anywhere_are_refused(run: CommandLine, place: Path) -> None:
    path = place / "cut.der"
    before = snapshot(run.home)
    for name, whole, _ in sound(place):
        for length in {*range(1, len(whole), 29), *range(1, 8), len(whole) - 1}:
            path.write_bytes(whole[:length])
            check(READERS[name].run(run, path), READERS[name].code)
    assert snapshot(run.home) == before


def test_pem_cut_before_its_end_is_refused(run: CommandLine, place: Path) -> None:
    path = place / "cut.pem"
    pem = to_pem("CERTIFICATE REQUEST", (place / "station.csr").read_bytes()).encode()
    for length in range(1, pem.index(b"-----END"), 17):
        path.write_bytes(pem[:length])
        READERS["csr check"].run(run, path).check_one_error(1)


@settings(max_examples=60)
@given(data=st.data())
def test_every_damaged_object_is_answered_and_never_a_bug(prepared: Path, data: st.DataObject) -> None:
    """A request with any changed octet is refused; of certificates and CRLs, which are only shown, none is a bug."""
    run = CommandLine(prepared / "home", {"CHARGEPKI_PASSPHRASE_FILE": str(prepared / "passphrase")})
    name, whole, allowed = data.draw(st.sampled_from(list(sound(prepared))))
    position = data.draw(st.integers(0, len(whole) - 1))
    octet = data.draw(st.integers(0, 255).filter(lambda value: value != whole[position]))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "damaged.der"
        path.write_bytes(whole[:position] + bytes([octet]) + whole[position + 1 :])
        before = snapshot(prepared)
        done = READERS[name].run(run, path)
        assert allowed(done.code) and "bug" not in done.stderr, done
        assert snapshot(prepared) == before


# -- checkpoints -------------------------------------------------------------------------------------------------------

JSON_VALUES: tuple[object, ...] = (None, True, 0, -1, 2**70, 1.5, "", "x", "\x1b[2J", "é", [], {}, [[]], "f" * 64)


def test_a_checkpoint_with_any_other_value_is_refused(run: CommandLine, place: Path) -> None:
    whole = json.loads((place / "checkpoint.json").read_text())
    path = place / "changed.json"
    before = snapshot(run.home)
    for key in whole:
        for value in JSON_VALUES:
            if value == whole[key]:
                continue
            path.write_text(json.dumps({**whole, key: value}))
            done = run("audit", "verify", "--checkpoint", path, code=1)
            assert "bug" not in done.stderr, (key, value, done)
        path.write_text(json.dumps({other: whole[other] for other in whole if other != key}))
        run("audit", "verify", "--checkpoint", path, code=1)
    assert snapshot(run.home) == before


def test_a_checkpoint_with_duplicate_keys_or_additions_is_refused(run: CommandLine, place: Path) -> None:
    text = (place / "checkpoint.json").read_text().strip()
    path = place / "changed.json"
    for key, value in json.loads(text).items():
        path.write_text(f"{{{json.dumps(key)}: {json.dumps(value)}, {text[1:]}")
        run.run("audit", "verify", "--checkpoint", path).check_one_error(1)
    for changed in (text + text, text + "x", text[1:], f"[{text}]"):
        path.write_text(changed)
        run.run("audit", "verify", "--checkpoint", path).check_one_error(1)
    for length in range(0, len(text), 11):
        path.write_text(text[:length])
        run.run("audit", "verify", "--checkpoint", path).check_one_error(1)


def test_a_checkpoint_of_the_present_log_is_accepted(run: CommandLine, place: Path) -> None:
    assert "0 findings" in run("audit", "verify", "--checkpoint", place / "checkpoint.json").out
