"""`authenticate` in front of somebody's own table of stations: no inventory, no server of ours."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from chargepki.ocpp_security import (
    AttemptLimits,
    AuthenticatedStation,
    AuthenticationGuard,
    RefusedConnection,
    Restriction,
    StationEntry,
    UpgradeRequest,
    authenticate,
)
from chargepki.ocpp_security.authentication import Reason
from chargepki.ocpp_security.events import SecurityEvent
from chargepki.ocpp_security.identity import IdentityMismatch
from chargepki.ocpp_security.passwords import PasswordVerifier, hash_password
from chargepki.pki.errors import RevocationError
from testkit.hierarchy import Node, make_node
from testkit.ocpp_peers import basic_header

PASSWORD = b"correct-horse-16"
HASHED = hash_password(PASSWORD)
PENDING = hash_password(b"next-password-01")


class OwnTable:
    """A team's own stations and the fingerprints of their certificates."""

    def __init__(self, *stations: StationEntry) -> None:
        self.stations = {station.identity: station for station in stations}
        self.own: dict[bytes, str] = {}
        self.revoked: set[bytes] = set()

    async def find_station(self, identity: str, chain_der: Sequence[bytes]) -> StationEntry | None:
        return self.stations.get(identity)

    async def check_certificate(self, station: StationEntry, chain_der: Sequence[bytes], now: datetime) -> str:
        if chain_der[0] in self.revoked:
            raise RevocationError("it is revoked", status="revoked")
        if chain_der[0] not in self.own:
            raise IdentityMismatch("not one of ours", reason="certificate-unknown")
        return self.own[chain_der[0]]


@pytest.fixture(scope="module")
def pki() -> tuple[Node, Node, Node]:
    """Operator root, a sub-CA, and the leaf of station SN-1."""
    root = make_node("CSO root", None, ca=True)
    sub = make_node("CSO sub", root, ca=True, path_length=0)
    return root, sub, make_node("SN-1", sub, ca=False)


@pytest.fixture(scope="module")
def verifier() -> Iterator[PasswordVerifier]:
    made = PasswordVerifier()
    yield made
    made.close()


@pytest.fixture
def guard(verifier: PasswordVerifier) -> AuthenticationGuard:
    return AuthenticationGuard(
        AttemptLimits(per_identity_and_address=3, per_identity=5, per_address=8), verifier=verifier
    )


def entry(**changes: object) -> StationEntry:
    made = StationEntry(identity="CS1", serial_number="SN-1", password_hash=HASHED, pending_password_hash=PENDING)
    return replace(made, **changes)  # type: ignore[arg-type]  # fields by name


def with_password(password: bytes = PASSWORD, *, identity: str = "CS1", host: str = "192.0.2.1") -> UpgradeRequest:
    header = basic_header(identity, password)["Authorization"]
    return UpgradeRequest(path=f"/ocpp/{identity}", authorization=(header,), tls=True, host=host)


def with_certificate(*chain: Node) -> UpgradeRequest:
    return UpgradeRequest(identity="CS1", chain_der=tuple(node.der for node in chain), tls=True, host="192.0.2.1")


def ask(
    request: UpgradeRequest,
    table: OwnTable,
    guard: AuthenticationGuard,
    *,
    trust: Sequence[Node] = (),
    now: datetime | None = None,
) -> AuthenticatedStation[StationEntry, str] | RefusedConnection:
    anchors = [node.der for node in trust]
    return asyncio.run(authenticate(request, table, now=now or datetime.now(UTC), guard=guard, trust=anchors))


def refused(verdict: AuthenticatedStation[StationEntry, str] | RefusedConnection) -> RefusedConnection:
    assert isinstance(verdict, RefusedConnection)
    return verdict


def admitted(
    verdict: AuthenticatedStation[StationEntry, str] | RefusedConnection,
) -> AuthenticatedStation[StationEntry, str]:
    assert isinstance(verdict, AuthenticatedStation), verdict
    return verdict


def test_a_password_of_ones_own_table_opens_profile_2_and_the_pending_one_is_told_apart(
    guard: AuthenticationGuard,
) -> None:
    table = OwnTable(entry())
    verdict = admitted(ask(with_password(), table, guard))
    assert (verdict.station.identity, int(verdict.profile), verdict.pending_password) == ("CS1", 2, False)
    assert admitted(ask(with_password(b"next-password-01"), table, guard)).pending_password


@pytest.mark.parametrize(
    ("identity", "password", "changes", "reason"),
    [
        ("CS1", b"wrong-password-1", {}, Reason.WRONG_PASSWORD),
        ("CS2", PASSWORD, {}, Reason.UNKNOWN_STATION),
        ("CS1", PASSWORD, {"is_active": False}, Reason.STATION_REMOVED),
        ("CS1", PASSWORD, {"password_hash": None, "pending_password_hash": None}, Reason.NO_PASSWORD_ON_RECORD),
    ],
)
def test_every_401_tells_the_operator_its_reason_and_the_peer_nothing(
    guard: AuthenticationGuard, identity: str, password: bytes, changes: dict[str, object], reason: Reason
) -> None:
    verdict = refused(ask(with_password(password, identity=identity), OwnTable(entry(**changes)), guard))
    assert (int(verdict.status), verdict.reason) == (401, reason)
    assert verdict.event is SecurityEvent.FAILED_TO_AUTHENTICATE_AT_CSMS
    assert verdict.cause and verdict.cure
    assert verdict.answer == "authentication failed\n"
    assert dict(verdict.headers) == {"WWW-Authenticate": 'Basic realm="OCPP"'}


def test_the_secret_of_a_request_is_not_in_its_text(guard: AuthenticationGuard) -> None:
    request = with_password()
    assert str(request.authorization[0]) not in repr(request)
    assert HASHED not in repr(entry())


def test_a_certificate_of_ones_own_table_opens_profile_3(
    guard: AuthenticationGuard, pki: tuple[Node, Node, Node]
) -> None:
    root, sub, leaf = pki
    table = OwnTable(entry())
    table.own[leaf.der] = "row 7"
    verdict = admitted(ask(with_certificate(leaf, sub), table, guard, trust=[root]))
    assert (int(verdict.profile), verdict.certificate, verdict.restriction) == (3, "row 7", None)


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ("missing sub-CA", "untrusted-chain"),
        ("rogue CA with the same names", "untrusted-chain"),
        ("revoked", "certificate-revoked"),
        ("not on record", "certificate-unknown"),
        ("another serial number", "wrong-common-name"),
        ("another operator", "wrong-organization"),
        ("expired", "certificate-expired"),
        ("not valid yet", "certificate-not-yet-valid"),
        ("unknown station", "unknown-station"),
        ("no certificate at all", "certificate-refused"),
    ],
)
def test_every_bad_certificate_is_403_with_its_reason(
    guard: AuthenticationGuard, pki: tuple[Node, Node, Node], case: str, reason: str
) -> None:
    root, sub, leaf = pki
    table, now = OwnTable(entry()), datetime.now(UTC)
    chain, trust = [leaf, sub], [root]
    table.own[leaf.der] = "row 7"
    match case:
        case "missing sub-CA":
            chain = [leaf]
        case "rogue CA with the same names":
            trust = [make_node("CSO root", None, ca=True)]
        case "revoked":
            table.revoked.add(leaf.der)
        case "not on record":
            table.own.clear()
        case "another serial number":
            table.stations["CS1"] = entry(serial_number="SN-2")
        case "another operator":
            table.stations["CS1"] = entry(organization="Example CSO")
        case "expired":
            now += timedelta(days=2)
        case "not valid yet":
            now -= timedelta(days=2)
        case "unknown station":
            table.stations.clear()
    request = with_certificate(*chain)
    if case == "no certificate at all":
        request = replace(request, chain_der=(b"rubbish",))
        table.own[b"rubbish"] = "row 8"
    verdict = refused(ask(request, table, guard, trust=trust, now=now))
    assert (int(verdict.status), verdict.reason, verdict.answer) == (403, reason, "not allowed\n")
    assert verdict.event is SecurityEvent.INVALID_CHARGING_STATION_CERTIFICATE


def test_a00_fr_429_an_expired_certificate_opens_only_where_configured_and_only_to_renew(
    guard: AuthenticationGuard, pki: tuple[Node, Node, Node]
) -> None:
    root, sub, leaf = pki
    table = OwnTable(entry(accepts_expired_certificate=True))
    table.own[leaf.der] = "row 7"
    later = datetime.now(UTC) + timedelta(days=2)
    verdict = admitted(ask(with_certificate(leaf, sub), table, guard, trust=[root], now=later))
    assert verdict.restriction is Restriction.EXPIRED_CERTIFICATE
    table.revoked.add(leaf.der)
    assert refused(ask(with_certificate(leaf, sub), table, guard, now=later)).reason == "certificate-revoked"


def test_a00_fr_406_a_manufacturers_certificate_opens_only_where_its_ca_is_named_and_only_to_onboard(
    verifier: PasswordVerifier, pki: tuple[Node, Node, Node]
) -> None:
    guard = AuthenticationGuard(verifier=verifier)
    maker = make_node("Maker root", None, ca=True)
    sub = make_node("Maker sub", maker, ca=True, path_length=0)
    leaf, other = make_node("SN-1", sub, ca=False), make_node("SN-2", sub, ca=False)
    root, *_ = pki
    named = OwnTable(entry(onboarding_anchors=(maker.der,), organization="Example CSO"))
    verdict = admitted(ask(with_certificate(leaf, sub), named, guard, trust=[root]))
    assert (verdict.restriction, verdict.certificate) == (Restriction.ONBOARDING, None)
    # Another station's, another maker's, a revoked one, and one for a station that is not to be onboarded.
    assert refused(ask(with_certificate(other, sub), named, guard)).reason == "wrong-common-name"
    strange = OwnTable(entry(onboarding_anchors=(make_node("Maker root", None, ca=True).der,)))
    assert refused(ask(with_certificate(leaf, sub), strange, guard)).reason == "certificate-unknown"
    named.revoked.add(leaf.der)
    assert refused(ask(with_certificate(leaf, sub), named, guard)).reason == "certificate-revoked"
    plain = OwnTable(entry())
    assert refused(ask(with_certificate(leaf, sub), plain, guard)).reason == "certificate-unknown"


def test_an_attacker_who_fails_in_a_stations_name_does_not_lock_it_out(guard: AuthenticationGuard) -> None:
    table, home, elsewhere = OwnTable(entry()), "192.0.2.1", "198.51.100."
    admitted(ask(with_password(host=home), table, guard))
    for number in range(9):
        ask(with_password(b"wrong-password-1", host=f"{elsewhere}{number}"), table, guard)
    # Whole botnets are answered 429 after a while, the right password from anywhere new included ...
    assert int(refused(ask(with_password(host=f"{elsewhere}77"), table, guard)).status) == 429
    # ... but not from where the station lives, even when the attacker shares that address.
    admitted(ask(with_password(host=home), table, guard))
    for _ in range(5):
        verdict = refused(ask(with_password(b"wrong-password-1", host=home), table, guard))
    assert int(verdict.status) == 429
    admitted(ask(with_password(host=home), table, guard))


def test_one_address_cannot_try_every_identity(guard: AuthenticationGuard) -> None:
    table = OwnTable()
    statuses = [int(refused(ask(with_password(identity=f"CS{n}"), table, guard)).status) for n in range(10)]
    assert statuses == [401] * 8 + [429] * 2


def test_a_valid_certificate_is_let_in_whatever_failed_before_in_its_name(
    guard: AuthenticationGuard, pki: tuple[Node, Node, Node]
) -> None:
    _root, sub, leaf = pki
    table = OwnTable(entry())
    for _ in range(5):
        ask(with_password(b"wrong-password-1"), table, guard)
    stranger = make_node("SN-9", sub, ca=False)
    assert int(refused(ask(with_certificate(stranger, sub), table, guard)).status) == 429
    table.own[leaf.der] = "row 7"
    admitted(ask(with_certificate(leaf, sub), table, guard))


def test_a_naive_instant_is_refused(guard: AuthenticationGuard) -> None:
    with pytest.raises(TypeError, match="aware"):
        ask(with_password(), OwnTable(), guard, now=datetime(2026, 6, 1))  # noqa: DTZ001 - must be refused
