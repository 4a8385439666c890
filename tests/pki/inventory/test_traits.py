"""The traits of certificates: derived when they are stored, and for those of an older release when it is opened."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from chargepki.pki.inventory import Inventory, backfill
from chargepki.pki.inventory.address import DatabaseAddress, Dialect
from chargepki.pki.inventory.codec import CERTIFICATE
from chargepki.pki.inventory.engine import Database
from chargepki.pki.inventory.filter_fields import FIELDS, Step
from chargepki.pki.inventory.filter_parser import parse_filter
from chargepki.pki.inventory.filter_sql import count_statement, group_statement, traits_statement
from chargepki.pki.inventory.traits import derive_traits, read_traits, stored_traits, with_traits
from chargepki.pki.questions import take_census
from chargepki.pki.questions.timeline import valid_at
from testkit.authorities import open_inventory
from testkit.estates import CERTIFICATES, fill_estate
from testkit.inventories import NOW, fill

TO_0016 = (
    "DROP INDEX IF EXISTS ix_certificate_issued",
    "DROP INDEX IF EXISTS ix_certificate_expiry",
    "DROP INDEX IF EXISTS ix_certificate_census",
    "ALTER TABLE certificate DROP COLUMN traits",
    "ALTER TABLE saved_query DROP COLUMN kind",
    "CREATE INDEX ix_certificate_expiry ON certificate (not_after, state, profile, id)",
    "DROP TABLE verdict_form",
    "UPDATE alembic_version SET version_num = '0016'",
)


def stored(url: str) -> dict[str, str | None]:
    """Return the column of every certificate."""
    database = Database(DatabaseAddress.parse(url))
    with database.session() as session:
        found = {str(row[0]): row[1] for row in session.execute("SELECT id, traits FROM certificate")}
    database.close()
    return found


def expected() -> dict[str, str | None]:
    return {each.id: stored_traits(derive_traits(each.subject, each.tbs, each.der)) for each in CERTIFICATES}


@pytest.mark.parametrize("many", [1_000_000, 10])
def test_an_older_inventory_gets_its_traits(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, many: int
) -> None:
    fill_estate(database_url, tmp_path).close()
    database = Database(DatabaseAddress.parse(database_url))
    with database.session() as session:
        for statement in TO_0016:
            session.execute(statement)
    database.close()
    size, calls = len(CERTIFICATES) // 4, 0
    monkeypatch.setattr(backfill, "_MANY", many)
    monkeypatch.setattr(backfill.fill_traits, "__kwdefaults__", {"after": None, "size": size})
    write = backfill._write

    def interrupted(connection: object, found: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        write(connection, found)  # type: ignore[arg-type]  # what it was called with

    monkeypatch.setattr(backfill, "_write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        open_inventory(database_url, tmp_path)
    if many == 10:
        kept = [each for each in stored(database_url).values() if each is not None]
        assert len(kept) == 2 * size, "what was done ahead stays done"
    with closing(open_inventory(database_url, tmp_path)) as inventory:
        assert stored(database_url) == expected()
        assert take_census(inventory, NOW, "key").total > 0


def test_what_is_reserved_and_imported_has_its_traits(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'i.db'}"
    with closing(open_inventory(url, tmp_path)) as inventory:
        fill(inventory)
    found = stored(url)
    assert found and None not in found.values()


def test_traits_are_read_as_they_were_written() -> None:
    names = {"CN=a,O=Acme\\, Inc.,C=DE": ("DE", "Acme, Inc."), "CN=b": (None, None), "O=\\+C=FR": (None, "+C=FR")}
    for subject, (country, organization) in names.items():
        text = stored_traits(derive_traits(subject, None, None))
        assert text is not None
        assert read_traits(text) == (country, organization, None, None)


def test_long_names_fit_into_both_databases_and_are_counted(database_url: str, tmp_path: Path) -> None:
    long = "W" * 5000
    base = next(each for each in CERTIFICATES if each.der is not None and each.ca == "s@1")
    record = replace(base, id="s@1:abcdef0", serial="abcdef0", subject=f"CN=x,O={long},C=ZZ", request_key="id:long")
    values = with_traits(CERTIFICATE.encode(record))
    assert values["traits"] is None
    with closing(fill_estate(database_url, tmp_path)) as inventory:
        database = Database(DatabaseAddress.parse(database_url))
        with database.session() as session:
            session.run("certificate_insert", values)
        database.close()
        _check_long(inventory, long)


def _check_long(inventory: Inventory, long: str) -> None:
    wanted = parse_filter("country = 'ZZ'", now=NOW)
    (row,) = take_census(inventory, NOW, "vendor", wanted=wanted, only_valid=False).rows
    assert (row.value, row.certificates) == (long, 1)
    (by_key,) = take_census(inventory, NOW, "algorithm", wanted=wanted, only_valid=False).rows
    assert by_key.value in {"secp256r1", "ed25519", "rsa2048", "secp521r1"}


def test_indexes_hold_all_that_counts_and_censuses_ask_for(database_url: str, tmp_path: Path) -> None:
    soon = parse_filter("state = 'issued' and not_after >= now and not_after < now + 30d", now=NOW)
    with closing(fill_estate(database_url, tmp_path)) as inventory:
        dialect = inventory.dialect
        is_sqlite = dialect is Dialect.SQLITE
        whole = "ix_certificate_census" if is_sqlite else "ix_certificate_expiry"
        # An entry of PostgreSQL has no room for a requester.
        fields = ("ca", "requester", "issued_at") if is_sqlite else ("ca",)
        asked = (
            (count_statement(soon, dialect), whole if is_sqlite else "ix_certificate_issued"),
            (traits_statement(valid_at(NOW), dialect), whole),
            *((group_statement(valid_at(NOW), dialect, by=(FIELDS[by],), step=Step.YEAR), whole) for by in fields),
        )
        database = Database(DatabaseAddress.parse(database_url))
        with database.session() as session:
            if not is_sqlite:
                # So few rows are read as they lie.
                session.execute("VACUUM ANALYZE certificate")
                session.execute("SET enable_seqscan = off")
                session.execute("SET enable_bitmapscan = off")
            for (sql, parameters), index in asked:
                explained = session.execute(f"EXPLAIN {'QUERY PLAN ' if is_sqlite else ''}{sql}", parameters)
                plan = "\n".join(str(row[-1]) for row in explained)
                assert f"COVERING INDEX {index}" in plan or f"Index Only Scan using {index}" in plan, plan
        database.close()
