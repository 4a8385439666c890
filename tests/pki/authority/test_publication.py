"""Lists cut into shards, deltas to them, the files and answers that hold them, and what they are joined from."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from chargepki.pki.authority import Authority, IssueOrder
from chargepki.pki.authority.artefacts import find_artefact
from chargepki.pki.authority.publication import due_lists
from chargepki.pki.authority.shards import MAX_SHARD_BYTES, MAX_SHARD_SIZE, CrlSettings, ShardChooser
from chargepki.pki.crl import RevokedEntry, parse_crl
from chargepki.pki.crl_entry import ReasonCode, encode_entry
from chargepki.pki.errors import ChargePkiError, InputError, StateError
from chargepki.pki.inventory import Inventory
from chargepki.pki.inventory.records import CaRecord, CertificateRecord, CrlShardRecord
from chargepki.pki.lint import lint_crl
from testkit.authorities import NOW, PUBLIC_URL, MemoryKeyStore, log_findings, make_authority, make_csr, ocpp_authority
from testkit.authorities import open_inventory as open_it

STATION = "ocpp/charging-station"
SHARDS = CrlSettings(shard_size=2)
DELTAS = CrlSettings(delta_hours=24)


def issue(authority: Authority, *names: str) -> list[CertificateRecord]:
    """Return fresh station certificates, issued in one batch."""
    orders = [IssueOrder(ca="t-sub", profile=STATION, csr=make_csr(name)) for name in names]
    found: list[CertificateRecord] = []
    for answer in authority.issue_many(orders):
        assert not isinstance(answer, ChargePkiError), answer
        found.append(answer.record)
    return found


def points_to(record: CertificateRecord) -> str:
    """Return the URL of the list that the certificate names."""
    assert record.der is not None
    points = x509.load_der_x509_certificate(record.der).extensions.get_extension_for_class(x509.CRLDistributionPoints)
    return only_name(points.value[0].full_name)


def only_name(names: list[x509.GeneralName] | None) -> str:
    """Return the one name of a distribution point."""
    assert names is not None and len(names) == 1
    return str(names[0].value)


def serials(der: bytes) -> set[str]:
    """Return the serials of a list, as another parser reads them."""
    return {f"{entry.serial_number:x}" for entry in x509.load_der_x509_crl(der)}


def clocked(inventory: Inventory, keystore: MemoryKeyStore, **options: Path) -> tuple[Authority, list[datetime]]:
    """Return an authority whose clock is the last of the returned instants."""
    clock = [NOW]
    authority = make_authority(
        inventory, keystore=keystore, clock=lambda: clock[-1], publish_folder=options.get("folder")
    )
    return authority, clock


def test_certificates_fill_one_shard_after_the_other_and_name_it(authority: Authority) -> None:
    before = issue(authority, "CS-0")[0]
    authority.configure_crls("t-sub", SHARDS)
    records = [*issue(authority, "CS-1", "CS-2", "CS-3"), *issue(authority, "CS-4"), *issue(authority, "CS-5")]
    assert [record.shard for record in records] == [1, 1, 2, 2, 3]
    assert [points_to(record) for record in records[1:3]] == [
        f"{PUBLIC_URL}/crl/t-sub@1/1.crl",
        f"{PUBLIC_URL}/crl/t-sub@1/2.crl",
    ]
    assert before.shard is None and points_to(before) == f"{PUBLIC_URL}/crl/t-sub@1.crl"
    # The list is there before the first certificate that names it leaves.
    for number in (1, 2, 3):
        assert find_artefact(authority.inventory, f"/crl/t-sub@1/{number}.crl", NOW) is not None


def test_a_shard_names_its_url_and_has_its_own_certificates_only_and_the_full_list_has_all(
    authority: Authority,
) -> None:
    (plain,) = issue(authority, "CS-0")
    authority.configure_crls("t-sub", SHARDS)
    first, _, second = issue(authority, "CS-1", "CS-2", "CS-3")
    for record in (plain, first, second):
        authority.revoke(record.id, "keyCompromise")
    published = authority.publish_lists("t-sub")
    assert published.full is not None
    assert serials(published.full.der) == {plain.serial, first.serial, second.serial}
    assert [serials(crl.der) for crl in published.shards] == [{first.serial}, {second.serial}]
    for crl, record in zip(published.shards, (first, second), strict=True):
        extension = x509.load_der_x509_crl(crl.der).extensions.get_extension_for_class(x509.IssuingDistributionPoint)
        assert extension.critical and only_name(extension.value.full_name) == points_to(record)
    numbers = [crl.number for crl in published.lists]
    assert numbers == sorted(set(numbers))
    assert authority.check_lists("t-sub") == ()


def test_a_revocation_signs_the_full_list_and_the_shard_it_belongs_to(authority: Authority) -> None:
    authority.configure_crls("t-sub", SHARDS)
    first, _, second = issue(authority, "CS-1", "CS-2", "CS-3")
    authority.publish_crl("t-sub")
    assert not authority.publish_due("t-sub").lists
    authority.revoke(second.id, "superseded")
    published = authority.publish_due("t-sub")
    assert published.full is not None and [crl.shard for crl in published.shards] == [second.shard]
    authority.revoke(first.id, "certificateHold")
    authority.release(first.id)
    again = authority.publish_due("t-sub")
    assert [(crl.shard, crl.entries) for crl in again.shards] == [(first.shard, 0)]


def test_two_processes_share_the_last_place_of_a_shard(
    inventory: Inventory, keystore: MemoryKeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = ocpp_authority(inventory, keystore=keystore)
    other = make_authority(inventory, keystore=keystore)
    one.configure_crls("t-sub", SHARDS)
    issue(one, "CS-1")
    choose, races = ShardChooser.choose, iter([True])

    def late(self: ShardChooser, ca: CaRecord) -> CrlShardRecord | None:
        chosen = choose(self, ca)
        if next(races, False):
            # Another process takes the place between the building of the bytes and their reservation.
            issue(one, "CS-2")
        return chosen

    monkeypatch.setattr(ShardChooser, "choose", late)
    (record,) = issue(other, "CS-3")
    assert record.shard == 2 and points_to(record).endswith("/2.crl")
    assert [inventory.count_in_shard("t-sub@1", number) for number in (1, 2)] == [2, 1]


def test_another_public_url_opens_another_shard(inventory: Inventory, keystore: MemoryKeyStore) -> None:
    authority = ocpp_authority(inventory, keystore=keystore)
    authority.configure_crls("t-sub", CrlSettings(shard_size=10))
    moved = make_authority(inventory, keystore=keystore, public_url="http://crl.example.net")
    records = [*issue(authority, "CS-1"), *issue(moved, "CS-2"), *issue(authority, "CS-3"), *issue(moved, "CS-4")]
    assert [record.shard for record in records] == [1, 2, 1, 2]
    for record in records:
        found = find_artefact(inventory, f"/crl/t-sub@1/{record.shard}.crl", NOW)
        assert found is not None and parse_crl(found.data).distribution_point_url == points_to(record)


def test_a_full_shard_stays_under_64_kib_with_the_longest_entries() -> None:
    entry = encode_entry(RevokedEntry((1 << 159) - 1, NOW.replace(year=2060), ReasonCode.KEY_COMPROMISE, NOW))
    assert len(entry) * MAX_SHARD_SIZE < MAX_SHARD_BYTES - 4096


@pytest.mark.parametrize("settings", [CrlSettings(0), CrlSettings(MAX_SHARD_SIZE + 1), CrlSettings(None, 0)])
def test_lists_that_cannot_be_cut_so_are_refused(authority: Authority, settings: CrlSettings) -> None:
    with pytest.raises(InputError):
        authority.configure_crls("t-sub", settings)


def test_a_delta_brings_every_list_that_is_still_relied_on_up_to_date(
    inventory: Inventory, keystore: MemoryKeyStore
) -> None:
    authority = ocpp_authority(inventory, keystore=keystore)
    authority, clock = clocked(inventory, keystore)
    authority.configure_crls("t-sub", DELTAS)
    early, late, held = issue(authority, "CS-1", "CS-2", "CS-3")
    authority.revoke(early.id, "superseded")
    base = authority.publish_lists("t-sub")
    assert base.full is not None and base.delta is not None
    assert base.full.number == base.delta.number == base.delta.base and base.delta.entries == 0
    clock.append(NOW + timedelta(days=3))
    authority.revoke(late.id, "keyCompromise")
    authority.revoke(held.id, "certificateHold")
    second = authority.publish_due("t-sub")
    clock.append(NOW + timedelta(days=4))
    authority.release(held.id)
    third = authority.publish_due("t-sub")
    assert third.full is not None and third.delta is not None and third.delta.base == base.full.number
    delta = parse_crl(third.delta.der)
    assert delta.delta_base_number == base.full.number and delta.number == third.full.number
    told = {f"{entry.serial:x}": entry.reason for entry in delta.entries}
    assert told == {late.serial: ReasonCode.KEY_COMPROMISE, held.serial: ReasonCode.REMOVE_FROM_CRL}
    assert not lint_crl(third.delta.der, issuer_der=inventory.get_ca("t-sub").certificate_der).errors
    freshest = x509.load_der_x509_crl(third.full.der).extensions.get_extension_for_class(x509.FreshestCRL)
    assert only_name(freshest.value[0].full_name) == f"{PUBLIC_URL}/crl/t-sub@1-delta.crl"
    # Once nobody relies on the first list any more, deltas begin at the next one.
    clock.append(NOW + timedelta(days=7, seconds=1))
    fourth = authority.publish_due("t-sub")
    assert second.full is not None and fourth.delta is not None and fourth.delta.base == second.full.number


def test_a_delta_is_renewed_between_full_lists(inventory: Inventory, keystore: MemoryKeyStore) -> None:
    ocpp_authority(inventory, keystore=keystore)
    authority, clock = clocked(inventory, keystore)
    authority.configure_crls("t-sub", DELTAS)
    first = authority.publish_lists("t-sub")
    clock.append(NOW + timedelta(hours=11))
    assert not authority.publish_due("t-sub").lists
    clock.append(NOW + timedelta(hours=12))
    (delta,) = authority.publish_due("t-sub").lists
    assert first.full is not None and delta.number > first.full.number and not authority.publish_due("t-sub").lists
    authority.configure_crls("t-sub", CrlSettings())
    assert find_artefact(inventory, "/crl/t-sub@1-delta.crl", clock[-1]) is None


def test_files_follow_the_inventory_and_lists_whose_time_is_over_leave(
    inventory: Inventory, keystore: MemoryKeyStore, tmp_path: Path
) -> None:
    ocpp_authority(inventory, keystore=keystore)
    folder = tmp_path / "www"
    authority, clock = clocked(inventory, keystore, folder=folder)
    authority.configure_crls("t-sub", CrlSettings(2, 24))
    (record,) = issue(authority, "CS-1")
    shard, delta, full = (folder / "crl" / name for name in ("t-sub@1/1.crl", "t-sub@1-delta.crl", "t-sub@1.crl"))
    assert parse_crl(shard.read_bytes()).entries == ()
    # A process that has no folder publishes; one that has only to look brings the files up to date.
    other = make_authority(inventory, keystore=keystore)
    other.revoke(record.id, "superseded")
    other.publish_due("t-sub")
    authority.publish_files("t-sub")
    for path, url in ((shard, "/crl/t-sub@1/1.crl"), (full, "/crl/t-sub@1.crl"), (delta, "/crl/t-sub@1-delta.crl")):
        found = find_artefact(inventory, url, NOW)
        assert found is not None and path.read_bytes() == found.data and found.media_type == "application/pkix-crl"
    shard.write_bytes(b"overwritten by somebody")
    authority.publish_files("t-sub")
    assert record.serial in serials(shard.read_bytes())
    clock.append(NOW + timedelta(days=7, seconds=1))
    authority.publish_files("t-sub")
    assert not shard.exists() and not full.exists() and not delta.exists()
    assert find_artefact(inventory, "/crl/t-sub@1.crl", clock[-1]) is None
    assert (folder / "ca" / "t-sub@1.cer").exists()


@pytest.mark.parametrize(
    "path",
    [
        "/crl/t-sub@1",
        "/crl/t-sub.crl",
        "/crl/t-sub@2.crl",
        "/crl/t-sub@1/0.crl",
        "/crl/t-sub@1/9.crl",
        "/crl/t-sub@1/99999999999999999999.crl",
        "/crl/../audit.key",
        "/crl/t-sub@1.crl\n",
        "/ca/none@1.cer",
        "",
    ],
)
def test_a_path_of_nothing_is_answered_by_nothing(authority: Authority, path: str) -> None:
    authority.publish_crl("t-sub")
    assert find_artefact(authority.inventory, path, NOW) is None


def test_older_lists_keep_their_record_and_give_up_their_bytes(authority: Authority) -> None:
    authority.configure_crls("t-sub", CrlSettings(2, 24))
    issue(authority, "CS-1")
    for _ in range(3):
        authority.publish_lists("t-sub")
    kept = [crl for crl in authority.inventory.list_crls("t-sub@1") if crl.der]
    assert len(kept) == 2 and {crl.shard for crl in kept} == {None, 1}
    assert len(list(authority.inventory.list_crls("t-sub@1"))) == 8


# -- what lists are joined from ---------------------------------------------------------------------------------------


def sqlite_of(folder: Path, change: Callable[[sqlite3.Connection], object]) -> None:
    """Change a closed SQLite inventory behind its back."""
    with sqlite3.connect(folder / "inventory.db") as connection:
        change(connection)
    connection.close()


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, MemoryKeyStore]:
    """An SQLite inventory of two revoked certificates and one on hold, whose lists are published."""
    place, keystore = tmp_path_factory.mktemp("template"), MemoryKeyStore()
    inventory = open_it(f"sqlite:///{place / 'inventory.db'}", place)
    authority = ocpp_authority(inventory, keystore=keystore)
    for record, reason in zip(
        issue(authority, "CS-1", "CS-2", "CS-3"), ("superseded", "keyCompromise", "certificateHold"), strict=True
    ):
        authority.revoke(record.id, reason)
    authority.publish_crl("t-sub")
    assert authority.check_lists("t-sub") == () and log_findings(inventory, place) == []
    inventory.close()
    return place, keystore


@pytest.fixture
def folder(template: tuple[Path, MemoryKeyStore], tmp_path: Path) -> Path:
    """A copy of the template's inventory, to be spoilt."""
    return shutil.copytree(template[0], tmp_path / "copy")


@pytest.fixture
def reopened(template: tuple[Path, MemoryKeyStore], folder: Path) -> Iterator[Callable[[], Authority]]:
    """Open the inventory of the folder again, after what was done to it."""
    opened: list[Inventory] = []

    def reopen() -> Authority:
        opened.append(open_it(f"sqlite:///{folder / 'inventory.db'}", folder))
        return make_authority(opened[-1], keystore=template[1])

    yield reopen
    for inventory in opened:
        inventory.close()


def test_certificates_that_were_revoked_before_entries_were_stored_are_listed(
    folder: Path, reopened: Callable[[], Authority]
) -> None:
    # The state of an inventory that an older release wrote: no segments, no changes, no columns filled.
    for sql in (
        "DELETE FROM crl_segment",
        "DELETE FROM revocation_change",
        "UPDATE crl SET changes = NULL",
    ):
        sqlite_of(folder, lambda connection, sql=sql: connection.execute(sql))  # type: ignore[misc]  # binds the loop's value
    authority = reopened()
    ca = authority.inventory.get_ca("t-sub")
    assert due_lists(authority.inventory, ca, NOW).full
    held = next(record for record in authority.inventory.list_revoked(ca.id) if "CS-3" in record.subject)
    authority.release(held.id)
    assert len(serials(authority.publish_crl("t-sub").der)) == 2
    assert authority.check_lists("t-sub") == ()


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("UPDATE crl_segment SET content = x'3000', sha256 = 'x'", "do not have their digest"),
        ("UPDATE crl_segment SET content = substr(content, 1, length(content) - 1)", "do not divide"),
        ("UPDATE certificate SET revocation_reason = 'superseded' WHERE revocation_reason = 'keyCompromise'", "stored"),
        ("UPDATE certificate SET state = 'issued' WHERE revocation_reason = 'superseded'", "no revoked certificate"),
        ("UPDATE crl SET der = x'30' WHERE ca = 't-sub@1'", "cannot be decoded"),
    ],
)
def test_a_difference_between_entries_and_certificates_is_named(
    folder: Path, reopened: Callable[[], Authority], sql: str, words: str
) -> None:
    sqlite_of(folder, lambda connection: connection.execute(sql))
    authority = reopened()
    problems = authority.check_lists("t-sub")
    assert problems and any(words in problem for problem in problems), problems


def test_damaged_entries_are_not_published_until_they_are_repaired(
    folder: Path, reopened: Callable[[], Authority]
) -> None:
    sqlite_of(
        folder, lambda db: db.execute("UPDATE crl_segment SET content = CAST(substr(content, 2) || x'00' AS BLOB)")
    )
    authority = reopened()
    with pytest.raises(StateError, match="damaged"):
        authority.publish_crl("t-sub")
    assert authority.repair_entries("t-sub") == 3
    assert len(serials(authority.publish_crl("t-sub").der)) == 3
    assert authority.check_lists("t-sub") == ()


def test_a_missing_entry_is_not_published(folder: Path, reopened: Callable[[], Authority]) -> None:
    sqlite_of(
        folder,
        lambda db: db.execute("UPDATE certificate SET state = 'issued' WHERE revocation_reason = 'superseded'"),
    )
    authority = reopened()
    with pytest.raises(StateError, match="2 revoked certificates, but 3 entries"):
        authority.publish_crl("t-sub")


def test_an_entry_from_a_clock_that_went_back_is_read_before_it_is_signed(
    template: tuple[Path, MemoryKeyStore], reopened: Callable[[], Authority]
) -> None:
    inventory = reopened().inventory
    early = make_authority(inventory, keystore=template[1], clock=lambda: NOW - timedelta(hours=1))
    # Only a warning, but one that must be found: nothing skips the rules about entries then.
    crl = early.publish_crl("t-sub")
    found = [finding.rule for finding in lint_crl(crl.der).findings]
    assert "w_crl_revoked_after_this_update" in found
