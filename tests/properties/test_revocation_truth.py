"""Whatever is revoked, held, released and published, in any order: every relying party sees what the inventory has."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chargepki.pki import keys, names
from chargepki.pki.authority import Authority, IssuedCertificate, IssueOrder
from chargepki.pki.authority.shards import CrlSettings
from chargepki.pki.chain import Revocation, RevocationMode, verify_chain
from chargepki.pki.crl import build_crl_tbs
from chargepki.pki.crl_entry import ReasonCode, RevokedEntry, encode_entry, find_entry, split_entries
from chargepki.pki.errors import ChargePkiError
from chargepki.pki.inventory.records import CertificateState
from chargepki.pki.keys import KeyAlgorithm
from chargepki.pki.lint import lint_crl
from testkit.authorities import NOW, MemoryKeyStore, log_findings, make_authority, make_csr, ocpp_authority
from testkit.authorities import open_inventory as open_it
from testkit.effort import examples

STATION = "ocpp/charging-station"
CERTIFICATES = 4
REASONS = ("keyCompromise", "superseded", "certificateHold", "certificateHold", "unspecified")

steps = st.lists(
    st.one_of(
        st.tuples(st.just("revoke"), st.integers(0, CERTIFICATES - 1), st.sampled_from(REASONS)),
        st.tuples(st.just("release"), st.integers(0, CERTIFICATES - 1), st.just("")),
        st.tuples(st.just("publish"), st.sampled_from((0, 1, 13, 90)), st.just("")),
        st.tuples(st.just("republish"), st.just(0), st.just("")),
    ),
    min_size=3,
    max_size=14,
)


class World:
    """One CA with shards and deltas whose clock the test turns."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.now, keystore = folder, NOW, MemoryKeyStore()
        self.inventory = open_it(f"sqlite:///{folder / 'inventory.db'}", folder)
        ocpp_authority(self.inventory, keystore=keystore)
        self.authority: Authority = make_authority(self.inventory, keystore=keystore, clock=lambda: self.now)
        self.authority.configure_crls("t-sub", CrlSettings(3, 24))

    def issue(self) -> list[IssuedCertificate]:
        # Each with a key of its own: a compromised one is not certified again.
        orders = [IssueOrder("t-sub", STATION, csr=make_csr(f"CS-{number}")) for number in range(CERTIFICATES)]
        found = [answer for answer in self.authority.issue_many(orders) if isinstance(answer, IssuedCertificate)]
        assert len(found) == CERTIFICATES
        return found

    def act(self, step: tuple[str, int, str], ids: list[str]) -> None:
        verb, which, reason = step
        try:
            if verb == "revoke":
                self.authority.revoke(ids[which], reason)
            elif verb == "release":
                self.authority.release(ids[which])
        except ChargePkiError:
            return  # What the standard does not allow is refused, and changes nothing.


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One world for all examples; each issues certificates of its own."""
    made = World(tmp_path_factory.mktemp("truth"))
    yield made
    made.inventory.close()


Status = dict[int, str | None]
_REASON = x509.ReasonFlags


def listed(der: bytes) -> Status:
    """Return the reasons of a list by serial, as another parser reads them."""
    found: Status = {}
    for entry in x509.load_der_x509_crl(der):
        try:
            found[entry.serial_number] = entry.extensions.get_extension_for_class(x509.CRLReason).value.reason.value
        except x509.ExtensionNotFound:
            found[entry.serial_number] = "unspecified"
    return found


def with_delta(base: Status, delta: Status) -> Status:
    """Return what a relying party of RFC 5280 6.3.3 makes of a base and a delta."""
    merged = {**base, **delta}
    return {serial: reason for serial, reason in merged.items() if reason != _REASON.remove_from_crl.value}


@settings(
    max_examples=examples(8),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    deadline=None,
)
@given(steps)
def test_full_list_base_with_delta_and_shard_all_tell_the_truth_of_the_inventory(
    world: World, sequence: list[tuple[str, int, str]]
) -> None:
    ids = [issued.record.id for issued in world.issue()]
    fulls: list[tuple[int, datetime, Status]] = []
    numbers = [crl.number for crl in world.inventory.list_crls("t-sub@1")]
    for step in (*sequence, ("publish", 0, "")):
        world.act(step, ids)
        if step[0] not in ("publish", "republish"):
            continue
        world.now += timedelta(hours=step[1])
        due = step[0] == "publish"
        published = world.authority.publish_due("t-sub") if due else world.authority.publish_lists("t-sub")
        assert all(crl.number > max(numbers, default=0) for crl in published.lists)
        numbers += [crl.number for crl in published.lists]
        check(world, ids, fulls)
    assert world.authority.check_lists("t-sub") == ()


def check(world: World, ids: list[str], fulls: list[tuple[int, datetime, Status]]) -> None:
    """Hold all that is published against the inventory; *fulls* are the full lists that somebody may still have."""
    records = [world.inventory.get_certificate(each) for each in ids]
    truth = {int(r.serial, 16): r.revocation_reason for r in records if r.state is CertificateState.REVOKED}
    mine = {int(record.serial, 16) for record in records}

    def told(status: Status) -> Status:
        return {serial: reason for serial, reason in status.items() if serial in mine}

    full = world.inventory.latest_crl("t-sub@1")
    delta = world.inventory.latest_delta_crl("t-sub@1")
    assert full is not None and delta is not None and world.now <= full.next_update
    assert told(listed(full.der)) == truth
    fulls.append((full.number, full.next_update, listed(full.der)))
    for number, until, status in fulls:
        if until < world.now or number >= delta.number:
            continue
        assert delta.base <= number, "a list that is still relied on is older than the base of the delta"
        assert told(with_delta(status, listed(delta.der))) == truth
    for record in records:
        assert record.shard is not None
        shard = world.inventory.latest_shard_crl("t-sub@1", record.shard)
        assert shard is not None and world.now <= shard.next_update
        in_it = told(listed(shard.der))
        assert in_it.get(int(record.serial, 16)) == truth.get(int(record.serial, 16))


def test_our_own_validator_believes_shard_and_delta(world: World) -> None:
    issued_now = world.issue()
    # Four of them lie in two shards of three places: two in one, and one elsewhere.
    shards_used = [issued.record.shard for issued in issued_now]
    common = next(shard for shard in shards_used if shards_used.count(shard) > 1)
    good, held = [issued for issued in issued_now if issued.record.shard == common][:2]
    other = next(issued for issued in issued_now if issued.record.shard != common)
    root = world.inventory.get_ca("t-root").certificate_der
    assert root is not None
    world.authority.publish_lists("t-root")
    before = world.authority.publish_lists("t-sub").full
    world.authority.revoke(held.record.id, "certificateHold")
    published = world.authority.publish_due("t-sub")
    root_list = world.inventory.latest_crl("t-root@1")
    assert before is not None and published.delta is not None and root_list is not None

    def verdict(issued: IssuedCertificate, *lists: bytes) -> str:
        try:
            evidence = Revocation(RevocationMode.REQUIRE, crls=(root_list.der, *lists))
            verify_chain(issued.chain[0], issued.chain[1:], [root], at=world.now, revocation=evidence)
        except ChargePkiError as error:
            return error.what
        return "good"

    assert verdict(held, before.der) == "good"
    assert "revoked" in verdict(held, before.der, published.delta.der)
    shards = [crl.der for crl in published.shards]
    assert "revoked" in verdict(held, *shards)
    assert verdict(good, *shards) == "good"
    assert "unknown" in verdict(other, *shards)
    world.authority.release(held.record.id)
    after = world.authority.publish_due("t-sub")
    assert after.delta is not None and verdict(held, before.der, after.delta.der) == "good"


SERIALS = st.integers(1, (1 << 159) - 1)
INSTANTS = st.datetimes(datetime(1990, 1, 1), datetime(2070, 1, 1)).map(  # noqa: DTZ001  # given a zone just below
    lambda at: at.replace(microsecond=0, tzinfo=NOW.tzinfo)
)
ENTRIES = st.lists(
    st.builds(
        RevokedEntry,
        SERIALS,
        INSTANTS,
        st.sampled_from([None, *(reason for reason in ReasonCode if reason is not ReasonCode.REMOVE_FROM_CRL)]),
        st.none() | INSTANTS,
    ),
    max_size=6,
    unique_by=lambda entry: entry.serial,
)


@settings(max_examples=examples(40), deadline=None)
@given(ENTRIES, SERIALS)
def test_a_list_whose_entries_are_taken_on_trust_is_judged_as_if_each_were_read(
    entries: list[RevokedEntry], other: int
) -> None:
    run = b"".join(encode_entry(entry) for entry in entries)
    at = max((entry.revoked_at for entry in entries), default=NOW) + timedelta(seconds=1)
    crl = unsigned(run, at)
    assert lint_crl(crl) == lint_crl(crl, entries_judged=True)
    assert [run[start:end] for start, end in split_entries(run)] == [encode_entry(entry) for entry in entries]
    for entry in entries:
        place = find_entry(run, entry.serial)
        assert place is not None and run[place[0] : place[1]] == encode_entry(entry)
    assert (find_entry(run, other) is not None) is (other in {entry.serial for entry in entries})


def unsigned(run: bytes, at: datetime) -> bytes:
    """Return the to-be-signed list of a run of entries."""
    return build_crl_tbs(
        issuer_name_der=names.name_der(names.parse_rdns("CN=issuer")),
        authority_key_id=bytes(20),
        number=1,
        this_update=at,
        next_update=at + timedelta(days=7),
        encoded_entries=run,
        signature_algorithm_der=keys.signature_algorithm(KeyAlgorithm.SECP256R1).der,
    )


def test_the_log_accounts_for_every_row_that_this_left(world: World) -> None:
    assert log_findings(world.inventory, world.folder) == []
