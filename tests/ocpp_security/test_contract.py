"""Authorize with a contract certificate: every row of the decision table, and the facts that lead to it."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import ocsp
from cryptography.x509.oid import AuthorityInformationAccessOID
from ocpp.routing import on
from ocpp.v16 import call as call16
from ocpp.v21 import call as call21
from ocpp.v21 import call_result as call_result21
from ocpp.v201 import call as call201
from ocpp.v201 import call_result as call_result201

from chargepki.ocpp_security.contract import (
    ChainFinding,
    ContractFacts,
    RevocationFinding,
    TokenStatus,
    decide,
)
from chargepki.ocpp_security.contract_check import ContractChecker, ContractTrust
from chargepki.ocpp_security.csms.offload import Offload
from chargepki.ocpp_security.fetch import Fetcher, FetchPolicy
from chargepki.ocpp_security.pnc_transfer import read_transfer_answer, wrap
from chargepki.ocpp_security.status import StatusGateway
from chargepki.pki.authority import Authority, IssueOrder
from chargepki.pki.authority.creation import CaOrder
from chargepki.pki.authority.ocsp import OcspAuthority
from chargepki.pki.hashdata import CertificateHashData
from chargepki.pki.inventory import Inventory
from chargepki.pki.ocsp import parse_ocsp_request
from chargepki.pki.pem import to_pem
from chargepki.pki.provisioning import RoleRoot, add_root, create_contract, revoke_contract, withdraw_root
from chargepki.pki.status_addresses import status_addresses
from testkit.authorities import ACTOR
from testkit.chains import AT, DAY, Made, make
from testkit.csms_rig import PASSWORD, Rig, run_on
from testkit.ocpp_peers import Credential, foreign_station
from testkit.own_csms import CLASSES, own_csms

# --- the table -------------------------------------------------------------------------------------------------------

CANCELLED = {TokenStatus.BLOCKED, TokenStatus.EXPIRED, TokenStatus.INVALID, TokenStatus.UNKNOWN}
C, R, T = ChainFinding, RevocationFinding, TokenStatus


def expected(
    chain: ChainFinding, revocation: RevocationFinding, same: bool, token: TokenStatus
) -> tuple[str | None, str]:
    """The rows of C07 as the standard states them, each on its own; the first that applies counts."""
    rows = [
        # C08.FR.01: nothing about certificates.
        (chain is C.ABSENT, None, token.value),
        # C07.FR.17: cannot be verified or is invalid.
        (chain is C.BROKEN, "CertChainError", "Invalid"),
        # C07.FR.16
        (revocation is R.REVOKED, "CertificateRevoked", "Invalid"),
        # C07.FR.15
        (chain is C.EXPIRED, "CertificateExpired", "Expired"),
        # C07.FR.05 and FR.17: the status SHALL be checked; what cannot be is not verified.
        (revocation is R.UNKNOWN, "CertChainError", "Invalid"),
        (not same, "CertChainError", "Invalid"),
        # C07.FR.13
        (token in CANCELLED, "ContractCancelled", token.value),
    ]
    # C07.FR.14: any other status.
    return next(((certificate, status) for applies, certificate, status in rows if applies), ("Accepted", token.value))


@pytest.mark.parametrize(
    "facts", list(itertools.product(C, R, [True, False], T)), ids=lambda row: "-".join(map(str, row))
)
def test_every_combination_has_the_answer_of_the_standard(
    facts: tuple[ChainFinding, RevocationFinding, bool, TokenStatus],
) -> None:
    chain, revocation, same, token = facts
    verdict = decide(ContractFacts(chain, revocation, is_same_contract=same, token=token))
    assert (verdict.certificate and verdict.certificate.value, verdict.token.value) == expected(*facts)
    assert "C0" in verdict.reason
    # A station charges only for a valid, unrevoked chain of this contract and an accepted token, or the token alone.
    wanted = token is T.ACCEPTED and (chain is C.ABSENT or (chain is C.VALID and revocation is R.GOOD and same))
    assert verdict.may_charge is wanted


# --- the facts -------------------------------------------------------------------------------------------------------

EMAID = "DEABC123456789"
URL = "http://mo.example/"
AIA = x509.AuthorityInformationAccess(
    [x509.AccessDescription(AuthorityInformationAccessOID.OCSP, x509.UniformResourceIdentifier(URL))]
)
MO = make("MO Root CA", nth=1)
SUB1 = make("MO Sub1 CA", MO, nth=2, extensions=[(AIA, False)])
SUB2 = make("MO Sub2 CA", SUB1, nth=3, extensions=[(AIA, False)])
CONTRACT = make(EMAID, SUB2, ca=False, nth=4, extensions=[(AIA, False)])
SHORT = make(EMAID, SUB2, ca=False, nth=4, end=AT - DAY / 2, extensions=[(AIA, False)])
FUTURE = make(EMAID, SUB2, ca=False, nth=4, start=AT + DAY / 2, extensions=[(AIA, False)])
NO_URL = make(EMAID, SUB2, ca=False, nth=4)
LIST_URL = "http://lists.mo.example/sub2.crl"
POINT = x509.DistributionPoint([x509.UniformResourceIdentifier(LIST_URL)], None, None, None)
LISTED = make(EMAID, SUB2, ca=False, nth=4, extensions=[(x509.CRLDistributionPoints([POINT]), False)])
STRANGER = make("Stranger CA", nth=5)
FOREIGN = make(EMAID, STRANGER, ca=False, nth=4)
CHAIN = {CONTRACT: SUB2, SUB2: SUB1, SUB1: MO, SHORT: SUB2}


class Responder(Fetcher):
    """The mobility operator's responder; `said` overrules good."""

    def __init__(self, now: datetime = AT, revocation_list: bytes = b"") -> None:
        super().__init__(FetchPolicy())
        self.revocation_list = revocation_list
        self.said: dict[int, ocsp.OCSPCertStatus] = {}
        self.now = now

    async def fetch(self, url: str, *, body: bytes | None = None, content_type: str = "", accept: str = "") -> bytes:
        if url == LIST_URL:
            return self.revocation_list
        assert (url, body is not None) == (URL, True)
        serial = parse_ocsp_request(body or b"").cert_ids[0].serial
        made, issuer = next(pair for pair in CHAIN.items() if pair[0].certificate.serial_number == serial)
        status = self.said.get(serial, ocsp.OCSPCertStatus.GOOD)
        revoked = self.now - DAY if status is ocsp.OCSPCertStatus.REVOKED else None
        builder = ocsp.OCSPResponseBuilder().add_response(
            made.certificate, issuer.certificate, hashes.SHA256(), status, self.now, self.now + DAY, revoked, None
        )
        builder = builder.responder_id(ocsp.OCSPResponderEncoding.NAME, issuer.certificate)
        assert isinstance(issuer.key, ec.EllipticCurvePrivateKey)
        return builder.sign(issuer.key, hashes.SHA256()).public_bytes(Encoding.DER)


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with Rig(tmp_path_factory.mktemp("contract")) as opened:
        yield opened


@pytest.fixture(scope="module")
def offload() -> Iterator[Offload]:
    made = Offload(threads=2)
    yield made
    made.close()


def pem(*made: Made) -> str:
    return "".join(to_pem("CERTIFICATE", each.der) for each in made)


def hashes_of(*made: Made) -> list[dict[str, str]]:
    return [{**CertificateHashData.of(each.der, CHAIN[each].der).to_wire(), "responderURL": URL} for each in made]


def answer(
    inventory: Inventory,
    offload: Offload,
    payload: Mapping[str, Any],
    *,
    revoked: Sequence[Made] = (),
    unknown: Sequence[Made] = (),
    anchors: Sequence[Made] = (MO,),
    intermediates: Sequence[Made] = (),
    emaid: str = EMAID,
    revocation_list: bytes = b"",
) -> tuple[str | None, str]:
    responder = Responder(revocation_list=revocation_list)
    responder.said = {each.certificate.serial_number: ocsp.OCSPCertStatus.REVOKED for each in revoked}
    responder.said |= {each.certificate.serial_number: ocsp.OCSPCertStatus.UNKNOWN for each in unknown}
    ders = [each.der for each in (*anchors, *intermediates)]
    gateway = StatusGateway(inventory, offload, responder, issuers=ders, clock=lambda: AT)
    trust = ContractTrust(
        anchors=tuple(each.der for each in anchors), intermediates=tuple(each.der for each in intermediates)
    )
    checker = ContractChecker(trust, inventory, gateway, offload, clock=lambda: AT)
    request = {"idToken": {"idToken": emaid, "type": "eMAID"}, **payload}
    verdict = decide(asyncio.run(checker.facts(request, TokenStatus.ACCEPTED)))
    return verdict.certificate and verdict.certificate.value, verdict.token.value


GOOD = ("Accepted", "Accepted")
REVOKED = ("CertificateRevoked", "Invalid")
BROKEN = ("CertChainError", "Invalid")
WHOLE = pem(CONTRACT, SUB2, SUB1)


@pytest.mark.parametrize(
    ("text", "options", "wanted"),
    [
        (WHOLE, {}, GOOD),
        (pem(CONTRACT, SUB1, SUB2, MO), {}, GOOD),
        (pem(CONTRACT), {"intermediates": [SUB1, SUB2]}, GOOD),
        (WHOLE.replace("\n", "\r\n"), {"emaid": "de-abc-123456789"}, GOOD),
        (WHOLE, {"emaid": "DEABC123456780"}, BROKEN),
        (WHOLE, {"emaid": "not an emaid"}, BROKEN),
        (WHOLE, {"revoked": [CONTRACT]}, ("CertificateRevoked", "Invalid")),
        (WHOLE, {"revoked": [SUB1]}, ("CertificateRevoked", "Invalid")),
        (WHOLE, {"unknown": [SUB2]}, BROKEN),
        (WHOLE, {"unknown": [SUB2], "revoked": [CONTRACT]}, ("CertificateRevoked", "Invalid")),
        (WHOLE, {"anchors": [STRANGER]}, BROKEN),
        (pem(CONTRACT, SUB2), {}, BROKEN),
        (pem(SHORT, SUB2, SUB1), {}, ("CertificateExpired", "Expired")),
        (pem(SHORT, SUB2, SUB1), {"revoked": [SHORT]}, ("CertificateRevoked", "Invalid")),
        (pem(SHORT, SUB2, SUB1), {"anchors": [STRANGER]}, BROKEN),
        (pem(FUTURE, SUB2, SUB1), {}, BROKEN),
        (pem(NO_URL, SUB2, SUB1), {}, BROKEN),
        (pem(FOREIGN, SUB2, SUB1), {}, BROKEN),
        (pem(SUB2, SUB1), {}, BROKEN),
        (pem(*[CONTRACT] * 9), {}, BROKEN),
        ("", {}, BROKEN),
        ("junk", {}, BROKEN),
        (WHOLE[:300], {}, BROKEN),
    ],
)  # fmt: skip
def test_a_chain_is_judged(
    rig: Rig, offload: Offload, text: str, options: dict[str, Any], wanted: tuple[str, str]
) -> None:
    """C07.FR.05, FR.06, FR.13 to FR.17; TC_C_52."""
    assert answer(rig.inventory, offload, {"certificate": text}, **options) == wanted


def list_of(issuer: Made = SUB2, *, revoked: Sequence[Made] = (), until: datetime = AT + DAY) -> bytes:
    builder = x509.CertificateRevocationListBuilder(issuer.certificate.subject, AT - DAY, until)
    for each in revoked:
        entry = x509.RevokedCertificateBuilder(each.certificate.serial_number, AT - DAY / 2)
        builder = builder.add_revoked_certificate(entry.build())
    assert isinstance(issuer.key, ec.EllipticCurvePrivateKey)
    return builder.sign(issuer.key, hashes.SHA256()).public_bytes(Encoding.DER)


@pytest.mark.parametrize(
    ("revocation_list", "wanted"),
    [
        (list_of(), GOOD),
        (list_of(revoked=[STRANGER]), GOOD),
        (list_of(revoked=[LISTED]), REVOKED),
        (list_of(until=AT - DAY / 4), BROKEN),
        (list_of(STRANGER), BROKEN),
        (b"", BROKEN),
    ],
    ids=["clean", "of others", "of it", "outdated", "of another CA", "none"],
)
def test_a_contract_without_a_responder_is_good_by_its_list_or_not_at_all(
    rig: Rig, offload: Offload, revocation_list: bytes, wanted: tuple[str, str]
) -> None:
    payload = {"certificate": pem(LISTED, SUB2, SUB1)}
    assert answer(rig.inventory, offload, payload, revocation_list=revocation_list) == wanted


@pytest.mark.parametrize(
    ("made", "options", "wanted"),
    [
        ([CONTRACT, SUB2, SUB1], {"intermediates": [SUB1, SUB2]}, GOOD),
        ([SUB1], {}, GOOD),
        ([CONTRACT, SUB2, SUB1], {}, BROKEN),
        ([CONTRACT, SUB2, SUB1], {"intermediates": [SUB1, SUB2], "anchors": [STRANGER]}, BROKEN),
        ([CONTRACT, SUB2, SUB1], {"intermediates": [SUB1, SUB2], "revoked": [SUB2]}, REVOKED),
        ([CONTRACT], {"intermediates": [SUB1, SUB2], "unknown": [CONTRACT]}, BROKEN),
    ],
)  # fmt: skip
def test_hash_data_are_judged_under_known_issuers_alone(
    rig: Rig, offload: Offload, made: list[Made], options: dict[str, Any], wanted: tuple[str, str]
) -> None:
    """C07.FR.02, FR.05, FR.16; TC_C_50, TC_C_51."""
    payload = {"iso15118CertificateHashData": hashes_of(*made)}
    assert answer(rig.inventory, offload, payload, **options) == wanted


def test_a_root_on_record_counts_while_it_is_trusted_and_for_its_use_alone(rig: Rig, offload: Offload) -> None:
    """Roots by role, each with its source and confirmation; nothing is given by configuration."""

    def judged() -> list[tuple[str | None, str]]:
        by_hash = {"iso15118CertificateHashData": hashes_of(SUB1)}
        return [answer(rig.inventory, offload, payload, anchors=()) for payload in ({"certificate": WHOLE}, by_hash)]

    digest = hashlib.sha256(MO.der).hexdigest()
    for use, wanted in (("oem", BROKEN), ("mo", GOOD)):
        assert judged() == [BROKEN, BROKEN]
        add_root(rig.inventory, RoleRoot(MO.der, use, digest, "a letter"), actor=ACTOR, now=AT)
        assert judged() == [wanted, wanted]
        withdraw_root(rig.inventory, digest, actor=ACTOR, now=AT)
    assert judged() == [BROKEN, BROKEN]


def test_the_life_of_our_own_contract_decides_about_its_emaid(rig: Rig, offload: Offload) -> None:
    account, ended, over = "DE8AAA1B2C3D4E", "DE8AAENDED0001", "DE8AAOVER00001"
    for emaid, ends_at in ((account, None), (ended, None), (over, AT + DAY / 2)):
        create_contract(rig.inventory, emaid, ends_at=ends_at, actor=ACTOR, now=AT - DAY)
    revoke_contract(rig.authority, ended, "cessationOfOperation")

    def said(text: str, kind: str = "eMAID", at: datetime = AT, **options: Any) -> TokenStatus:
        trust = ContractTrust(token_status=TokenStatus.NO_CREDIT, **options)
        gateway = StatusGateway(rig.inventory, offload, Responder(), clock=lambda: at)
        checker = ContractChecker(trust, rig.inventory, gateway, offload, clock=lambda: at)
        return asyncio.run(checker.token({"idToken": {"idToken": text, "type": kind}}))

    assert [said(each) for each in (account, ended, over)] == [T.ACCEPTED, T.BLOCKED, T.ACCEPTED]
    assert said(over, at=AT + DAY) is T.EXPIRED
    assert said("de-8aa-a1b2c3d4e", kind="emaid") is T.ACCEPTED
    # Another contract, no eMAID, another kind of token: configuration; and whoever is asked comes before the contract.
    assert [said("DE8AAOTHER0001"), said("junk"), said(account, kind="Central")] == [T.NO_CREDIT] * 3

    async def ask(_text: str, _kind: str) -> TokenStatus:
        return T.BLOCKED

    assert said(account, ask_token=ask) is T.BLOCKED


def test_with_both_the_certificates_count(rig: Rig, offload: Offload) -> None:
    """ocpp-security 12, row 40."""
    payload: dict[str, Any] = {
        "certificate": WHOLE,
        "iso15118CertificateHashData": [{**hashes_of(SUB1)[0], "serialNumber": "zz"}],
    }
    assert answer(rig.inventory, offload, payload) == GOOD
    assert (
        answer(rig.inventory, offload, {"iso15118CertificateHashData": payload["iso15118CertificateHashData"]})
        == BROKEN
    )


MESSAGE = {"format": "UTF8", "content": "hello"}

# --- over OCPP -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mobility(rig: Rig) -> tuple[bytes, str, str]:
    """A mobility operator of ours: its root, a contract's chain, and the id of the contract certificate."""
    issuer = None
    for name, profile in (("mo-root", "mo-root"), ("mo-sub1", "mo-sub1"), ("mo-sub2", "mo-sub2")):
        subject = (("CN", name), ("O", "MO"), ("C", "DE"))
        rig.authority.create_ca(CaOrder(name, f"iso15118-2/{profile}", issuer=issuer, subject=subject))
        issuer = name
    key = Credential().key.public_key()
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    order = IssueOrder(ca="mo-sub2", profile="iso15118-2/contract", spki=spki, subject=(("CN", EMAID), ("O", "MO")))
    issued = rig.authority.issue(order)
    root = rig.inventory.get_ca("mo-root").certificate_der
    assert root is not None
    chain = "".join(to_pem("CERTIFICATE", der) for der in issued.chain if der != root)
    return root, chain, issued.record.id


def test_a_contract_of_ours_without_any_pointer_is_good_by_the_inventory(
    rig: Rig, offload: Offload, mobility: tuple[bytes, str, str]
) -> None:
    """Who signs its status is at hand, so that it needs no address; where nobody signs, nothing proves it good."""
    silent = Authority(rig.inventory, rig.keystore, actor=ACTOR)  # without a public URL
    spki = Credential().key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    subject = (("CN", EMAID), ("O", "MO"))
    name = (("CN", "silent-sub2"), ("O", "MO"), ("C", "DE"))
    silent.create_ca(CaOrder("silent-sub2", "iso15118-2/mo-sub2", issuer="mo-sub1", subject=name))
    issued = silent.issue(IssueOrder(ca="silent-sub2", profile="iso15118-2/contract", spki=spki, subject=subject))
    assert status_addresses(issued.chain[0]) == ([], [])
    text = "".join(to_pem("CERTIFICATE", der) for der in issued.chain[:3])

    def judged(signers: OcspAuthority | None) -> tuple[str | None, str]:
        def clock() -> datetime:
            return datetime.now(UTC)

        gateway = StatusGateway(rig.inventory, offload, Responder(), signers=signers, clock=clock)
        checker = ContractChecker(ContractTrust(anchors=(mobility[0],)), rig.inventory, gateway, offload, clock=clock)
        request = {"idToken": {"idToken": EMAID, "type": "eMAID"}, "certificate": text}
        verdict = decide(asyncio.run(checker.facts(request, TokenStatus.ACCEPTED)))
        return verdict.certificate and verdict.certificate.value, verdict.token.value

    assert (judged(None), judged(OcspAuthority(rig.authority))) == (BROKEN, GOOD)
    rig.authority.revoke(issued.record.id, "keyCompromise")
    assert judged(OcspAuthority(rig.authority)) == REVOKED


async def authorize(peer: Any, version: str, chain: str | None) -> tuple[str, str | None]:
    """Send Authorize as a station of the plain `ocpp` package does; return both statuses."""
    if version == "ocpp1.6":
        token = {"idToken": EMAID, "type": "eMAID"}
        transfer = wrap("Authorize", {"idToken": token, **({"certificate": chain} if chain else {})})
        request = call16.DataTransfer(transfer["vendorId"], transfer["messageId"], transfer["data"])
        told = await peer.call(request, suppress=False)
        answer = read_transfer_answer("Authorize", {"status": told.status, "data": told.data})
        assert answer is not None
        return answer["idTokenInfo"]["status"], answer.get("certificateStatus")
    module: Any = call201 if version == "ocpp2.0.1" else call21
    written = {"id_token": EMAID, "type": "eMAID"}
    told = await peer.call(module.Authorize(id_token=written, certificate=chain), suppress=False)
    return told.id_token_info["status"], told.certificate_status


CARD = {"ocpp1.6": "Invalid", "ocpp2.0.1": "Unknown", "ocpp2.1": "Unknown"}


async def begun(peer: Any, version: str) -> list[str]:
    """Begin a transaction with the eMAID, and one with a card of the same text; return what is said of each."""
    at = datetime.now(UTC).isoformat()
    said = []
    for is_contract in (True, False):
        if version == "ocpp1.6":
            tag = EMAID if is_contract else "04A2B3C4D5E680"
            started = call16.StartTransaction(connector_id=1, id_tag=tag, meter_start=0, timestamp=at)
            said.append((await peer.call(started, suppress=False)).id_tag_info["status"])
            continue
        module: Any = call201 if version == "ocpp2.0.1" else call21
        event = module.TransactionEvent(
            event_type="Started",
            timestamp=at,
            trigger_reason="Authorized",
            seq_no=0,
            transaction_info={"transaction_id": "T1"},
            id_token={"id_token": EMAID, "type": "eMAID" if is_contract else "ISO14443"},
        )
        said.append((await peer.call(event, suppress=False)).id_token_info["status"])
    if version == "ocpp1.6":
        # An idTag in Authorize is a card, whatever its text.
        plain = await peer.call(call16.Authorize(id_tag=EMAID), suppress=False)
        assert plain.id_tag_info["status"] == "Invalid"
    return said


@pytest.mark.parametrize("version", ["ocpp1.6", "ocpp2.0.1", "ocpp2.1"])
def test_a_foreign_station_is_told_of_the_chain_and_the_token(
    rig: Rig, mobility: tuple[bytes, str, str], version: str
) -> None:
    """C07.FR.04, over the wire; in 1.6 by the DataTransfer of Plug & Charge."""
    rig.add_station(f"PNC-{version}")
    root, chain, _ = mobility

    async def story() -> None:
        trust = ContractTrust(anchors=(root,), token_status=TokenStatus.ACCEPTED)
        # Without a signer nobody vouches for the chain: it fails closed.
        for signers, wanted in ((None, ("Invalid", "CertChainError")), (OcspAuthority(rig.authority), GOOD)):
            async with rig.server(2, contract=trust, ocsp_signers=signers) as server:
                tls, identity = rig.client_tls(), f"PNC-{version}"
                async with foreign_station(rig.url_of(server), identity, version, password=PASSWORD, tls=tls) as peer:
                    assert await authorize(peer.charge_point, version, chain) == wanted
                    assert await authorize(peer.charge_point, version, pem(FOREIGN)) == ("Invalid", "CertChainError")
                    if version != "ocpp1.6":
                        # Without a certificate nothing is said about one.
                        assert await authorize(peer.charge_point, version, None) == ("Unknown", None)
                    # What Authorize accepts, the transaction does not end; a card is not let in by it.
                    assert await begun(peer.charge_point, version) == ["Accepted", CARD[version]]

    run_on("asyncio", story())


@pytest.mark.parametrize("version", ["ocpp2.0.1", "ocpp2.1"])
def test_a_csms_of_ones_own_knows_the_tokens_and_the_mixin_the_certificates(
    rig: Rig, mobility: tuple[bytes, str, str], version: str
) -> None:
    """C07.FR.13, FR.14, FR.16: the handler's answer is kept, but for what the certificate forbids."""
    rig.add_station(f"OWN-{version}")
    root, chain, certificate = mobility
    status = ["Accepted"]
    result: Any = call_result201 if version == "ocpp2.0.1" else call_result21

    base: Any = CLASSES[version]

    class Tokens(base):  # type: ignore[misc]  # chosen at run time
        @on("Authorize")  # type: ignore[untyped-decorator]  # no types
        async def on_authorize(self, **_: Any) -> Any:
            return result.Authorize(id_token_info={"status": status[0], "personal_message": MESSAGE})

    async def story() -> None:
        trust = ContractTrust(anchors=(root,))
        async with own_csms(rig, 2, contract=trust, ocsp_signers=OcspAuthority(rig.authority)) as team:
            team.classes[version] = Tokens
            tls, identity = rig.client_tls(), f"OWN-{version}"
            async with foreign_station(team.url, identity, version, password=PASSWORD, tls=tls) as peer:
                assert await authorize(peer.charge_point, version, chain) == GOOD
                status[0] = "Blocked"
                assert await authorize(peer.charge_point, version, chain) == ("Blocked", "ContractCancelled")
                status[0] = "NoCredit"
                assert await authorize(peer.charge_point, version, chain) == ("NoCredit", "Accepted")
                assert await authorize(peer.charge_point, version, None) == ("NoCredit", None)
                if version == "ocpp2.1":
                    rig.authority.revoke(certificate, "keyCompromise")
                    status[0] = "Accepted"
                    assert await authorize(peer.charge_point, version, chain) == ("Invalid", "CertificateRevoked")

    run_on("asyncio", story())
