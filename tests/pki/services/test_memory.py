"""What a server keeps in memory is bounded, whoever asks, and what was needed for a moment is given back."""

from __future__ import annotations

import base64
import io
import json
import logging
import subprocess
import sys
import tracemalloc
from datetime import UTC, datetime, timedelta

import pytest

from chargepki.pki.authority import Authority
from chargepki.pki.inventory import Inventory
from chargepki.pki.inventory.ocsp_records import OcspResponseRecord
from chargepki.pki.ocsp import build_single_request, parse_ocsp_request
from chargepki.pki.services.logs import JsonLines, TextLines
from chargepki.pki.services.ocsp_memory import MAX_KEY_BYTES, AnswerMemory
from testkit.pki_server import live_server, live_signers, ocsp_request

NOW = datetime.now(UTC).replace(microsecond=0)
LATER = NOW + timedelta(days=7)


def answer(number: int) -> OcspResponseRecord:
    """Return an answer of the usual size."""
    serial = f"{(1 << 120) + number:x}"
    return OcspResponseRecord(
        f"t-sub@1:{serial}", "sha1", "t-sub@1", "good", f"t-sub@1:{number:x}", NOW, LATER, LATER,
        number.to_bytes(4, "big") + bytes(800),
    )  # fmt: skip


def test_prepared_answers_take_what_they_are_said_to_take_and_no_more_than_allowed() -> None:
    bound = 1 << 20
    memory = AnswerMemory(lambda: NOW, max_bytes=bound)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(1500):
            memory.keep(memory.prepare(answer(number)), 0)
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert 0.9 * bound < memory.bytes <= bound
    assert 0.8 * bound < taken < 1.15 * bound
    assert memory.find(answer(1499).certificate, "sha1") is not None
    assert memory.find(answer(0).certificate, "sha1") is None


def test_requests_that_are_padded_are_answered_and_not_remembered(
    inventory: Inventory, authority: Authority, leaf: str
) -> None:
    plain = ocsp_request(inventory, leaf)
    fresh = build_single_request(parse_ocsp_request(plain).cert_ids[0].raw, nonce=bytes(32))
    with live_server(inventory, signers=live_signers(authority)) as server:
        memory, live = server.site.responder._memory, server.site.responder._live
        assert server.ocsp(plain).body[:2] == b"\x30\x82"
        usual = len(memory.by_request)
        for number in range(20):
            path = f"/ocsp/{base64.b64encode(plain).decode()}?{number:0500d}"
            assert server.ask("GET", path).headers["cache-control"].startswith("max-age=")
        assert len(memory.by_request) == usual
        assert server.ocsp(fresh).status == 200 and len(live._shapes) == 1
        assert max(map(len, memory.by_request)) <= MAX_KEY_BYTES


_OPEN_KEYS = """
import resource, sys, threading
from pathlib import Path
from chargepki.pki.services.allocator import give_memory_back
from chargepki.pki import keys, private_keys
def resident(): return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
pem = private_keys.encrypt_private_key(keys.generate_private_key(keys.KeyAlgorithm.SECP256R1), b"a passphrase")
private_keys.decrypt_private_key(pem, b"a passphrase")
assert give_memory_back()
before = resident()
for _ in range(2):
    thread = threading.Thread(target=private_keys.decrypt_private_key, args=(pem, b"a passphrase"))
    thread.start(); thread.join()
print(resident() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator, and /proc")
def test_the_memory_that_opening_a_key_takes_is_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", _OPEN_KEYS], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 8 << 20


def test_nothing_that_a_peer_sends_makes_a_line_of_the_log_of_its_own() -> None:
    for formatter in (TextLines(), JsonLines()):
        stream = io.StringIO()
        handler = logging.StreamHandler(stream)
        handler.setFormatter(formatter)
        log = logging.Logger("forged")
        log.addHandler(handler)
        log.warning("refused %s", "CS-1\n2026-01-01 00:00:00,000 INFO all is well\x1b[2J")
        try:
            raise ValueError("bad\n2026-01-01 00:00:00,000 INFO all is well\x1b[2J")
        except ValueError:
            log.exception("a request failed")
        lines = stream.getvalue().splitlines()
        assert not any(line.startswith("2026-01-01") for line in lines) and "\x1b" not in stream.getvalue()
        if isinstance(formatter, JsonLines):
            assert [json.loads(line)["level"] for line in lines] == ["warning", "error"]
