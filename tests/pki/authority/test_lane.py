"""The fast lane of issuance makes the rows, the entries and the refusals that the careful way makes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chargepki.pki import keys
from chargepki.pki.authority import (
    Authority,
    IssuedCertificate,
    IssueOrder,
    batch,
    issuance,
    lane,
    lane_commit,
    lane_fill,
)
from chargepki.pki.authority.lane import Lane
from chargepki.pki.authority.lane_kind import ChooseShard, Known, Quick
from chargepki.pki.authority.shards import CrlSettings
from chargepki.pki.csr import parse_csr
from chargepki.pki.errors import ChargePkiError, PolicyRefusal, ProfileViolation, SignerError
from chargepki.pki.inventory import Inventory, Transaction
from chargepki.pki.inventory.records import (
    AuditEntry,
    CertificateRecord,
    CertificateState,
    StationRecord,
    StationState,
)
from chargepki.pki.keys import PrivateKey
from chargepki.pki.policy_settings import PolicySettings, Rate
from testkit.authorities import (
    ACTOR,
    NOW,
    MemoryKeyStore,
    log_findings,
    make_csr,
    make_key,
    ocpp_authority,
    open_inventory,
)
from testkit.effort import examples

STATION = "ocpp/charging-station"


def order(csr: bytes, **changes: object) -> IssueOrder:
    """Return an order for a charging-station certificate."""
    values: dict[str, object] = {"ca": "t-sub", "profile": STATION, "csr": csr}
    return IssueOrder(**{**values, **changes})  # type: ignore[arg-type]  # a test's short form


def orders(number: int, **changes: object) -> list[IssueOrder]:
    return [order(make_csr(f"CS-{each:04}"), **changes) for each in range(number)]


def warm(authority: Authority, **changes: object) -> None:
    """Have the lane learn the kind: the first request is taken apart, the second proves it."""
    for name in ("WARM-1", "WARM-22"):
        authority.issue(order(make_csr(name), **changes))


@pytest.fixture
def database_url(request: pytest.FixtureRequest) -> str:
    """SQLite, unless a test asks for both: the databases differ in the statements alone."""
    url: str = request.getfixturevalue(f"{getattr(request, 'param', 'sqlite')}_url")
    return url


@pytest.fixture
def quick_ones(monkeypatch: pytest.MonkeyPatch) -> list[Quick]:
    """Collects what the lane prepares."""
    found: list[Quick] = []

    def prepare(
        lot: Sequence[Known], *, now: datetime, choose_shard: ChooseShard
    ) -> list[Quick | ChargePkiError | None]:
        items = lane_fill.prepare_known(lot, now=now, choose_shard=choose_shard)
        found.extend(item for item in items if isinstance(item, Quick))
        return items

    monkeypatch.setattr(batch, "prepare_known", prepare)
    return found


def issued(answers: Sequence[IssuedCertificate | ChargePkiError]) -> list[CertificateRecord]:
    records = []
    for answer in answers:
        assert isinstance(answer, IssuedCertificate), answer
        records.append(answer.record)
    return records


@pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)
def test_the_third_of_a_kind_takes_the_lane_and_its_row_is_what_is_returned(
    authority: Authority, quick_ones: list[Quick], tmp_path: Path
) -> None:
    """On both databases: rows, digests and the chain are what an auditor finds in order."""
    records = issued(authority.issue_many(orders(8)))
    with authority.inventory.snapshot() as session:
        assert session.execute("SELECT count(*) FROM certificate WHERE traits IS NULL") == [(0,)]
    assert len(quick_ones) == 6
    for record in records:
        assert authority.inventory.get_certificate(record.id) == record
        assert record.der is not None and record.sha256 == hashlib.sha256(record.der).hexdigest()
    assert log_findings(authority.inventory, tmp_path) == []


@pytest.fixture(scope="module")
def two_ways(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Authority, Authority]]:
    """Two authorities alike, each with an inventory of its own."""
    keystore = MemoryKeyStore()
    both: list[Authority] = []
    folders = [tmp_path_factory.mktemp(name) for name in ("quick", "careful")]
    for folder in folders:
        inventory = open_inventory(f"sqlite:///{folder / 'inventory.db'}", folder)
        both.append(ocpp_authority(inventory, keystore=keystore if not both else MemoryKeyStore()))
    warm(both[0])
    yield both[0], both[1]
    for each in both:
        each.inventory.close()


def shown(answer: IssuedCertificate | ChargePkiError, entries: Sequence[AuditEntry]) -> object:
    """Return what both ways must agree on: all but the signature, and what hashes it or the issuer's key."""
    if isinstance(answer, ChargePkiError):
        return type(answer).__name__, answer.what, answer.why, answer.fix
    record = answer.record
    own = [(each.action, each.details, each.actor, each.outcome) for each in entries if each.subject == record.id]
    assert record.tbs is not None
    blank = replace(record, der=None, sha256=None, tbs=None)
    return blank, len(record.tbs), answer.clamped, answer.repeated, own


NAMES = st.one_of(
    st.from_regex(r"[A-Za-z0-9._:-]{1,30}", fullmatch=True),
    st.sampled_from(
        ["cs.example.org", "10.0.0.7", "::1", "wss://x", "localhost", "x" * 26, "x" * 64, "Säule", "a b", "O=x"]
    ),
    st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), min_size=1, max_size=20),
)


@settings(max_examples=examples(12), deadline=None)
@given(names=st.lists(NAMES, min_size=1, max_size=4), damage=st.integers(0, 3), repeat=st.booleans())
def test_every_batch_is_answered_as_by_the_careful_way(
    two_ways: tuple[Authority, Authority], names: list[str], damage: int, repeat: bool
) -> None:
    requests = []
    for number, name in enumerate(names):
        csr = bytearray(parse_csr(make_csr(name)).der)
        if damage == number:
            csr[-1] ^= 1  # the signature
        requests.append(order(bytes(csr)))
    requests += requests[:1] if repeat else []
    told = []
    for authority, quickly in zip(two_ways, (True, False), strict=True):
        serials = count(int(hashlib.sha256(repr(requests).encode()).hexdigest()[:30], 16) + (1 << 150))
        before = len(authority.inventory.list_audit(limit=100_000))
        with pytest.MonkeyPatch.context() as patch:
            for module in (issuance, lane_fill):
                patch.setattr(module, "new_serial", lambda serials=serials: next(serials))
            if not quickly:
                patch.setattr(Lane, "find", lambda *_, **__: None)
            answers = authority.issue_many(requests)
        entries = authority.inventory.list_audit(after_seq=before, limit=1000)
        told.append([shown(answer, entries) for answer in answers])
    assert told[0] == told[1]


def test_a_request_that_repeats_another_is_answered_by_its_certificate(
    authority: Authority, quick_ones: list[Quick]
) -> None:
    warm(authority)
    one = order(make_csr("CS-1"))
    first, again = authority.issue_many([one, one])
    assert issued([first])[0].id == issued([again])[0].id
    assert isinstance(again, IssuedCertificate) and again.repeated
    later = authority.issue(one)
    assert later.repeated and later.record.id == issued([first])[0].id
    assert len(quick_ones) == 3


def test_a_key_that_was_compromised_is_refused(authority: Authority, quick_ones: list[Quick]) -> None:
    warm(authority)
    key = make_key()
    first = authority.issue(order(make_csr("CS-1", key=key)))
    authority.revoke(first.record.id, "keyCompromise")
    refused, sound = authority.issue_many([order(make_csr("CS-2", key=key)), order(make_csr("CS-3"))])
    assert isinstance(refused, PolicyRefusal) and "compromised" in refused.what
    assert issued([sound]) and len(quick_ones) == 3


def test_a_key_of_another_holder_is_remarked_on(authority: Authority, quick_ones: list[Quick]) -> None:
    warm(authority)
    key = make_key()
    _, second = issued(authority.issue_many([order(make_csr(name, key=key)) for name in ("CS-1", "CS-2")]))
    found = {rule["rule"]: rule["outcome"] for rule in second.verdict["record"] if isinstance(rule, dict)}
    assert found["key-reuse"] == "notice" and len(quick_ones) == 2


def test_a_certificate_belongs_to_the_station_of_its_serial_number(
    authority: Authority, quick_ones: list[Quick], tmp_path: Path
) -> None:
    warm(authority)

    def work(tx: Transaction) -> None:
        for name, serial in (("A", "CS-1"), ("B", "CS-2"), ("C", "CS-2")):
            tx.add_station(StationRecord(name, serial, None, 3, StationState.ACTIVE, NOW))
            tx.audit(ACTOR, "station.add", name, now=NOW)

    authority.inventory.write(work)
    records = issued(authority.issue_many([order(make_csr(name)) for name in ("CS-1", "CS-2", "CS-3")]))
    assert [record.station for record in records] == ["A", None, None] and len(quick_ones) == 3
    details = [each.details for each in authority.inventory.list_audit() if each.subject == records[0].id]
    assert details[-1] == {"station": "A"}
    assert log_findings(authority.inventory, tmp_path) == []


def test_a_rate_is_kept(inventory: Inventory, keystore: MemoryKeyStore, quick_ones: list[Quick]) -> None:
    base = ocpp_authority(inventory, keystore=keystore)

    def work(tx: Transaction) -> None:
        tx.add_station(StationRecord("A", "CS-1", None, 3, StationState.ACTIVE, NOW))
        tx.audit(ACTOR, "station.add", "A", now=NOW)

    inventory.write(work)
    policy = PolicySettings(rate=Rate.parse("2/24h"))
    limited = Authority(inventory, keystore, actor=ACTOR, clock=lambda: NOW, public_url=None, policy=policy)
    warm(limited)
    answers = limited.issue_many([order(make_csr("CS-1")) for _ in range(4)])
    assert [isinstance(answer, IssuedCertificate) for answer in answers] == [True, True, False, False]
    assert base.inventory is inventory and len(quick_ones) == 4


def test_what_the_linter_refuses_is_not_reserved(
    authority: Authority, quick_ones: list[Quick], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name rules of the policy and of the linter agree; with the policy's out of the way the linter must refuse."""
    warm(authority)
    monkeypatch.setattr(lane_fill, "check_value", lambda *_: ())
    (refused,) = authority.issue_many([order(make_csr("cs.example.org"))])
    assert isinstance(refused, ProfileViolation) and quick_ones == []
    assert not list(authority.inventory.list_certificates(state=CertificateState.RESERVED))


def test_shards_are_filled_to_the_last_place(authority: Authority, quick_ones: list[Quick], tmp_path: Path) -> None:
    authority.configure_crls("t-sub", CrlSettings(shard_size=5))
    records = issued(authority.issue_many(orders(13)))
    assert [record.shard for record in records] == [*[1] * 5, *[2] * 5, *[3] * 3] and quick_ones
    assert issued(authority.issue_many(orders(4)))[-1].shard == 4
    assert log_findings(authority.inventory, tmp_path) == []


@pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)
def test_a_reservation_that_another_process_settled_meanwhile_is_handed_out_once(
    authority: Authority, keystore: MemoryKeyStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    warm(authority)
    real = lane_commit.sign_quick
    settled: list[CertificateRecord] = []

    def sign_late(items: Sequence[tuple[int, Quick]]) -> object:
        if items:
            settled.extend(authority.recover("t-sub"))
        return real(items)

    monkeypatch.setattr(batch, "sign_quick", sign_late)
    records = issued(authority.issue_many(orders(3)))
    assert sorted(record.id for record in records) == sorted(record.id for record in settled)
    assert {record.der for record in records} == {record.der for record in settled}
    assert log_findings(authority.inventory, tmp_path) == []


def test_a_key_store_that_fails_leaves_reservations_for_the_next_run(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    warm(authority)
    with monkeypatch.context() as patch:

        def lost(*_: object) -> bytes:
            raise SignerError("the token is gone")

        patch.setattr(keys, "sign", lost)
        answers = authority.issue_many(orders(2))
        assert all(isinstance(answer, SignerError) for answer in answers)
    reserved = list(authority.inventory.list_reserved("t-sub@1"))
    assert len(reserved) == 2
    assert {record.id for record in authority.recover("t-sub")} == {record.id for record in reserved}


def test_one_signature_that_fails_is_the_error_of_its_order_alone(
    authority: Authority, quick_ones: list[Quick], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of a batch are signed before the first is put together; each answer stays at its place."""
    warm(authority)
    made = 0
    real = keys.sign

    def sign(key: PrivateKey, data: bytes) -> bytes:
        nonlocal made
        made += 1
        if made == 2:
            raise SignerError("the token is gone")
        return real(key, data)

    monkeypatch.setattr(keys, "sign", sign)
    first, second, third, fourth = authority.issue_many(orders(4))
    assert isinstance(second, SignerError) and second.what == "the token is gone"
    names = [record.subject.rpartition("=")[2] for record in issued([first, third, fourth])]
    assert names == ["CS-0000", "CS-0002", "CS-0003"] and len(quick_ones) == 4
    assert len(list(authority.inventory.list_reserved("t-sub@1"))) == 1


def test_a_kind_whose_second_certificate_differs_is_given_up(
    authority: Authority, quick_ones: list[Quick], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        real = lane_fill.fill

        def wrong(*arguments: object, **named: object) -> Quick:
            item = real(*arguments, **named)  # type: ignore[arg-type]  # passed on as they came
            item.row.values["subject"] = "CN=other"
            return item

        patch.setattr(lane, "fill", wrong)
        warm(authority)
    assert len(issued(authority.issue_many(orders(3)))) == 3 and quick_ones == []
