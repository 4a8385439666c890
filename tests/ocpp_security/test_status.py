"""The status gateway: only verified answers leave it, fresh ones are cached, and our own CAs answer at once."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from ocpp.v16 import call as call16
from ocpp.v21 import call as call21
from ocpp.v201 import call as call201

from chargepki.ocpp_security.csms.offload import Offload
from chargepki.ocpp_security.fetch import Fetcher, FetchPolicy
from chargepki.ocpp_security.pnc_transfer import read_transfer_answer, wrap
from chargepki.ocpp_security.status import CertificateWord, StatusGateway, StatusResult, StatusSource
from chargepki.pki.authority.ocsp import OcspAuthority
from chargepki.pki.errors import UnavailableError
from chargepki.pki.hashdata import CertificateHashData
from chargepki.pki.ocsp import parse_ocsp_request
from testkit.chains import AT, DAY, Made, make
from testkit.csms_rig import PASSWORD, Rig, run_on
from testkit.ocpp_peers import foreign_station

ROOT = make("V2G Root CA", nth=1)
OTHER = make("Other CA", nth=2)
SUB = make("Sub CA", ROOT, nth=3)
EKU = x509.ExtendedKeyUsage([x509.ObjectIdentifier("1.3.6.1.5.5.7.3.9")])
DELEGATE = make("responder", ROOT, nth=4, extensions=[(EKU, False), (x509.OCSPNoCheck(), False)])
UNCHECKED = make("unchecked", ROOT, nth=5, extensions=[(EKU, False)])
NO_DELEGATE = make("no delegate", ROOT, nth=6, extensions=[(x509.OCSPNoCheck(), False)])
URL = "http://ocsp.example/"
WIRE = CertificateHashData.of(SUB.der, ROOT.der).to_wire()


def respond(
    request: bytes | None = None,
    *,
    signer: Made = ROOT,
    about: Made = SUB,
    issuer: Made = ROOT,
    status: ocsp.OCSPCertStatus = ocsp.OCSPCertStatus.GOOD,
    since: datetime = AT,
    until: datetime | None = AT + DAY,
    include: bool = True,
) -> bytes:
    """Answer as a responder of somebody else does, made with `cryptography` alone."""
    name = "sha256" if request is None else parse_ocsp_request(request).cert_ids[0].hash_name
    algorithm = hashes.SHA1() if name == "sha1" else hashes.SHA256()
    revoked = status is ocsp.OCSPCertStatus.REVOKED
    builder = ocsp.OCSPResponseBuilder().add_response(
        about.certificate, issuer.certificate, algorithm, status, since, until, AT if revoked else None, None
    )
    builder = builder.responder_id(ocsp.OCSPResponderEncoding.HASH, signer.certificate)
    if include and signer is not issuer:
        builder = builder.certificates([signer.certificate])
    assert isinstance(signer.key, ec.EllipticCurvePrivateKey)
    return builder.sign(signer.key, hashes.SHA256()).public_bytes(Encoding.DER)


class Answers(Fetcher):
    """A fetcher whose answers a test gives; what may be asked at all is the real one's business."""

    def __init__(self, *answers: bytes | Exception) -> None:
        super().__init__(FetchPolicy())
        self.answers, self.asked = list(answers), 0

    async def fetch(self, url: str, *, body: bytes | None = None, content_type: str = "", accept: str = "") -> bytes:
        self.asked += 1
        self.request, self.content_type = body, content_type
        await asyncio.sleep(0)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with Rig(tmp_path_factory.mktemp("status")) as opened:
        yield opened


@pytest.fixture(scope="module")
def offload() -> Iterator[Offload]:
    made = Offload(threads=2)
    yield made
    made.close()


class Asked:
    """A gateway with a clock that a test moves."""

    def __init__(self, rig: Rig, offload: Offload, fetcher: Fetcher, issuers: Sequence[Made] = (ROOT,)) -> None:
        self.now = AT
        encoded = [each.der for each in issuers]
        self.gateway = StatusGateway(rig.inventory, offload, fetcher, issuers=encoded, clock=lambda: self.now)

    def ask(
        self,
        wire: Mapping[str, str] = WIRE,
        source: StatusSource = StatusSource.OCSP,
        urls: Sequence[str] = (URL,),
        times: int = 1,
    ) -> StatusResult:
        async def story() -> StatusResult:
            return (await asyncio.gather(*(self.gateway.ask(wire, urls, source) for _ in range(times))))[0]

        return asyncio.run(story())


@pytest.mark.parametrize("signer", [ROOT, DELEGATE], ids=["issuer", "delegate"])
@pytest.mark.parametrize(
    ("status", "word"),
    [
        (ocsp.OCSPCertStatus.GOOD, CertificateWord.GOOD),
        (ocsp.OCSPCertStatus.REVOKED, CertificateWord.REVOKED),
        (ocsp.OCSPCertStatus.UNKNOWN, CertificateWord.UNKNOWN),
    ],
)
def test_a_verified_answer_is_passed_on_unchanged(
    rig: Rig, offload: Offload, signer: Made, status: ocsp.OCSPCertStatus, word: CertificateWord
) -> None:
    """M06.FR.02, FR.03, FR.08; M07.FR.01, FR.03: what the responder says, whatever it is."""
    answer = respond(signer=signer, status=status)
    fetcher = Answers(answer)
    assert Asked(rig, offload, fetcher).ask() == StatusResult(word, AT + DAY, answer)
    assert fetcher.content_type == "application/ocsp-request"  # RFC 6960 A.1: without it responders refuse


BAD = {
    "another signer": respond(signer=OTHER),
    "a signer that is not included": respond(signer=DELEGATE, include=False),
    "a delegate that may not": respond(signer=NO_DELEGATE),
    "a delegate without ocspNoCheck": respond(signer=UNCHECKED),
    "another serial number": respond(about=make("Sub CA", ROOT, nth=3)),
    "another issuer": respond(signer=OTHER, about=make("Sub CA", OTHER, nth=3), issuer=OTHER),
    "the past": respond(since=AT - 3 * DAY, until=AT - DAY),
    "the future": respond(since=AT + DAY, until=AT + 2 * DAY),
    "older than a week, without an end": respond(since=AT - 8 * DAY, until=None),
    "an error": ocsp.OCSPResponseBuilder.build_unsuccessful(ocsp.OCSPResponseStatus.UNAUTHORIZED).public_bytes(
        Encoding.DER
    ),
    "no response": b"junk",
    "nothing": b"",
}


@pytest.mark.parametrize("answer", BAD.values(), ids=BAD)
def test_what_cannot_be_verified_is_a_failure(rig: Rig, offload: Offload, answer: bytes) -> None:
    """M06.FR.04, M07.FR.02; ocpp-security 5.3."""
    result = Asked(rig, offload, Answers(answer)).ask()
    assert (result.word, result.der) == (CertificateWord.FAILED, None)
    assert result.why


def test_changed_octets_of_an_answer_are_a_failure(rig: Rig, offload: Offload) -> None:
    """What is signed cannot be changed, wherever the change is."""
    answer = respond(signer=DELEGATE)
    tbs = ocsp.load_der_ocsp_response(answer).tbs_response_bytes
    start = answer.index(tbs)
    for at in range(start, start + len(tbs), 7):
        changed = bytearray(answer)
        changed[at] ^= 1
        assert Asked(rig, offload, Answers(bytes(changed))).ask().word is CertificateWord.FAILED, at


def test_an_answer_is_cached_until_its_next_update_and_for_a_week_at_most(rig: Rig, offload: Offload) -> None:
    """M06.FR.10, M07.FR.09 to FR.11; one question for many stations."""
    fetcher = Answers(respond(until=AT + 30 * DAY))
    asked = Asked(rig, offload, fetcher)
    assert asked.ask(times=20).word is CertificateWord.GOOD
    upper = {name: text.upper() for name, text in WIRE.items()}
    asked.ask(upper)
    assert fetcher.asked == 1
    asked.now = AT + 7 * DAY
    assert (asked.ask().word, fetcher.asked) == (CertificateWord.GOOD, 2)
    asked.now = AT + 30 * DAY + timedelta(seconds=1)
    # It would go on answering with what has run out.
    assert asked.ask().word is CertificateWord.FAILED


def test_a_failure_is_remembered_for_seconds_and_replaces_no_good_answer(rig: Rig, offload: Offload) -> None:
    fetcher = Answers(UnavailableError("away"), respond(), b"junk", respond(since=AT + DAY, until=AT + 2 * DAY))
    asked = Asked(rig, offload, fetcher)
    assert [asked.ask().word for _ in range(3)] == [CertificateWord.FAILED] * 3
    assert fetcher.asked == 1
    asked.now += timedelta(seconds=31)
    assert asked.ask().word is CertificateWord.GOOD
    asked.now = AT + DAY + timedelta(seconds=1)
    assert asked.ask().word is CertificateWord.GOOD  # junk to SHA-256, then an answer to SHA-1


def test_an_old_responder_is_asked_by_sha1(rig: Rig, offload: Offload) -> None:
    """ocpp-security 5.3, row 7."""

    class Old(Answers):
        async def fetch(self, url: str, *, body: bytes | None = None, **_: Any) -> bytes:
            assert body is not None
            known = parse_ocsp_request(body).cert_ids[0].hash_name == "sha1"
            return respond(body, status=ocsp.OCSPCertStatus.GOOD if known else ocsp.OCSPCertStatus.UNKNOWN)

    assert Asked(rig, offload, Old(b"")).ask().word is CertificateWord.GOOD


def test_without_the_issuer_nobody_is_asked(rig: Rig, offload: Offload) -> None:
    fetcher = Answers(respond())
    result = Asked(rig, offload, fetcher, ()).ask()
    assert (result.word, fetcher.asked) == (CertificateWord.FAILED, 0)
    assert "issuer is not known" in result.why


@pytest.mark.parametrize("change", [{"serialNumber": "xyz"}, {"issuerKeyHash": "aa"}, {"hashAlgorithm": "MD5"}])
def test_hash_data_that_are_none_fail(rig: Rig, offload: Offload, change: dict[str, str]) -> None:
    assert Asked(rig, offload, Answers(b"")).ask({**WIRE, **change}).word is CertificateWord.FAILED


def crl(
    issuer: Made = ROOT, *, revoked: Made | None = None, until: datetime = AT + DAY, key: Made | None = None
) -> bytes:
    builder = x509.CertificateRevocationListBuilder(issuer.certificate.subject, AT - DAY, until)
    if revoked is not None:
        serial = revoked.certificate.serial_number
        builder = builder.add_revoked_certificate(x509.RevokedCertificateBuilder(serial, AT - DAY).build())
    signer = (key or issuer).key
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    return builder.sign(signer, hashes.SHA256()).public_bytes(Encoding.DER)


def test_a_crl_answers_for_what_is_on_it_and_what_is_not(rig: Rig, offload: Offload) -> None:
    """M07.FR.04 to FR.07."""
    for octets, word in (
        (crl(), CertificateWord.GOOD),
        (crl(revoked=SUB), CertificateWord.REVOKED),
        (crl(until=AT - timedelta(seconds=1)), CertificateWord.FAILED),
        (crl(OTHER), CertificateWord.FAILED),
        (crl(key=OTHER), CertificateWord.FAILED),
        (b"junk", CertificateWord.FAILED),
    ):
        result = Asked(rig, offload, Answers(octets)).ask(source=StatusSource.CRL)
        assert (result.word, result.der) == (word, None)


def test_our_own_cas_answer_in_process_and_a_revocation_shows_at_once(rig: Rig, offload: Offload) -> None:
    _, certificate = rig.credential(None)
    record = rig.inventory.get_certificate(certificate)
    assert record.der is not None
    wire = CertificateHashData.of(record.der, rig.sub_der).to_wire()
    fetcher = Answers(UnavailableError("nobody is asked"))
    now = datetime.now(AT.tzinfo)
    gateway = StatusGateway(
        rig.inventory, offload, fetcher, signers=OcspAuthority(rig.authority), clock=lambda: now.replace(microsecond=0)
    )

    def ask(which: StatusGateway) -> StatusResult:
        return asyncio.run(which.ask(wire, [URL]))

    assert ask(gateway).word is CertificateWord.GOOD
    # Without a key only a prepared answer is given.
    keyless = StatusGateway(rig.inventory, offload, fetcher, clock=lambda: now)
    assert "no prepared OCSP answer" in ask(keyless).why
    OcspAuthority(rig.authority).presign(rig.inventory.get_ca("t-cso-sub"))
    now = datetime.now(AT.tzinfo) + timedelta(seconds=1)
    assert ask(keyless).word is CertificateWord.GOOD
    rig.authority.revoke(certificate, "keyCompromise")
    assert ask(gateway).word is CertificateWord.REVOKED
    # The prepared answer that says otherwise is gone with the revocation.
    assert ask(keyless).word is CertificateWord.FAILED
    sets = asyncio.run(gateway.stapling_set([(record.der, rig.sub_der, URL), (rig.sub_der, rig.root_der, URL)]))
    assert [each.word for each in sets] == [CertificateWord.REVOKED, CertificateWord.GOOD]
    assert fetcher.asked == 0


@pytest.mark.parametrize("version", ["ocpp1.6", "ocpp2.0.1", "ocpp2.1"])
def test_a_foreign_station_gets_the_status_of_a_certificate(rig: Rig, version: str) -> None:
    """M06.FR.01 to FR.04, FR.09; TC_M_24_CSMS; in 1.6 by the DataTransfer of Plug & Charge."""
    rig.add_station(f"STATUS-{version}")
    wire = CertificateHashData.of(rig.sub_der, rig.root_der).to_wire()
    names = dict(
        zip(("hash_algorithm", "issuer_name_hash", "issuer_key_hash", "serial_number"), wire.values(), strict=True)
    )

    async def ask(peer: Any, serial: str) -> tuple[str, str | None]:
        question = {**names, "serial_number": serial, "responder_url": "http://169.254.169.254/"}
        if version == "ocpp1.6":
            request = {"ocspRequestData": {**wire, "serialNumber": serial, "responderURL": question["responder_url"]}}
            told = await peer.call(call16.DataTransfer(**_snake(wrap("GetCertificateStatus", request))), suppress=False)
            answer = read_transfer_answer("GetCertificateStatus", {"status": told.status, "data": told.data})
            assert answer is not None
            return answer["status"], answer.get("ocspResult")
        module: Any = call201 if version == "ocpp2.0.1" else call21
        told = await peer.call(module.GetCertificateStatus(ocsp_request_data=question), suppress=False)
        return told.status, told.ocsp_result

    async def story() -> None:
        async with rig.server(2, ocsp_signers=OcspAuthority(rig.authority)) as server:
            identity, tls = f"STATUS-{version}", rig.client_tls()
            async with foreign_station(rig.url_of(server), identity, version, password=PASSWORD, tls=tls) as peer:
                status, text = await ask(peer.charge_point, wire["serialNumber"])
                assert status == "Accepted"
                assert text is not None
                response = ocsp.load_der_ocsp_response(base64.b64decode(text, validate=True))
                assert response.certificate_status is ocsp.OCSPCertStatus.GOOD
                # Accepted says nothing about the certificate: this one never was.
                status, text = await ask(peer.charge_point, "1")
                assert status == "Accepted"
                response = ocsp.load_der_ocsp_response(base64.b64decode(text or ""))
                assert response.certificate_status is ocsp.OCSPCertStatus.UNKNOWN

    run_on("asyncio", story())


def test_a_csms_without_keys_hands_a_station_the_very_response_that_was_prepared(rig: Rig) -> None:
    """M06.FR.01: what a station staples comes from `serve`, by way of a CSMS that can sign nothing."""
    rig.add_station("STAPLES")
    OcspAuthority(rig.authority).presign(rig.inventory.get_ca("t-cso-root"))
    wire = CertificateHashData.of(rig.sub_der, rig.root_der).to_wire()
    names = ("hash_algorithm", "issuer_name_hash", "issuer_key_hash", "serial_number")
    question = {**dict(zip(names, wire.values(), strict=True)), "responder_url": "http://169.254.169.254/"}

    async def story() -> None:
        async with (
            rig.server(2) as server,
            foreign_station(
                rig.url_of(server), "STAPLES", "ocpp2.0.1", password=PASSWORD, tls=rig.client_tls()
            ) as peer,
        ):
            told = await peer.charge_point.call(
                call201.GetCertificateStatus(ocsp_request_data=question), suppress=False
            )
            prepared = {
                record.der
                for record in rig.inventory.list_ocsp_responses_of("t-cso-root@1", wire["hashAlgorithm"].lower())
            }
            assert told.status == "Accepted" and base64.b64decode(told.ocsp_result) in prepared

    run_on("asyncio", story())


def _snake(transfer: Mapping[str, Any]) -> dict[str, Any]:
    return {"vendor_id": transfer["vendorId"], "message_id": transfer["messageId"], "data": transfer["data"]}


def test_a_foreign_station_gets_the_status_of_a_chain(rig: Rig) -> None:
    """M07.FR.02, FR.03, FR.08: one answer with every certificate; what may not be asked has Failed."""
    rig.add_station("CHAIN")
    ours, others = CertificateHashData.of(rig.sub_der, rig.root_der).to_wire(), WIRE
    keys = ("hash_algorithm", "issuer_name_hash", "issuer_key_hash", "serial_number")

    async def story() -> None:
        async with rig.server(2, ocsp_signers=OcspAuthority(rig.authority), status_issuers=(ROOT.der,)) as server:
            tls = rig.client_tls()
            async with foreign_station(rig.url_of(server), "CHAIN", "ocpp2.1", password=PASSWORD, tls=tls) as peer:
                requests = [
                    {
                        "certificate_hash_data": dict(zip(keys, wire.values(), strict=True)),
                        "source": source,
                        "urls": ["http://127.0.0.1/"],
                    }
                    for wire, source in ((ours, "OCSP"), (others, "OCSP"), (others, "CRL"))
                ]
                request = call21.GetCertificateChainStatus(certificate_status_requests=requests)
                told = await peer.charge_point.call(request, suppress=False)
                assert [each["status"] for each in told.certificate_status] == ["Good", "Failed", "Failed"]
                assert all(each["next_update"] for each in told.certificate_status)

    run_on("asyncio", story())
