"""Prepared responses are handed on for stapling: one to anybody, batches to whoever holds a token."""

from __future__ import annotations

import asyncio
import base64
import subprocess
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest

from chargepki.pki.authority import Authority, IssueOrder
from chargepki.pki.authority.ocsp import OcspAuthority
from chargepki.pki.der import to_pem
from chargepki.pki.errors import InputError, SignerError, UnavailableError
from chargepki.pki.inventory import Inventory
from chargepki.pki.services.http import Request, Response
from chargepki.pki.services.staples import Staples, read_tokens
from testkit.authorities import make_csr
from testkit.pki_server import LiveServer, live_server

TOKEN = b"5f0c" * 8
BEARER = {"Authorization": "Bearer " + TOKEN.decode()}


@pytest.fixture
def server(inventory: Inventory, authority: Authority, leaf: str) -> Iterator[LiveServer]:
    OcspAuthority(authority).presign(inventory.get_ca("t-sub"))
    with live_server(inventory, staple_tokens=lambda: (b"another token of somebody", TOKEN)) as running:
        yield running


def batch(server: LiveServer, query: str = "") -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the responses of a batch and its last line."""
    answer = server.ask("GET", f"/staples/t-sub@1{query}", headers=BEARER)
    assert answer.status == 200 and answer.headers["content-type"] == "application/x-ndjson", answer.body
    *lines, end = [orjson.loads(line) for line in answer.body.splitlines()]
    assert end["schema"] == "chargepki/staples" and end["schema_version"] == 1 and end["count"] == len(lines)
    return lines, end


def test_one_response_is_what_openssl_takes_for_a_staple(
    server: LiveServer, inventory: Inventory, leaf: str, tmp_path: Path
) -> None:
    path = f"/staples/t-sub@1/{leaf.partition(':')[2]}.ocsp"
    answer = server.ask("GET", path)
    assert answer.status == 200 and answer.headers["content-type"] == "application/ocsp-response"
    assert server.ask("GET", path, headers={"If-None-Match": answer.headers["etag"]}).status == 304
    assert server.ask("GET", path + "?hash=sha256").headers["etag"] != answer.headers["etag"]
    record, ca = inventory.get_certificate(leaf), inventory.get_ca("t-sub")
    assert record.der is not None and ca.certificate_der is not None
    (tmp_path / "leaf.pem").write_text(to_pem("CERTIFICATE", record.der))
    (tmp_path / "ca.pem").write_text(to_pem("CERTIFICATE", ca.certificate_der))
    (tmp_path / "staple").write_bytes(answer.body)
    told = subprocess.run(
        ["openssl", "ocsp", "-respin", "staple", "-issuer", "ca.pem", "-cert", "leaf.pem", "-CAfile", "ca.pem",
         "-partial_chain"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "leaf.pem: good" in told.stdout and "Response verify OK" in told.stderr


def test_a_revocation_takes_the_response_back_until_the_new_one_is_signed(
    server: LiveServer, inventory: Inventory, authority: Authority, leaf: str
) -> None:
    serial = leaf.partition(":")[2]
    _, end = batch(server)
    authority.revoke(leaf, "keyCompromise")
    assert server.ask("GET", f"/staples/t-sub@1/{serial}.ocsp").status == 404
    OcspAuthority(authority).presign(inventory.get_ca("t-sub"))
    assert server.ask("GET", f"/staples/t-sub@1/{serial}.ocsp").status == 200
    changed, _ = batch(server, f"?since={end['next']}")
    assert {each["serial"]: each["status"] for each in changed}[serial] == "revoked"


def test_a_batch_is_walked_page_by_page_and_then_tells_what_is_new(
    server: LiveServer, inventory: Inventory, authority: Authority
) -> None:
    for number in range(7):
        authority.issue(IssueOrder("t-sub", "ocpp/charging-station", csr=make_csr(f"CS-9{number}")))
    OcspAuthority(authority).presign(inventory.get_ca("t-sub"))
    known = {record.certificate.partition(":")[2]: record.der
             for record in inventory.list_ocsp_responses_of("t-sub@1", "sha256")}  # fmt: skip
    seen: dict[str, bytes] = {}
    query, pages = "", 0
    while True:
        lines, end = batch(server, f"?hash=sha256&limit=3{query}")
        seen |= {each["serial"]: base64.b64decode(each["response"]) for each in lines}
        query, pages = f"&since={end['next']}", pages + 1
        if end["complete"]:
            break
    assert seen == known and pages >= 4
    # What was signed within the last minute comes again: it may have been committed late. Nothing else does.
    assert len(batch(server, f"?hash=sha256&since={end['next']}")[0]) == len(known)
    within = authority.now() + timedelta(seconds=50)
    server.site.staples._clock = lambda: within
    _, end = batch(server, "?hash=sha256")
    assert len(batch(server, f"?hash=sha256&since={end['next']}")[0]) == len(known)
    soon = authority.now() + timedelta(minutes=2)
    server.site.staples._clock = lambda: soon
    _, end = batch(server, "?hash=sha256")
    since = f"/staples/t-sub@1?hash=sha256&since={end['next']}"
    answer = server.ask("GET", since, headers=BEARER)
    assert orjson.loads(answer.body)["count"] == 0
    assert server.ask("GET", since, headers={**BEARER, "If-None-Match": answer.headers["etag"]}).status == 304
    # An expired response is no staple.
    late = authority.now() + timedelta(days=8)
    server.site.staples._clock = lambda: late
    assert batch(server)[0] == []


def test_named_serials_are_handed_out_together_and_missing_ones_are_told(server: LiveServer, leaf: str) -> None:
    serial = leaf.partition(":")[2]
    lines, end = batch(server, f"?serial=00{serial.upper()}&serial=abc")
    assert [each["serial"] for each in lines] == [serial] and end["missing"] == ["abc"]


WRONG: tuple[tuple[str, Mapping[str, str], int], ...] = (
    ("/staples/t-sub@1", {}, 401),
    ("/staples/t-sub@1", {"Authorization": "Bearer " + "x" * 32}, 401),
    ("/staples/t-sub@1", {"Authorization": "Basic " + TOKEN.decode()}, 401),
    ("/staples/t-sub@1", {"Authorization": "Bearer "}, 401),
    ("/staples/t-sub@1?since=yesterday", BEARER, 400),
    ("/staples/t-sub@1?since=99999999999", BEARER, 200),
    ("/staples/t-sub@1?limit=0", BEARER, 400),
    ("/staples/t-sub@1?limit=" + "9" * 5000, BEARER, 400),
    ("/staples/t-sub@1?hash=md5", BEARER, 400),
    ("/staples/t-sub@1?serial=zz", BEARER, 400),
    ("/staples/t-sub@1?" + "&".join(["serial=1"] * 101), BEARER, 400),
    ("/staples/t-sub@1?" + "&".join(["serial=1"] * 200), BEARER, 400),
    ("/staples/t-sub@1?%ff&&=", BEARER, 400),
    ("/staples/nobody@1", BEARER, 404),
    ("/staples/nobody@1/1.ocsp", {}, 404),
    ("/staples/t-sub@1/1.ocsp", {}, 404),
    ("/staples/../t-sub@1", BEARER, 404),
    ("/staples/", BEARER, 404),
)


def test_what_is_wrong_is_told(server: LiveServer) -> None:
    for path, headers, status in WRONG:
        assert (path, server.ask("GET", path, headers=headers).status) == (path, status)
        assert server.ask("POST", path, b"", headers).status == 405


def test_a_token_is_not_taken_where_everybody_on_the_way_reads_it(inventory: Inventory, leaf: str) -> None:
    staples = Staples(inventory, tokens=lambda: [TOKEN])
    bearer = [(b"Authorization", b"bearer " + TOKEN)]

    def ask(peer: str, *, is_tls: bool = False) -> Response:
        request = Request("GET", b"/staples/t-sub@1", bearer, peer=peer, is_tls=is_tls)
        return asyncio.run(staples.answer(request, b"/staples/t-sub@1"))

    assert [ask("192.0.2.1:5").status, ask("2001:db8::1:5").status, ask("local").status] == [403] * 3
    assert ask("192.0.2.1:5", is_tls=True).status == 200
    assert [ask("127.0.0.1:5").status, ask("::1:5").status, ask("::ffff:127.0.0.1:5").status] == [200] * 3
    without = Staples(inventory)
    request = Request("GET", b"/staples/t-sub@1", bearer, is_tls=True)
    assert asyncio.run(without.answer(request, b"/staples/t-sub@1")).status == 404


def test_tokens_come_from_a_file_that_only_its_owner_reads(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_bytes(b"# of the CSMS\n" + TOKEN + b"\n\n")
    file.chmod(0o600)
    assert read_tokens(file) == (TOKEN,)
    file.write_bytes(b"short\n")
    with pytest.raises(InputError, match="too short"):
        read_tokens(file)
    file.chmod(0o644)
    with pytest.raises(SignerError, match="others can read"):
        read_tokens(file)
    with pytest.raises(UnavailableError, match="there is no file of tokens"):
        read_tokens(tmp_path / "none")


def test_without_the_inventory_or_the_tokens_it_is_503(inventory: Inventory, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object, **__: object) -> None:
        raise UnavailableError("the inventory is away at postgresql://secret")

    def unreadable() -> tuple[bytes, ...]:
        raise SignerError("cannot read /etc/secret")

    request = Request("GET", b"/staples/t-sub@1", [(b"Authorization", b"Bearer " + TOKEN)], is_tls=True)
    answer = asyncio.run(Staples(inventory, tokens=unreadable).answer(request, b"/staples/t-sub@1"))
    assert answer.status == 503 and b"secret" not in answer.body
    monkeypatch.setattr(Inventory, "find_ca", away)
    answer = asyncio.run(Staples(inventory, tokens=lambda: [TOKEN]).answer(request, b"/staples/t-sub@1"))
    assert answer.status == 503 and b"secret" not in answer.body
