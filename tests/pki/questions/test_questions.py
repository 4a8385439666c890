"""The questions about everything: both databases agree with a plain evaluation in Python."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chargepki.pki.algorithms import UNREADABLE, algorithms_of
from chargepki.pki.inventory import Inventory
from chargepki.pki.inventory.filter_fields import attribute_of
from chargepki.pki.inventory.filter_parser import parse_filter
from chargepki.pki.inventory.filters import Filter, matches
from chargepki.pki.inventory.records import CertificateRecord, CertificateState
from chargepki.pki.inventory.traits import with_traits
from chargepki.pki.questions import (
    CENSUS_BY,
    Cliff,
    CliffRule,
    KeyReuseKind,
    Publication,
    Span,
    expiry_timeline,
    find_cliffs,
    find_key_reuse,
    find_orphans,
    list_authorities,
    revocation_effects,
    summarise_revocations,
    take_census,
)
from testkit.databases import fresh_database
from testkit.databases import postgresql_server as postgresql_server
from testkit.effort import examples
from testkit.estates import CERTIFICATES, CHANGES, DELTAS, LISTS, fill_estate, made_cas
from testkit.inventories import NOW, issuance_record
from testkit.requests import make_csr

DAY = timedelta(days=1)
CHECKED = settings(max_examples=examples(6), deadline=None, suppress_health_check=[HealthCheck.too_slow])
FILTERS = st.sampled_from(
    ["state != 'voided'", "country = 'DE'", "ca = 's@1' and not station is null", "profile = 'ocpp/csms' or ca = 'r'"]
).map(lambda text: parse_filter(text, now=NOW))
INSTANTS = st.integers(-400, 200).map(lambda hours: NOW + timedelta(hours=hours * 6))


@pytest.fixture(scope="module")
def both(postgresql_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Inventory, Inventory]]:
    """The same estate in SQLite and in PostgreSQL."""
    folder = tmp_path_factory.mktemp("estate")
    with (
        fresh_database(postgresql_server) as url,
        closing(fill_estate(f"sqlite:///{folder / 'i.db'}", folder)) as one,
        closing(fill_estate(url, folder)) as other,
    ):
        yield one, other


def chosen(wanted: Filter, at: datetime, *, only_valid: bool = True) -> list[CertificateRecord]:
    """Return what counts, by the words of the definition."""
    found = [row for row in CERTIFICATES if matches(wanted, row)]
    return [row for row in found if row.state == "issued" and row.not_after >= at] if only_valid else found


@CHECKED
@given(wanted=FILTERS, at=INSTANTS, span=st.sampled_from(Span), window=st.integers(1, 40), share=st.floats(0.01, 1))
def test_timeline_and_cliffs_agree(
    both: tuple[Inventory, Inventory], wanted: Filter, at: datetime, span: Span, window: int, share: float
) -> None:
    rows = chosen(wanted, at)
    expected = Counter((span.begin(row.not_after.astimezone(UTC).date()), row.profile) for row in rows)
    rule = CliffRule(window, share, 2)
    for inventory in both:
        found = expiry_timeline(inventory, at, wanted=wanted, span=span, rule=rule)
        assert found.valid == len(rows) == sum(each.certificates for each in found.buckets)
        assert [each.begin for each in found.buckets] == sorted({begin for begin, _ in expected})
        told = {(each.begin, profile): number for each in found.buckets for profile, number in each.by_profile.items()}
        assert told == dict(expected)
        assert list(found.cliffs) == plain_cliffs([(row.not_after.date(), row.profile) for row in rows], rule)


def plain_cliffs(expiries: list[tuple[date, str]], rule: CliffRule) -> list[Cliff]:
    """Find cliffs by trying every first day again and again."""
    found = []
    for profile in sorted({profile for _, profile in expiries}):
        days = sorted(day for day, name in expiries if name == profile)
        total = len(days)
        while days:
            inside = max(
                ([day for day in days if begin <= day < begin + rule.window * DAY] for begin in sorted(set(days))),
                key=len,
            )
            if len(inside) < rule.minimum or len(inside) < rule.share * total:
                break
            found.append(Cliff(profile, inside[0], inside[-1], len(inside), len(inside) / total))
            days = [day for day in days if day not in inside]
    return sorted(found, key=lambda each: (each.begin, each.profile))


def test_even_renewal_is_no_cliff_and_a_batch_is_one() -> None:
    even = [(date(2026, 3, 1) + number * DAY, "ocpp/charging-station", 20) for number in range(60)]
    assert not find_cliffs(even, CliffRule())
    (found,) = find_cliffs([*even, (date(2026, 3, 20), "ocpp/charging-station", 900)], CliffRule())
    assert found.certificates == 900 + 7 * 20
    assert found.begin <= date(2026, 3, 20) <= found.end
    for bad in ((0, 0.5, 1), (1, 0.0, 1), (1, 1.1, 1), (1, 0.5, 0)):
        with pytest.raises(ValueError, match="cliff"):
            CliffRule(*bad)


@CHECKED
@given(wanted=FILTERS, at=INSTANTS, only_valid=st.booleans(), by=st.sampled_from(tuple(CENSUS_BY)))
def test_census_agrees(
    both: tuple[Inventory, Inventory], wanted: Filter, at: datetime, only_valid: bool, by: str
) -> None:
    def value(row: CertificateRecord) -> str | None:
        if by == "issued":
            return None if row.issued_at is None else str(row.issued_at.year)
        if by in ("key", "algorithm", "signature"):
            return None if row.der is None else getattr(algorithms_of(row.der), by.replace("algorithm", "key"))
        if by in ("country", "organization", "vendor"):
            return attribute_of(row.subject, "C" if by == "country" else "O")
        if by == "issuer":
            return names[row.ca]
        return str(getattr(row, by))

    names = {ca.id: ca.subject for ca in both[0].list_cas(foreign=True)}
    expected = Counter(value(row) for row in chosen(wanted, at, only_valid=only_valid))
    for inventory in both:
        found = take_census(inventory, at, by, wanted=wanted, only_valid=only_valid)
        assert {row.value: row.certificates for row in found.rows} == dict(expected)
        assert found.total == sum(expected.values())
        assert [row.certificates for row in found.rows] == sorted(expected.values(), reverse=True)


def test_census_names_algorithms_and_sizes(both: tuple[Inventory, Inventory]) -> None:
    every = parse_filter("profile != 'ocpp/cso-sub'", now=NOW)
    rows = take_census(both[0], NOW, "key", wanted=every, only_valid=False).rows
    assert {row.value for row in rows} == {"secp256r1", "ed25519", "rsa2048", "secp521r1", None}
    der = made_cas().root.der
    assert algorithms_of(der) == ("secp256r1", "ecdsa-with-SHA256")
    broken = [der[:length] for length in range(len(der))] + [b"\x30\x84\xff\xff\xff\xff", b"\x30\x80", b"\x02\x01\x00"]
    assert {algorithms_of(each).signature for each in broken} == {UNREADABLE}
    with pytest.raises(ValueError, match="colour"):
        take_census(both[0], NOW, "colour")


@CHECKED
@given(wanted=FILTERS, at=INSTANTS, only_valid=st.booleans())
def test_key_reuse_agrees(both: tuple[Inventory, Inventory], wanted: Filter, at: datetime, only_valid: bool) -> None:
    groups: dict[str, list[CertificateRecord]] = {}
    for row in chosen(wanted, at, only_valid=only_valid):
        groups.setdefault(row.spki_sha256, []).append(row)
    expected = {}
    for key, rows in groups.items():
        stations = {row.station for row in rows} - {None}
        subjects = {row.subject_der for row in rows}
        cas = {row.ca for row in rows}
        if len(rows) > 1:
            expected[key] = len(rows), len(stations), len(cas), len(subjects), sorted(row.id for row in rows)[:10]
    for inventory in both:
        found = find_key_reuse(inventory, at, wanted=wanted, only_valid=only_valid)
        told = {
            each.key_sha256: (
                *(each.certificates, each.stations, each.cas, each.subjects),
                [name for name in each.examples if not name.startswith("CA ")],
            )
            for each in found
        }
        assert told == expected
        for each in found:
            if each.stations > 1:
                assert each.kind is KeyReuseKind.ACROSS_STATIONS
            elif each.subjects == 1:
                assert each.kind is KeyReuseKind.RENEWED
            else:
                assert each.kind in (KeyReuseKind.CA_KEY, KeyReuseKind.ACROSS_SUBJECTS)


@CHECKED
@given(at=st.integers(-200, 10).map(lambda hours: NOW + timedelta(hours=hours)))
def test_effect_of_revocations_agrees(both: tuple[Inventory, Inventory], at: datetime) -> None:
    numbers: dict[str, int] = {}
    for change in CHANGES:
        numbers[change.certificate] = max(change.seq, numbers.get(change.certificate, 0))
    lists = [(each.number, each.shard or 0, each.changes, each.this_update, each.ca) for each in LISTS]
    lists += [(each.number, 0, each.changes, each.this_update, each.ca) for each in DELTAS]
    ends = {each.number: (each.next_update, each.shard or 0) for each in LISTS}
    ends |= {each.number: (each.next_update, 0) for each in DELTAS}
    expected = {}
    for row in CERTIFICATES:
        if row.state is not CertificateState.REVOKED or row.revoked_at is None or row.revoked_at > at:
            continue
        number = numbers.get(row.id, 0)
        first = None
        for name, shard, changes, signed, ca in sorted(lists):
            if ca != row.ca or shard != (row.shard or 0) or signed > at:
                continue
            if (changes is not None and changes >= number) if number else (changes or signed >= row.revoked_at):
                first = name, signed
                break
        expected[row.id] = first
    for inventory in both:
        effects = list(revocation_effects(inventory, at))
        assert {each.certificate: each.list_number for each in effects} == {
            name: first and first[0] for name, first in expected.items()
        }
        for each in effects:
            row = next(row for row in CERTIFICATES if row.id == each.certificate)
            assert (each.latency is None) == (each.published_at is None)
            if each.published_at is None:
                is_over = row.not_after < at
                assert each.publication is (Publication.NEEDLESS if is_over else Publication.UNPUBLISHED)
            else:
                assert each.publication is Publication.PUBLISHED
                silent = [
                    end
                    for name, (end, shard) in ends.items()
                    if row.ca == "s@1" and shard == (row.shard or 0) and name < (each.list_number or 0)
                ]
                assert each.effective_at == max([each.published_at, *silent])
            assert (each.effective_at is None) == (each.published_at is None)
        keyed = [each for each in effects if each.reason == "keyCompromise"]
        compromised = parse_filter("revocation_reason = 'keyCompromise'", now=at)
        assert list(revocation_effects(inventory, at, wanted=compromised)) == keyed
        summary = summarise_revocations(effects, at)
        latencies = sorted(each.latency for each in effects if each.latency is not None)
        assert summary.revoked == len(effects) == sum(number for _, number in summary.by_reason)
        told = [each for each in effects if each.effective_at is not None]
        assert summary.pending == sum(each.effective_at > at for each in told if each.effective_at)
        delays = sorted(max(each.effective_at - each.revoked_at, timedelta(0)) for each in told if each.effective_at)
        assert summary.median_effect == (delays[(len(delays) + 1) // 2 - 1] if delays else None)
        assert summary.longest_latency == (latencies[-1] if latencies else None)
        assert summary.median_latency == (latencies[(len(latencies) + 1) // 2 - 1] if latencies else None)


def test_orphans_are_those_whose_issuer_is_not_there(both: tuple[Inventory, Inventory]) -> None:
    for inventory in both:
        (orphan,) = find_orphans(inventory)
        assert (orphan.subject, orphan.issuer) == ("CN=Stranger CA", "CN=Hidden CA")
        labels = [each.label for each in list_authorities(inventory)]
        assert [each for each in labels if "Stranger" not in each] == ["o@1", "o@1:ff", "r@1", "s@1"]
        assert [each.label for each in list_authorities(inventory) if each.is_root] == ["o@1", "r@1"]


def test_stale_answer_is_told(both: tuple[Inventory, Inventory]) -> None:
    sound = {each.certificate: each for each in revocation_effects(both[0], NOW)}
    victim = next(row for row in CERTIFICATES if row.state is CertificateState.REVOKED and row.not_after > NOW)
    assert sound[victim.id].publication is not Publication.STALE_ANSWER
    for inventory in both:
        stale = {"certificate": victim.id, "hash": "sha256", "ca": victim.ca, "status": "good", "signer": "s"}
        times = dict.fromkeys(("this_update", "next_update", "refresh_at"), "2026-03-01T00:00:00.000000Z")
        with inventory._database.session() as session:
            session.run("ocsp_put", {**stale, **times, "der": b"good"})
        found = {each.certificate: each.publication for each in revocation_effects(inventory, NOW, ca="s")}
        assert found.get(victim.id, Publication.STALE_ANSWER) is Publication.STALE_ANSWER
        told = [each for each in revocation_effects(inventory, NOW) if each.publication is Publication.STALE_ANSWER]
        assert [each.certificate for each in told] == [victim.id]
        with inventory._database.session() as session:
            session.execute("DELETE FROM ocsp_response")


def test_key_of_a_waiting_request_is_told(both: tuple[Inventory, Inventory]) -> None:
    import dataclasses

    from chargepki.pki import names
    from chargepki.pki.csr import parse_csr
    from chargepki.pki.inventory.codec import CERTIFICATE, ISSUANCE
    from chargepki.pki.keys import spki_sha256

    csr = parse_csr(make_csr(names.parse_rdns("CN=CS-1"))).der
    key = spki_sha256(parse_csr(csr).spki_der)
    holder = dataclasses.replace(CERTIFICATES[1], id="r@1:abc", serial="abc", spki_sha256=key, not_after=NOW + 9 * DAY)
    waiting = dataclasses.replace(issuance_record("w1"), ca="r@1", csr=csr)
    with both[0]._database.session() as session:
        session.run("certificate_insert", with_traits(CERTIFICATE.encode(holder)))
        session.run("issuance_insert", ISSUANCE.encode(waiting))
    (found,) = [each for each in find_key_reuse(both[0], NOW) if each.kind is KeyReuseKind.REQUESTED]
    assert (found.key_sha256, found.certificates, found.examples) == (key, 1, ("request w1",))
    with both[0]._database.session() as session:
        session.execute("DELETE FROM issuance WHERE id = 'w1'")
        session.execute("DELETE FROM certificate WHERE id = 'r@1:abc'")
