"""Tests of the responder over real sockets, on both databases."""

from __future__ import annotations

import base64
import time
from datetime import datetime, timedelta
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509 import ocsp as foreign

from chargepki.pki import der
from chargepki.pki.authority import Authority, IssueOrder, batch
from chargepki.pki.authority.ocsp import OcspAuthority
from chargepki.pki.errors import UnavailableError
from chargepki.pki.inventory import Inventory, Transaction
from chargepki.pki.inventory.records import CaState
from chargepki.pki.ocsp import build_single_request
from chargepki.pki.services.probe import check_ocsp_response
from testkit.authorities import ACTOR, make_csr
from testkit.pki_server import Answer, cert_id_of, live_server, live_signers, ocsp_request

GOOD, REVOKED, UNKNOWN = foreign.OCSPCertStatus.GOOD, foreign.OCSPCertStatus.REVOKED, foreign.OCSPCertStatus.UNKNOWN
Status = foreign.OCSPResponseStatus
on_both = pytest.mark.parametrize("inventory", ["sqlite", "postgresql"], indirect=True)


def read(answer: Answer) -> foreign.OCSPResponse:
    assert answer.status == 200 and answer.headers["content-type"] == "application/ocsp-response"
    return foreign.load_der_ocsp_response(answer.body)


@on_both
def test_post_and_get_give_the_same_prepared_answer(inventory: Inventory, leaf: str) -> None:
    request = ocsp_request(inventory, leaf)
    with live_server(inventory) as server:
        posted = server.ocsp(request)
        encoded = base64.b64encode(request).decode()
        got = [server.ask("GET", f"/ocsp/{path}") for path in (quote(encoded, safe=""), encoded, encoded.rstrip("="))]
        again = server.ocsp(request)
    assert read(posted).certificate_status is GOOD
    assert {answer.body for answer in got} == {posted.body, again.body}
    assert server.site.tally.ocsp["good", "memory"] >= 1


def test_rfc5019_caching_headers(inventory: Inventory, leaf: str) -> None:
    path = "/ocsp/" + quote(base64.b64encode(ocsp_request(inventory, leaf)).decode(), safe="")
    with live_server(inventory) as server:
        answer = server.ask("GET", path)
        tag = answer.headers["etag"]
        unchanged = server.ask("GET", path, headers={"If-None-Match": tag})
        changed = server.ask("GET", path, headers={"If-None-Match": '"other"'})
        head = server.ask("HEAD", path)
    response = read(answer)
    assert response.next_update_utc is not None
    form = "%a, %d %b %Y %H:%M:%S GMT"
    assert answer.headers["expires"] == response.next_update_utc.strftime(form)
    assert answer.headers["last-modified"] == response.this_update_utc.strftime(form)
    assert answer.headers["cache-control"] == "max-age=3600, public, no-transform, must-revalidate"
    assert (unchanged.status, unchanged.body, unchanged.headers["etag"]) == (304, b"", tag)
    assert changed.body == answer.body
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", str(len(answer.body)))


@pytest.mark.parametrize("hash_name", ["sha1", "sha256", "sha384", "sha512"])
def test_every_hash_that_ocpp_and_rfc6960_know_is_answered(
    inventory: Inventory, authority: Authority, leaf: str, hash_name: str
) -> None:
    with live_server(inventory, signers=live_signers(authority)) as server:
        response = read(server.ocsp(ocsp_request(inventory, leaf, hash_name=hash_name)))
    assert response.certificate_status is GOOD
    assert response.hash_algorithm.name == hash_name


def test_rfc9654_a_nonce_is_echoed_in_a_live_answer(inventory: Inventory, authority: Authority, leaf: str) -> None:
    with live_server(inventory, signers=live_signers(authority)) as server:
        for nonce in (b"n", b"n" * 128, b"m" * 128, b"o" * 128, b"p"):
            answer = server.ocsp(ocsp_request(inventory, leaf, nonce=nonce))
            response = read(answer)
            assert response.extensions.get_extension_for_class(x509.OCSPNonce).value.nonce == nonce
            assert answer.headers["cache-control"] == "no-store"
            record, ca = inventory.get_certificate(leaf), inventory.get_ca("t-sub")
            assert record.der is not None and ca.certificate_der is not None
            check_ocsp_response(answer.body, record.der, ca.certificate_der, authority.now(), is_revoked=False)


def test_without_keys_a_nonce_is_passed_over(inventory: Inventory, leaf: str) -> None:
    with live_server(inventory) as server:
        response = read(server.ocsp(ocsp_request(inventory, leaf, nonce=b"n" * 32)))
    assert response.certificate_status is GOOD and len(response.extensions) == 0


def test_a_serial_that_was_never_issued_is_unknown(inventory: Inventory, authority: Authority, leaf: str) -> None:
    request = build_single_request(cert_id_of(inventory.get_ca("t-sub"), 0x1234))
    with live_server(inventory, signers=live_signers(authority)) as server:
        assert read(server.ocsp(request)).certificate_status is UNKNOWN
    with live_server(inventory) as server:
        assert read(server.ocsp(request)).response_status is Status.UNAUTHORIZED


def test_p04_a_serial_whose_certificate_could_not_be_stored_is_known_and_never_good(
    inventory: Inventory, authority: Authority, leaf: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def store_is_gone(*_: object, **__: object) -> None:
        raise UnavailableError("the inventory is gone")

    order = IssueOrder(ca="t-sub", profile="ocpp/charging-station", csr=make_csr("CS-LOST"))
    with monkeypatch.context() as patch:
        patch.setattr(batch, "finish", store_is_gone)
        with pytest.raises(UnavailableError):
            authority.issue(order)
    (reserved,) = inventory.list_reserved()
    with live_server(inventory, signers=live_signers(authority)) as server:
        request = build_single_request(cert_id_of(inventory.get_ca("t-sub"), int(reserved.serial, 16)))
        assert read(server.ocsp(request)).certificate_status is UNKNOWN
        assert authority.issue(order).record.serial == reserved.serial
        assert read(server.ocsp(request)).certificate_status is GOOD


def test_ca_certificates_are_answered_for_the_root_s_own_too(
    inventory: Inventory, authority: Authority, leaf: str
) -> None:
    with live_server(inventory, signers=live_signers(authority)) as server:
        for record in list(inventory.list_certificates(ca="t-root@1")):
            assert read(server.ocsp(ocsp_request(inventory, record))).certificate_status is GOOD, record.subject


def test_several_certificates_of_one_ca_are_answered_together(
    inventory: Inventory, authority: Authority, leaf: str
) -> None:
    ca = inventory.get_ca("t-sub")
    ids = [cert_id_of(ca, int(inventory.get_certificate(leaf).serial, 16)), cert_id_of(ca, 0x99, "sha256")]
    request = der.sequence(der.sequence(der.sequence(*[der.sequence(each) for each in ids])))
    with live_server(inventory, signers=live_signers(authority)) as server:
        response = read(server.ocsp(request))
    assert [single.certificate_status for single in response.responses] == [GOOD, UNKNOWN]
    assert [type(single.hash_algorithm) for single in response.responses] == [hashes.SHA1, hashes.SHA256]


def test_certificates_of_several_cas_in_one_request_have_no_common_signer(
    inventory: Inventory, authority: Authority, leaf: str
) -> None:
    ids = [cert_id_of(inventory.get_ca(name), 5) for name in ("t-sub", "t-root")]
    request = der.sequence(der.sequence(der.sequence(*[der.sequence(each) for each in ids])))
    with live_server(inventory, signers=live_signers(authority)) as server:
        assert read(server.ocsp(request)).response_status is Status.UNAUTHORIZED


def test_an_issuer_that_is_not_ours_is_unauthorized(inventory: Inventory, authority: Authority, leaf: str) -> None:
    request = foreign.OCSPRequestBuilder().add_certificate_by_hash(b"n" * 20, b"k" * 20, 5, hashes.SHA1()).build()
    from cryptography.hazmat.primitives.serialization import Encoding

    with live_server(inventory, signers=live_signers(authority)) as server:
        assert read(server.ocsp(request.public_bytes(Encoding.DER))).response_status is Status.UNAUTHORIZED


@pytest.mark.parametrize(
    "body", [b"", b"x", b"0" * 100, b"0\x03\x0a\x01\x00", b"\x30\x84\xff\xff\xff\xff", b"z" * 20_000]
)
def test_what_is_no_request_is_malformed_and_never_a_500(inventory: Inventory, leaf: str, body: bytes) -> None:
    with live_server(inventory) as server:
        assert read(server.ocsp(body)).response_status is Status.MALFORMED_REQUEST
        path = "/ocsp/" + quote(base64.b64encode(body[:3000]).decode(), safe="")
        assert read(server.ask("GET", path)).response_status is Status.MALFORMED_REQUEST
        assert read(server.ask("GET", "/ocsp/%%%")).response_status is Status.MALFORMED_REQUEST


@on_both
def test_a_revocation_is_answered_from_the_moment_it_is_acknowledged(
    inventory: Inventory, authority: Authority, leaf: str
) -> None:
    request = ocsp_request(inventory, leaf)
    with live_server(inventory, signers=live_signers(authority)) as server:
        for _ in range(3):
            assert read(server.ocsp(request)).certificate_status is GOOD
        for nonce in (b"a" * 16, b"b" * 16):
            assert read(server.ocsp(ocsp_request(inventory, leaf, nonce=nonce))).certificate_status is GOOD
        authority.revoke(leaf, "keyCompromise")
        response = read(server.ocsp(request))
        assert response.certificate_status is REVOKED
        again = read(server.ocsp(ocsp_request(inventory, leaf, nonce=b"c" * 16)))
        assert again.certificate_status is REVOKED
        assert response.revocation_reason is x509.ReasonFlags.key_compromise


@on_both
def test_without_keys_a_revocation_silences_the_old_answer_until_a_new_one_is_signed(
    inventory: Inventory, authority: Authority, leaf: str
) -> None:
    request = ocsp_request(inventory, leaf)
    with live_server(inventory) as server:
        assert read(server.ocsp(request)).certificate_status is GOOD
        authority.revoke(leaf, "superseded")
        assert read(server.ocsp(request)).response_status is Status.TRY_LATER
        OcspAuthority(authority).presign(inventory.get_ca("t-sub"))
        assert read(server.ocsp(request)).certificate_status is REVOKED


def test_a_hold_and_its_release_are_visible(inventory: Inventory, authority: Authority, leaf: str) -> None:
    with live_server(inventory, signers=live_signers(authority)) as server:
        authority.revoke(leaf, "certificateHold")
        response = read(server.ocsp(ocsp_request(inventory, leaf)))
        assert response.revocation_reason is x509.ReasonFlags.certificate_hold
        authority.release(leaf)
        assert read(server.ocsp(ocsp_request(inventory, leaf))).certificate_status is GOOD


@on_both
def test_a_revoked_ca_is_answered_for_no_more(inventory: Inventory, authority: Authority, leaf: str) -> None:
    request = ocsp_request(inventory, leaf)
    above = next(
        c for c in inventory.list_certificates(ca="t-root@1") if c.der == inventory.get_ca("t-sub").certificate_der
    )
    with live_server(inventory, signers=live_signers(authority)) as server:
        assert read(server.ocsp(request)).certificate_status is GOOD
        authority.revoke(above.id, "cACompromise")
        assert read(server.ocsp(request)).response_status is Status.UNAUTHORIZED
        assert read(server.ocsp(ocsp_request(inventory, above))).certificate_status is REVOKED


@on_both
def test_a_new_ca_and_certificate_are_answered_for_at_once(
    inventory: Inventory, authority: Authority, leaf: str
) -> None:
    with live_server(inventory, signers=live_signers(authority)) as server:
        read(server.ocsp(ocsp_request(inventory, leaf)))
        order = IssueOrder(ca="t-sub", profile="ocpp/charging-station", csr=make_csr("CS-2"))
        new = authority.issue(order).record.id
        assert read(server.ocsp(ocsp_request(inventory, new))).certificate_status is GOOD


def test_an_expired_answer_is_not_given(
    inventory: Inventory, authority: Authority, leaf: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = timedelta(days=7, seconds=1)
    request = ocsp_request(inventory, leaf)

    def clock() -> datetime:
        return authority.now() + later

    with live_server(inventory, clock=clock) as server:
        assert read(server.ocsp(request)).response_status is Status.TRY_LATER
    with live_server(inventory) as server:
        assert read(server.ocsp(request)).certificate_status is GOOD
        real = time.time
        monkeypatch.setattr("chargepki.pki.services.ocsp_memory.time.time", lambda: real() + later.total_seconds())
        server.site.responder._clock = clock
        assert read(server.ocsp(request)).response_status is Status.TRY_LATER


@on_both
def test_preloaded_answers_outlast_the_inventory(
    inventory: Inventory, authority: Authority, leaf: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import asyncio

    request = ocsp_request(inventory, leaf)
    with live_server(inventory) as server:
        server.ask("GET", "/ca/t-sub@1.cer")
        read(server.ocsp(ocsp_request(inventory, leaf, hash_name="sha256")))
        taken = asyncio.run_coroutine_threadsafe(server.site.responder.preload(), server.loop).result(10)
        assert taken > 0
        # From the first look on; until then nothing in memory is certain.
        server.until(lambda: server.site.gate._reliance.holds)

        def gone(*_: object) -> object:
            from chargepki.pki.errors import UnavailableError

            raise UnavailableError("gone")

        monkeypatch.setattr(server.site.gate._mark, "read", gone)  # the database goes away
        monkeypatch.setattr(server.site.responder, "_inventory", None)  # and may not be asked
        assert read(server.ocsp(request)).certificate_status is GOOD
        stale = read(server.ocsp(ocsp_request(inventory, leaf, nonce=b"n" * 16)))
        assert stale.certificate_status is GOOD and len(stale.extensions) == 0  # nothing is signed unconfirmed
        never = build_single_request(cert_id_of(inventory.get_ca("t-sub"), 0x77))
        assert read(server.ocsp(never)).response_status is Status.TRY_LATER
        assert server.ask("GET", "/ca/t-sub@1.cer").status == 200
        assert server.ask("GET", "/ca/t-root@1.cer").status == 503


def test_what_changed_is_read_again_before_anybody_asks(
    inventory: Inventory, authority: Authority, leaf: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import asyncio

    with live_server(inventory) as server:
        site = server.site

        def keep_up() -> tuple[int, int]:
            async def work() -> tuple[int, int]:
                await site.gate.pass_through()
                return await site.responder.refill(), await site.artefacts.refill()

            return asyncio.run_coroutine_threadsafe(work(), server.loop).result(10)

        assert keep_up() == (0, 4)  # two certificates and two lists
        order = IssueOrder(ca="t-sub", profile="ocpp/charging-station", csr=make_csr("CS-2"))
        new = authority.issue(order).record.id
        assert keep_up() == (0, 0)
        OcspAuthority(authority).presign(inventory.get_ca("t-sub"))
        assert (keep_up()[0], keep_up()) == (2, (0, 0))
        authority.revoke(new, "superseded")
        authority.publish_crl("t-sub")
        assert keep_up() == (0, 2)
        OcspAuthority(authority).presign(inventory.get_ca("t-sub"))
        keep_up()

        def gone() -> tuple[int, int]:
            raise UnavailableError("gone")

        monkeypatch.setattr(site.gate._mark, "read", gone)  # the database goes away
        for each in (site.responder, site.artefacts):
            monkeypatch.setattr(each, "_inventory", None)  # and may not be asked
        assert read(server.ocsp(ocsp_request(inventory, new))).certificate_status is REVOKED
        assert int(new.partition(":")[2], 16) in listed(server.ask("GET", "/crl/t-sub@1.crl").body)


def listed(crl: bytes) -> list[int]:
    return [entry.serial_number for entry in x509.load_der_x509_crl(crl)]


def test_no_cache_may_keep_an_answer_or_a_list_longer_than_it_is_valid(
    inventory: Inventory, authority: Authority, leaf: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = ocsp_request(inventory, leaf)
    with live_server(inventory) as server:
        read(server.ocsp(request))
        server.ask("GET", "/crl/t-sub@1.crl")
        real = time.time
        late = timedelta(days=7) - timedelta(minutes=2)
        monkeypatch.setattr("chargepki.pki.services.ocsp_memory.time.time", lambda: real() + late.total_seconds())
        for answer in (server.ocsp(request), server.ask("GET", "/crl/t-sub@1.crl")):
            assert answer.status == 200 and 0 < int(answer.headers["cache-control"].partition(",")[0][8:]) <= 120


def test_a_retired_ca_without_a_delegate_answers_from_what_is_prepared(
    inventory: Inventory, authority: Authority, leaf: str
) -> None:
    def retire(tx: Transaction) -> None:
        tx.update_ca("t-sub@1", state=CaState.RETIRED)
        tx.audit(ACTOR, "ca.retire", "t-sub@1", now=authority.now())

    inventory.write(retire)
    with live_server(inventory, signers=lambda _: None) as server:
        assert read(server.ocsp(ocsp_request(inventory, leaf, nonce=b"n" * 16))).certificate_status is GOOD
