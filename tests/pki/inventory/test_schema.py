"""Tests that model, migrations, compiled statements and records say the same."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
import sqlmodel
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from chargepki.pki import inventory as package
from chargepki.pki.inventory import AuditKey, Inventory, codec, statements, traits
from chargepki.pki.inventory.address import DatabaseAddress, Dialect
from chargepki.pki.inventory.audit_chain import ENTRY_COLUMNS
from chargepki.pki.inventory.engine import Database
from chargepki.pki.inventory.migrate import alembic_config, make_engine
from chargepki.pki.inventory.schema import VERSIONS

pytestmark = pytest.mark.as_shipped


def test_the_compiled_statements_are_those_of_the_model() -> None:
    path = Path(str(package.__file__)).parent / "compiled.json"
    assert orjson.loads(path.read_bytes()) == statements.compile_all(), (
        "run: python -m chargepki.pki.inventory.statements"
    )


def test_the_migrations_make_exactly_the_model(database_url: str, log_key: AuditKey) -> None:
    Inventory.open(database_url, log_key=log_key).close()
    database = Database(DatabaseAddress.parse(database_url))
    engine = make_engine(database)
    with engine.connect() as connection:
        of_sqlite, of_postgresql = {"ix_certificate_census"}, {"ix_certificate_expiry", "ix_certificate_issued"}
        of_others = of_postgresql if database.dialect is Dialect.SQLITE else of_sqlite
        context = MigrationContext.configure(
            connection,
            opts={
                "compare_type": True,
                # Alembic does not look at which databases an index of the model is for.
                "include_object": lambda found, name, kind, reflected, other: reflected or name not in of_others,
            },
        )
        assert compare_metadata(context, sqlmodel.SQLModel.metadata) == []
    engine.dispose()
    database.close()


def test_the_known_versions_are_the_migrations() -> None:
    script = ScriptDirectory.from_config(alembic_config())
    assert tuple(reversed([revision.revision for revision in script.walk_revisions()])) == VERSIONS


def test_every_record_field_has_its_column_in_the_same_order() -> None:
    for name, kind in codec.ROW_KINDS.items():
        derived = (traits.COLUMN,) if kind is codec.CERTIFICATE else ()
        assert tuple(column.name for column in statements.TABLES[name].columns) == (*kind.columns, *derived), name
    assert tuple(column.name for column in statements.TABLES["audit_entry"].columns) == ENTRY_COLUMNS


def test_every_public_name_is_there() -> None:
    for name in package.__all__:
        assert getattr(package, name) is not None
    assert sorted(package.__all__) == package.__all__
