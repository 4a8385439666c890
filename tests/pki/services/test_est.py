"""The EST service as a function: paths, who may do what, malformed bodies, approvals, keys made for clients."""

from __future__ import annotations

import asyncio
import base64
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import AttributeOID
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chargepki.pki import aio, der, keys, private_keys
from chargepki.pki.authority import Authority, CaOrder, IssueOrder
from chargepki.pki.crl_entry import ReasonCode
from chargepki.pki.csr import parse_csr
from chargepki.pki.est import read_certs_only
from chargepki.pki.inventory import Inventory, Transaction
from chargepki.pki.inventory.records import EstAccountRecord, EstAccountState, EstRequestState
from chargepki.pki.profiles import get_profile
from chargepki.pki.services.accounts import AccountGuard, TooManyFailures, hash_account_password
from chargepki.pki.services.est import EstRequest, EstResponse, EstService
from chargepki.pki.services.est_approval import decide
from chargepki.pki.services.est_paths import parse_path
from chargepki.pki.services.est_settings import EstLabel, EstSettings, ServerKeys
from testkit.authorities import ACTOR, NOW, make_csr, make_key, ocpp_authority, open_inventory
from testkit.effort import examples

PASSWORD = b"a password for tests"
HASH = hash_account_password(PASSWORD)
STATION = "ocpp/charging-station"
_SHA256 = hashes.SHA256()
LABELS = EstSettings(
    (
        EstLabel("cso", "t-sub", STATION, aliases=("cpo/ISO15118-2",)),
        EstLabel("slow", "t-sub", STATION, approval=True),
        EstLabel("keys", "t-sub", STATION, server_keys=ServerKeys.ENCRYPTED),
        EstLabel("plain", "t-sub", STATION, server_keys=ServerKeys.TLS),
        EstLabel("csms", "t-sub", "ocpp/csms"),
        EstLabel("edwards", "ed", "iso15118-20/secc", aliases=("veh/ISO15118-20",)),
    ),
    default="cso",
)


class Rig:
    """A service over an authority, an account ``acme`` with a password, and requests as a client would send them."""

    def __init__(self, inventory: Inventory, authority: Authority) -> None:
        self.inventory, self.authority = inventory, authority
        self.signer = keys.generate_private_key(keys.KeyAlgorithm.SECP256R1), b""

    def ask(
        self,
        path: str,
        body: bytes = b"",
        *,
        method: str = "POST",
        headers: Mapping[str, str] | None = None,
        certificate: bytes | None = None,
        password: bytes | None = PASSWORD,
        peer: str = "192.0.2.1",
        tls_unique: bytes | None = None,
    ) -> EstResponse:
        sent = {"content-type": "application/pkcs10"} | dict(headers or {})
        if password is not None:
            sent["authorization"] = "Basic " + base64.b64encode(b"acme:" + password).decode()
        request = EstRequest(method, path, sent, body, certificate, peer, NOW, 0.0, tls_unique)

        async def answer() -> EstResponse:
            issuer = aio.Authority(self.authority)
            signing = None if not self.signer[1] else self.signer
            service = EstService(self.inventory, issuer, LABELS, server_key=signing)
            try:
                return await service.answer(request)
            finally:
                service.close()
                await issuer.aclose()

        return asyncio.run(answer())

    def enrol(self, name: str, *, label: str = "cso") -> bytes:
        answer = self.ask(f"/.well-known/est/{label}/simpleenroll", make_csr(name))
        assert answer.status == 200, answer.body
        return read_certs_only(answer.body)[0]


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    folder = tmp_path_factory.mktemp("est")
    inventory = open_inventory(f"sqlite:///{folder / 'inventory.db'}", folder)
    made = Rig(inventory, ocpp_authority(inventory))
    account = EstAccountRecord(
        "acme",
        {"names": ["cso", "slow", "keys", "plain"]},
        {"patterns": ["CS-*"]},
        EstAccountState.ACTIVE,
        NOW,
        password_hash=HASH,
    )
    narrow = replace(account, id="narrow", labels={"names": ["other"]})

    def work(tx: Transaction) -> None:
        for each in (account, narrow):
            tx.add_est_account(each)
            tx.audit(ACTOR, "est-account.add", each.id, now=NOW)

    inventory.write(work)
    yield made
    inventory.close()


@pytest.mark.parametrize(
    ("path", "operation", "where"),
    [
        ("/.well-known/est/cacerts", "cacerts", (None, None, None, None)),
        ("/.well-known/est/cso/csrattrs", "csrattrs", ("cso", None, None, None)),
        ("/.well-known/est/cpo/simpleenroll/ISO15118-2", "simpleenroll", (None, "cpo", "ISO15118-2", None)),
        ("/mo/simpleenroll/ISO15118-20", "simpleenroll", (None, "mo", "ISO15118-20", None)),
        ("/.well-known/cpo/simpleenroll", "simpleenroll", (None, "cpo", None, None)),
        ("/oem/cacerts/ISO15118-20/ed448/", "cacerts", (None, "oem", "ISO15118-20", "ed448")),
        ("/.well-known/est/cpo/simpleenroll", "simpleenroll", ("cpo", None, None, None)),
    ],
)
def test_every_path_shape_of_the_field_is_understood(path: str, operation: str, where: tuple[str | None, ...]) -> None:
    found = parse_path(path)
    assert found is not None
    assert found.operation == operation
    assert (found.label, found.role, found.version, found.algorithm) == where


@pytest.mark.parametrize("path", ["", "/", "/.well-known/est", "/.well-known/est/a/b/cacerts", "/" * 999])
def test_other_paths_are_none_of_ours(rig: Rig, path: str) -> None:
    assert rig.ask(path, method="GET").status == 404


def test_an_account_enrols_and_a_repeat_brings_the_same_certificate(rig: Rig) -> None:
    csr = make_csr("CS-1")
    first = rig.ask("/.well-known/est/cso/simpleenroll", base64.b64encode(csr))
    again = rig.ask("/.well-known/est/simpleenroll", csr)
    assert first.status == again.status == 200
    assert first.content_type == "application/pkcs7-mime; smime-type=certs-only"
    (leaf,) = read_certs_only(first.body)
    assert read_certs_only(again.body) == (leaf,)
    record = rig.inventory.find_certificate_by_sha256(_sha256(leaf))
    assert record is not None
    assert record.requester == "est:acme"


def test_cacerts_brings_the_chain_up_to_the_root(rig: Rig) -> None:
    answer = rig.ask("/.well-known/est/cso/cacerts", method="GET", password=None)
    found = [x509.load_der_x509_certificate(each) for each in read_certs_only(answer.body)]
    assert sorted(each.subject == each.issuer for each in found) == [False, True]
    assert rig.ask("/cpo/cacerts/ISO15118-2/secp256r1/", method="GET", password=None).status == 200
    assert rig.ask("/cpo/cacerts/ISO15118-2/ed448/", method="GET", password=None).status == 404


def test_a_charging_path_finds_its_label_by_version_and_algorithm() -> None:
    old, new, edwards = (
        EstLabel(name, "t-sub", STATION, aliases=aliases)
        for name, aliases in (
            ("old", ("cpo/ISO15118-2",)),
            ("new", ("cpo/ISO15118-20", "mo/ISO15118-20")),
            ("ed", ("cpo/ISO15118-20/ed448",)),
        )
    )
    find = EstSettings((old, new, edwards)).find_alias
    assert [find("cpo", "ISO15118-20", algorithm) for algorithm in (None, "secp521r1", "ed448")] == [new, new, edwards]
    # A path without version means the older standard, unless there is only the newer one.
    assert (find("cpo", None), find("mo", None), find("oem", None)) == (old, new, None)
    assert find("mo", "ISO15118-2") is None


def test_cacerts_of_an_algorithm_are_those_of_a_ca_with_such_a_key(rig: Rig) -> None:
    subject = (("CN", "Ed"), ("O", "Test MSP"), ("C", "DE"), ("DC", "V2G"))
    rig.authority.create_ca(
        CaOrder("ed", "iso15118-20/v2g-root", subject=subject, key_algorithm=keys.KeyAlgorithm.ED448)
    )
    # What the profile of the leaves prefers is another one.
    assert get_profile("iso15118-20/secc").keys.default is keys.KeyAlgorithm.SECP521R1
    for algorithm, status in (("ed448", 200), ("secp521r1", 404)):
        answer = rig.ask(f"/veh/cacerts/ISO15118-20/{algorithm}/", method="GET", password=None)
        assert answer.status == status, answer.body


def linked(name: str, password: bytes, key: ec.EllipticCurvePrivateKey | None = None) -> bytes:
    """Return a request with a challengePassword."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name(
            [
                x509.NameAttribute(x509.NameOID.COMMON_NAME, name),
                x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "Test"),
            ]
        )
    )
    builder = builder.add_attribute(AttributeOID.CHALLENGE_PASSWORD, password)
    made = builder.sign(key or ec.generate_private_key(ec.SECP256R1()), _SHA256)
    return made.public_bytes(serialization.Encoding.DER)


def test_a_request_that_is_tied_to_a_tls_session_is_taken_in_that_one_alone(rig: Rig) -> None:
    session, path = b"twelve octet", "/.well-known/est/cso/simpleenroll"
    request = linked("CS-60", base64.b64encode(session))
    for other in (None, b"another sess"):
        refused = rig.ask(path, request, tls_unique=other)
        assert refused.status == 400 and b"tls-unique" in refused.body
    assert rig.ask(path, linked("CS-60", b"a word"), tls_unique=session).status == 400
    assert rig.ask(path, request, tls_unique=session).status == 200


def test_an_approval_holds_for_the_request_made_anew_in_another_session(rig: Rig) -> None:
    key, path = ec.generate_private_key(ec.SECP256R1()), "/.well-known/est/slow/simpleenroll"

    def ask(session: bytes, key: ec.EllipticCurvePrivateKey) -> int:
        return rig.ask(path, linked("CS-61", base64.b64encode(session), key), tls_unique=session).status

    assert ask(b"one", key) == 202
    (record,) = [each for each in rig.inventory.list_est_requests() if "CS-61" in each.subject]
    decide(rig.inventory, record.id, EstRequestState.APPROVED, actor=ACTOR, now=NOW)
    assert (ask(b"two", key), ask(b"two", ec.generate_private_key(ec.SECP256R1()))) == (200, 202)
    # Nothing is left that other tests would find waiting.
    (record,) = rig.inventory.list_est_requests(state=EstRequestState.WAITING)
    decide(rig.inventory, record.id, EstRequestState.REJECTED, actor=ACTOR, now=NOW)


def test_csrattrs_names_curve_and_signature(rig: Rig) -> None:
    answer = rig.ask("/.well-known/est/cso/csrattrs", method="GET", password=None)
    parts = der.parse(base64.b64decode(answer.body)).children(der.SEQUENCE)
    assert [part.children()[0].as_oid() if part.constructed else part.as_oid() for part in parts] == [
        "1.2.840.10045.2.1",
        "1.2.840.10045.4.3.2",
    ]


@pytest.mark.parametrize(
    ("change", "status"),
    [
        (lambda rig: {"password": None}, 401),
        (lambda rig: {"password": b"another password here"}, 401),
        (lambda rig: {"headers": {"authorization": "Bearer x"}, "password": None}, 401),
        (lambda rig: {"headers": {"authorization": "Basic !!"}, "password": None}, 401),
        (lambda rig: {"headers": {"authorization": _basic(b"nobody", PASSWORD)}, "password": None}, 401),
        (lambda rig: {"headers": {"authorization": _basic(b"narrow", PASSWORD)}, "password": None}, 403),
        (lambda rig: {"headers": {"content-type": "text/html"}}, 415),
        (lambda rig: {"method": "GET"}, 405),
        (lambda rig: {"method": "DELETE"}, 405),
        (lambda rig: {"body": b""}, 400),
        (lambda rig: {"body": b"hello"}, 400),
        (lambda rig: {"body": b"A" * 200_000}, 413),
        (lambda rig: {"body": make_csr("XX-1")}, 403),
        (lambda rig: {"body": _broken_signature()}, 400),
        (lambda rig: {"path": "/.well-known/est/nowhere/simpleenroll"}, 404),
        (lambda rig: {"path": "/.well-known/est/cso/fullcmc"}, 501),
        (lambda rig: {"path": "/.well-known/est/cso/serverkeygen"}, 501),
        (lambda rig: {"path": "/.well-known/est/cso/simplereenroll"}, 403),
    ],
)
def test_what_is_wrong_is_answered_with_its_status_and_issues_nothing(
    rig: Rig, change: Callable[[Rig], dict[str, object]], status: int
) -> None:
    before = len(list(rig.inventory.list_certificates()))
    sent: dict[str, object] = {"path": "/.well-known/est/cso/simpleenroll", "body": make_csr("CS-7")}
    answer = rig.ask(**(sent | change(rig)))  # type: ignore[arg-type]  # the parameters of ask
    assert answer.status == status, answer.body
    assert len(list(rig.inventory.list_certificates())) == before
    assert (answer.headers.get("WWW-Authenticate") is not None) == (status == 401)


@settings(max_examples=examples(20), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_every_malformed_body_is_a_4xx(rig: Rig, data: st.DataObject) -> None:
    good = make_csr("CS-8")
    # Signatures differ in length, and what is drawn must not hang on it.
    position = data.draw(st.integers(0, 4095)) % len(good)
    kind = data.draw(st.sampled_from(["cut", "flip", "noise"]))
    if kind == "cut":
        body = good[:position]
    elif kind == "flip":
        body = good[:position] + bytes([good[position] ^ data.draw(st.integers(1, 255))]) + good[position + 1 :]
    else:
        body = data.draw(st.binary(max_size=200))
    status = rig.ask("/.well-known/est/cso/simpleenroll", body).status
    if status == 200:
        # A changed octet of the wrapping, such as another blank, leaves the request what it was.
        assert parse_csr(body).der == parse_csr(good).der
    else:
        assert 400 <= status < 500


def test_guessing_is_slowed_down_for_the_guesser_alone(rig: Rig) -> None:
    async def attempts() -> list[int]:
        issuer = aio.Authority(rig.authority)
        service = EstService(rig.inventory, issuer, LABELS)
        statuses = []
        for number in range(12):
            headers = {"authorization": _basic(b"acme", PASSWORD if number == 11 else b"guess number one")}
            peer = "192.0.2.9" if number < 11 else "192.0.2.10"
            request = EstRequest("POST", "/.well-known/est/cso/simpleenroll", headers, b"", None, peer, NOW, 1.0)
            statuses.append((await service.answer(request)).status)
        service.close()
        await issuer.aclose()
        return statuses

    assert asyncio.run(attempts()) == [401] * 10 + [429, 400]


def test_guesses_that_are_made_at_once_are_no_more_than_one_after_the_other() -> None:
    async def attempts(password: bytes) -> list[str]:
        guard = AccountGuard()

        async def one() -> str:
            try:
                right = await guard.verify(HASH, password, account="acme", peer="192.0.2.9", now=1.0)
            except TooManyFailures:
                return "429"
            return "right" if right else "wrong"

        told = await asyncio.gather(*(one() for _ in range(30)))
        guard.close()
        assert not guard._turns and not guard._users
        return list(told)

    assert asyncio.run(attempts(b"guess number one")) == ["wrong"] * 10 + ["429"] * 20
    # Whoever knows the password may send as many at once as it likes.
    assert asyncio.run(attempts(PASSWORD)) == ["right"] * 30


def test_a_certificate_renews_itself_and_nothing_else(rig: Rig) -> None:
    held = rig.enrol("CS-20")
    path = "/.well-known/est/cso/simplereenroll"
    renewed = rig.ask(path, _same_subject(held), certificate=held, password=None)
    assert renewed.status == 200, renewed.body
    assert rig.ask(path, make_csr("CS-21"), certificate=held, password=None).status == 403
    assert rig.ask("/.well-known/est/slow/simplereenroll", _same_subject(held), certificate=held).status == 200
    foreign = _self_signed()
    assert rig.ask(path, make_csr("CS-20"), certificate=foreign, password=None).status == 403
    record = rig.inventory.find_certificate_by_sha256(_sha256(held))
    assert record is not None
    rig.authority.revoke(record.id, ReasonCode.SUPERSEDED)
    refused = rig.ask(path, _same_subject(held), certificate=held, password=None)
    assert (refused.status, b"revoked" in refused.body) == (403, True)


def test_a_renewed_certificate_keeps_its_dns_names_and_gets_no_others(rig: Rig) -> None:
    """RFC 7030 4.2.2."""
    named = ("csms.acme.example", "alt.acme.example")
    held = rig.authority.issue(IssueOrder("t-sub", "ocpp/csms", csr=make_csr(named[0]), dns_names=named))
    body = _same_subject(held.certificate_der)
    answer = rig.ask("/.well-known/est/csms/simplereenroll", body, certificate=held.certificate_der, password=None)
    assert answer.status == 200, answer.body
    renewed = x509.load_der_x509_certificate(read_certs_only(answer.body)[0])
    found = renewed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert tuple(found.get_values_for_type(x509.DNSName)) == named


def test_a_client_certificate_that_cannot_be_read_gets_no_key(rig: Rig) -> None:
    answer = rig.ask("/.well-known/est/keys/serverkeygen", make_csr("CS-70"), certificate=b"\x30\x03abc")
    assert (answer.status, b"cannot be read" in answer.body) == (403, True)


def test_a_request_waits_until_it_is_approved_and_a_rejected_one_stays_so(rig: Rig) -> None:
    path, csr = "/.well-known/est/slow/simpleenroll", make_csr("CS-30")
    waiting = rig.ask(path, csr)
    assert (waiting.status, waiting.headers["Retry-After"]) == (202, "600")
    assert rig.ask(path, csr).status == 202
    (record,) = [each for each in rig.inventory.list_est_requests() if each.subject.startswith("CN=CS-30")]
    decide(rig.inventory, record.id, EstRequestState.APPROVED, actor=ACTOR, now=NOW)
    assert rig.ask(path, csr).status == 200
    other = make_csr("CS-31")
    assert rig.ask(path, other).status == 202
    (record,) = rig.inventory.list_est_requests(state=EstRequestState.WAITING)
    decide(rig.inventory, record.id, EstRequestState.REJECTED, actor=ACTOR, now=NOW + timedelta(seconds=1))
    assert rig.ask(path, other).status == 403


def test_one_account_cannot_fill_the_list_of_requests(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chargepki.pki.services.est_approval._MAX_WAITING", 2)
    statuses = [rig.ask("/.well-known/est/slow/simpleenroll", make_csr(f"CS-4{number}")).status for number in range(4)]
    assert statuses == [202, 202, 400, 400]


@pytest.mark.foreign
@pytest.mark.parametrize("algorithm", ["secp256r1", "secp521r1", "rsa2048"])
def test_a_key_made_for_a_client_is_opened_by_openssl_with_the_client_key(
    rig: Rig, tmp_path: Path, algorithm: str
) -> None:
    client = keys.generate_private_key(keys.KeyAlgorithm(algorithm))
    certificate = _self_signed(client)
    rig.signer = (client, certificate)
    answer = rig.ask("/.well-known/est/keys/serverkeygen", make_csr("CS-50"), certificate=certificate)
    assert answer.status == 200, answer.body
    key_part, leaf_part = _parts(answer)
    (tmp_path / "k").write_bytes(private_keys.serialise_private_key(client))
    (tmp_path / "c").write_bytes(der.to_pem("CERTIFICATE", certificate).encode())
    (tmp_path / "e").write_bytes(key_part)
    _openssl("-decrypt", "-inform", "DER", "-in", "e", "-inkey", "k", "-recip", "c", "-out", "s", folder=tmp_path)
    signed = (tmp_path / "s").read_bytes()
    wrapped = der.sequence(der.oid("1.2.840.113549.1.7.2"), der.explicit(0, signed))
    (tmp_path / "w").write_bytes(wrapped)
    _openssl(
        "-verify",
        "-inform",
        "DER",
        "-in",
        "w",
        "-CAfile",
        "c",
        "-purpose",
        "any",
        "-attime",
        str(int(NOW.timestamp())),
        "-out",
        "p",
        folder=tmp_path,
    )
    pkcs8 = der.parse((tmp_path / "p").read_bytes()).children(der.SEQUENCE)[0].raw
    key = serialization.load_der_private_key(pkcs8, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    leaf = x509.load_der_x509_certificate(read_certs_only(base64.b64encode(leaf_part))[0])
    assert leaf.public_key() == key.public_key()


def test_without_a_client_certificate_a_key_is_made_only_where_tls_alone_may_protect_it(rig: Rig) -> None:
    before = len(list(rig.inventory.list_certificates()))
    assert rig.ask("/.well-known/est/keys/serverkeygen", make_csr("CS-51")).status == 403
    assert len(list(rig.inventory.list_certificates())) == before
    answer = rig.ask("/.well-known/est/plain/serverkeygen", make_csr("CS-51"))
    assert answer.status == 200
    key_part, leaf_part = _parts(answer)
    key = serialization.load_der_private_key(key_part, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    leaf = x509.load_der_x509_certificate(read_certs_only(base64.b64encode(leaf_part))[0])
    assert leaf.public_key() == key.public_key()


def _parts(answer: EstResponse) -> tuple[bytes, bytes]:
    boundary = answer.content_type.partition("boundary=")[2].encode()
    parts = answer.body.split(b"--" + boundary)[1:-1]
    contents = [base64.b64decode(part.partition(b"\r\n\r\n")[2]) for part in parts]
    return contents[0], contents[1]


def _openssl(*arguments: str, folder: Path) -> None:
    done = subprocess.run(["openssl", "cms", "-binary", *arguments], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def _sha256(encoded: bytes) -> str:
    return x509.load_der_x509_certificate(encoded).fingerprint(_SHA256).hex()


def _basic(name: bytes, password: bytes) -> str:
    return "Basic " + base64.b64encode(name + b":" + password).decode()


def _broken_signature() -> bytes:
    encoded = x509.load_pem_x509_csr(make_csr("CS-9")).public_bytes(serialization.Encoding.DER)
    return encoded[:-1] + bytes([encoded[-1] ^ 1])


def _self_signed(key: keys.PrivateKey | None = None) -> bytes:
    own = key or make_key()
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a client")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).serial_number(7)
    builder = builder.not_valid_before(NOW).not_valid_after(NOW + timedelta(days=1)).public_key(own.public_key())
    signed = builder.sign(own, _SHA256)
    return signed.public_bytes(serialization.Encoding.DER)


def _same_subject(certificate_der: bytes) -> bytes:
    subject = x509.load_der_x509_certificate(certificate_der).subject
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, _SHA256)
    return request.public_bytes(serialization.Encoding.PEM)
