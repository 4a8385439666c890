"""Filters as SQL: SQLAlchemy Core with every value bound, compiled for the database at hand.

Only commands with a filter load SQLAlchemy; all other statements are compiled beforehand (`statements`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Select,
    and_,
    case,
    cast,
    column,
    exists,
    false,
    func,
    literal,
    literal_column,
    not_,
    or_,
    select,
    table,
    true,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.dialects.postgresql import JSONB, array
from sqlalchemy.dialects.postgresql.psycopg2 import PGDialect_psycopg2
from sqlalchemy.types import Integer, Text

from chargepki.pki.inventory import codec, traits
from chargepki.pki.inventory.address import Dialect
from chargepki.pki.inventory.codec import encode_time
from chargepki.pki.inventory.filter_fields import Field, Kind, Step, Value
from chargepki.pki.inventory.filters import And, Compare, Filter, Like, Missing, Not, OneOf, Or, lowered
from chargepki.pki.inventory.records import FOREIGN

__all__ = [
    "EXPORTED",
    "PROVENANCE",
    "array_statement",
    "content_statement",
    "count_statement",
    "der_statement",
    "group_statement",
    "json_statement",
    "key_member_statement",
    "page_statement",
    "placed_statement",
    "shared_key_statement",
    "traits_statement",
    "untraced_statement",
]

_DIALECTS: Final = {
    Dialect.SQLITE: sqlite.dialect(paramstyle="named"),
    # As `statements` does: no casts, which our columns' types make needless.
    Dialect.POSTGRESQL: PGDialect_psycopg2(paramstyle="pyformat"),  # type: ignore[no-untyped-call]  # SQLAlchemy's own
}
_CERTIFICATE: Final = table(
    "certificate",
    *(column(name, Integer() if name == "shard" else Text()) for name in (*codec.CERTIFICATE.columns, traits.COLUMN)),
)
_HEAVY: Final = frozenset({"tbs", "der", "csr", "verdict"})
_ESCAPES: Final = (("\\\\", "\x01"), ("\\,", "\x02"), ("\\+", "\x03"))
_C: Final = _CERTIFICATE.c
_PROVENANCE: Final = table("provenance", *(column(name, Text()) for name in codec.PROVENANCE.columns))
_IMPORT: Final = table("import_run", *(column(name, Text()) for name in codec.IMPORT_RUN.columns))
_P: Final = _PROVENANCE.c
_RUN: Final = _IMPORT.c
_OF_PLACES: Final[Mapping[str, ColumnElement[Any]]] = {
    "place": _P.place,
    "role": _P.role,
    **{name: _RUN[name] for name in ("source", "started_at", "imported_by")},
}
_CA: Final = table("ca", column("id", Text()), column("subject", Text()))
_ORIGIN: Final[ColumnElement[Any]] = case((_C.profile == FOREIGN, "imported"), else_="issued")
"""As `CertificateRecord.origin`."""
EXPORTED: Final = (
    "id",
    "ca",
    "issuer",
    "serial",
    "origin",
    "profile",
    "state",
    "subject",
    "not_before",
    "not_after",
    "sha256",
    "key_sha256",
    "station",
    "delivery",
    "requester",
    "request_key",
    "reserved_at",
    "issued_at",
    "revoked_at",
    "revocation_reason",
    "invalidity_date",
    "crl_shard",
)
"""What an export tells of a certificate, in this order; what else is asked for comes last."""
PROVENANCE: Final = ("source", "place", "role", "imported_at", "imported_by")
"""What it tells besides, when asked, of the first of the places where imports found a certificate, by name."""
_NAMED: Final = {"key_sha256": "spki_sha256", "crl_shard": "shard"}
_TIMES: Final = frozenset({"not_before", "not_after", "reserved_at", "issued_at", "revoked_at", "invalidity_date"})


def page_statement(
    found: Filter, dialect: Dialect, *, after: str | None, limit: int
) -> tuple[str, Mapping[str, object]]:
    """Return SQL and parameters for a page of certificates by id; DER, request and verdict are left out."""
    wanted = select(_C.id).where(_condition(found, dialect)).order_by(_C.id).limit(limit)
    if after is not None:
        wanted = wanted.where(_C.id > after)
    # The ids first: sorting whole rows would carry every certificate through the sorter.
    columns = [
        (literal("{}", Text()) if name == "verdict" else literal(None)).label(name) if name in _HEAVY else _C[name]
        for name in codec.CERTIFICATE.columns
    ]
    return _text(select(*columns).where(_C.id.in_(wanted)).order_by(_C.id), dialect)


def placed_statement(
    found: Compare | OneOf | Like, dialect: Dialect, *, limit: int
) -> tuple[str, Mapping[str, object]]:
    """Return SQL and parameters for the certificates of *limit* places that are as asked for, whichever."""
    joined = _PROVENANCE.join(_IMPORT, _RUN.id == _P.run)
    return _text(select(_P.certificate).select_from(joined).where(_of_place(found, dialect)).limit(limit), dialect)


def json_statement(
    found: Filter, dialect: Dialect, *, provenance: bool = False, also: Sequence[str] = ()
) -> tuple[str, Mapping[str, object]]:
    """Return SQL and parameters for each certificate that a filter asks for, by id, as the text of a JSON object.

    It holds the `EXPORTED` values. The database writes it in less time than it takes to fetch each value here.

    Args:
        provenance: and the `PROVENANCE`. Finding it takes SQLite half as long again as all the rest.
        also: columns of the certificate that follow as values of their own, such as ``der``.
    """
    values = [value.label(name) for name, value in _exported(provenance=provenance)]
    text: ColumnElement[Any]
    if dialect is Dialect.SQLITE:
        text = func.json_object(*(each for value in values for each in (literal(value.name), value.element)))
    else:
        # A record of its own, so that what follows is no part of it. As text: the driver would read JSON.
        record = select(*values).correlate(_CERTIFICATE, _CA, _PROVENANCE, _IMPORT).subquery("record")
        row: ColumnElement[Any] = select(literal_column("record")).select_from(record).scalar_subquery()
        text = cast(func.row_to_json(row), Text())
    wanted = select(text, *(_C[name] for name in also))
    return _text(_from_all(wanted, found, dialect, provenance=provenance), dialect)


def array_statement(found: Filter, dialect: Dialect, *, provenance: bool = False) -> tuple[str, Mapping[str, object]]:
    """Return SQL and parameters for the same values of each as the text of a JSON array of texts, in their order.

    A missing value is an empty text.
    """
    values = [value for _, value in _exported(provenance=provenance)]
    line: ColumnElement[Any]
    if dialect is Dialect.SQLITE:
        line = func.json_array(*(func.coalesce(_as_text(value), "") for value in values))
    else:
        texts = [func.coalesce(_as_text(value), "") for value in values]
        line = cast(func.array_to_json(array(texts)), Text())
    return _text(_from_all(select(line), found, dialect, provenance=provenance), dialect)


def der_statement(found: Filter, dialect: Dialect) -> tuple[str, Mapping[str, object]]:
    """Return SQL and parameters for the certificates themselves (DER) by id, of those that were signed."""
    signed = select(_C.der).where(_condition(found, dialect), _C.der.is_not(None))
    return _text(signed.order_by(_C.id), dialect)


def _exported(*, provenance: bool) -> Iterator[tuple[str, ColumnElement[Any]]]:
    """Yield what an export tells of a certificate."""
    for name in (*EXPORTED, *(PROVENANCE if provenance else ())):
        if name == "issuer":
            yield name, _CA.c.subject
        elif name == "origin":
            yield name, _ORIGIN
        elif name == "imported_at":
            yield name, func.substr(_RUN.started_at, 1, 19).concat("Z")
        elif name in _OF_PLACES:
            yield name, _OF_PLACES[name]
        elif name in _TIMES:
            # RFC 3339 to the second: cut off by the database, which is cheaper than reading each instant here.
            yield name, func.substr(_C[name], 1, 19).concat("Z")
        else:
            yield name, _C[_NAMED.get(name, name)]


def _as_text(value: ColumnElement[Any]) -> ColumnElement[Any]:
    return cast(value, Text()) if isinstance(value.type, Integer) else value


def _from_all(wanted: Select[Any], found: Filter, dialect: Dialect, *, provenance: bool) -> Select[Any]:
    joined = _CERTIFICATE.join(_CA, _CA.c.id == _C.ca)
    if provenance:
        others = _PROVENANCE.alias("other")
        first = select(func.min(others.c.place)).where(others.c.certificate == _C.id).correlate(_CERTIFICATE)
        at_first = and_(_P.certificate == _C.id, _P.place == first.scalar_subquery())
        joined = joined.outerjoin(_PROVENANCE, at_first).outerjoin(_IMPORT, _RUN.id == _P.run)
    return wanted.select_from(joined).where(_condition(found, dialect)).order_by(_C.id)


def count_statement(
    found: Filter, dialect: Dialect, *, by: Field | None = None, step: Step = Step.MONTH
) -> tuple[str, Mapping[str, object]]:
    """Return SQL and parameters that count, for each value of *by* the number of its certificates; times by *step*."""
    condition = _condition(found, dialect)
    if by is None:
        return _text(select(func.count()).select_from(_CERTIFICATE).where(condition), dialect)
    value = _grouped(by, step, dialect)
    counted = select(value, func.count().label("number")).select_from(_CERTIFICATE).where(condition).group_by(value)
    if by.kind is Kind.TIME:
        return _text(counted.order_by(value), dialect)
    return _text(counted.order_by(func.count().desc(), value), dialect)


def group_statement(
    found: Filter, dialect: Dialect, *, by: Sequence[Field], step: Step
) -> tuple[str, Mapping[str, object]]:
    """Return SQL and parameters that count for each combination of values of several fields, in their order."""
    values = [_grouped(field, step, dialect).label(f"value_{number}") for number, field in enumerate(by)]
    counted = select(*values, func.count()).select_from(_CERTIFICATE).where(_condition(found, dialect))
    return _text(counted.group_by(*values).order_by(*values), dialect)


def shared_key_statement(found: Filter, dialect: Dialect, *, limit: int) -> tuple[str, Mapping[str, object]]:
    """Return SQL and parameters for keys of more than one certificate, those of the most first.

    Columns: key, certificates, stations, CAs, subjects.
    """
    key, number = _C.spki_sha256, func.count().label("number")
    counted = select(key, number, *(func.count(each.distinct()) for each in (_C.station, _C.ca, _C.subject_der)))
    shared = counted.where(_condition(found, dialect)).group_by(key).having(func.count() > 1)
    return _text(shared.order_by(number.desc(), key).limit(limit), dialect)


def key_member_statement(
    found: Filter, dialect: Dialect, *, keys: Sequence[str], limit: int
) -> tuple[str, Mapping[str, object]]:
    """Return SQL and parameters for the first *limit* certificates of each key by id: key, id."""
    position = func.row_number().over(partition_by=_C.spki_sha256, order_by=_C.id).label("position")
    inner = select(_C.spki_sha256, _C.id, position).where(_C.spki_sha256.in_(keys), _condition(found, dialect))
    members = inner.subquery("member")
    wanted = select(members.c.spki_sha256, members.c.id).where(members.c.position <= limit)
    return _text(wanted.order_by(members.c.spki_sha256, members.c.id), dialect)


def content_statement(
    found: Filter, dialect: Dialect, *, columns: Sequence[str], after: str | None, limit: int
) -> tuple[str, Mapping[str, object]]:
    """Return SQL and parameters for a page of certificates by id, with these columns alone."""
    wanted = select(*(_C[name] for name in columns)).where(_condition(found, dialect)).order_by(_C.id).limit(limit)
    return _text(wanted if after is None else wanted.where(_C.id > after), dialect)


def traits_statement(found: Filter, dialect: Dialect) -> tuple[str, Mapping[str, object]]:
    """Return SQL and parameters that count for each combination of traits and state: an index holds all of it."""
    condition = _condition(found, dialect)
    counted = select(_C.traits, _C.state, func.count()).select_from(_CERTIFICATE).where(condition)
    return _text(counted.group_by(_C.traits, _C.state), dialect)


def untraced_statement(
    found: Filter, dialect: Dialect, *, after: str | None, limit: int
) -> tuple[str, Mapping[str, object]]:
    """Return SQL and parameters for a page, by id, of what traits are derived from where the column has none."""
    columns = (_C.id, _C.state, *(_C[name] for name in traits.SOURCES))
    wanted = select(*columns).where(_condition(found, dialect), _C.traits.is_(None)).order_by(_C.id).limit(limit)
    return _text(wanted if after is None else wanted.where(_C.id > after), dialect)


def _grouped(field: Field, step: Step, dialect: Dialect) -> ColumnElement[Any]:
    """Return what certificates are counted by; of a time the day, month or year."""
    if field.name == "ca":
        # An id begins with its CA, and stands in the indexes that the CA is not in.
        return _before_colon(dialect).label("value")
    value = _column(field, dialect)
    # Instants are stored as text of fixed width, of which a day, a month or a year is the beginning.
    return (func.substr(value, 1, step.characters) if field.kind is Kind.TIME else value).label("value")


def _before_colon(dialect: Dialect) -> ColumnElement[Any]:
    if dialect is Dialect.SQLITE:
        return func.substr(_C.id, 1, func.instr(_C.id, ":") - 1, type_=Text())
    return func.split_part(_C.id, ":", 1, type_=Text())


def _text(statement: Select[Any], dialect: Dialect) -> tuple[str, Mapping[str, object]]:
    compiled = statement.compile(dialect=_DIALECTS[dialect], compile_kwargs={"render_postcompile": True})
    return str(compiled), dict(compiled.params)


def _condition(found: Filter, dialect: Dialect) -> ColumnElement[bool]:
    """Return a condition that is true or false, never unknown."""
    if isinstance(found, And):
        return and_(true(), *(_condition(part, dialect) for part in found.parts))
    if isinstance(found, Or):
        return or_(false(), *(_condition(part, dialect) for part in found.parts))
    if isinstance(found, Not):
        return not_(_condition(found.part, dialect))
    field = found.field
    if field.of_places:
        return _at_a_place(found, dialect)
    if isinstance(found, Missing):
        return _column(field, dialect).is_(None) if field.is_optional else false()
    if isinstance(found, Like):
        return _known(field, _alike(_column(field, dialect), found), dialect)
    if isinstance(found, Compare):
        return _known(field, _compared(field, found.op, found.value, dialect), dialect)
    return _known(field, _listed(field, found.values, dialect), dialect)


def _alike(value: ColumnElement[Any], found: Like) -> ColumnElement[bool]:
    return func.lower(value).like(lowered(found.pattern), escape="\\")


def _at_a_place(found: Compare | OneOf | Like | Missing, dialect: Dialect) -> ColumnElement[bool]:
    """Return whether any of the places where imports found a certificate is as asked for."""
    if isinstance(found, Missing):
        return not_(_placed(_OF_PLACES[found.field.column].is_not(None)))
    return _placed(_of_place(found, dialect))


def _of_place(found: Compare | OneOf | Like, dialect: Dialect) -> ColumnElement[bool]:
    """Return whether one place is as asked for."""
    value = _OF_PLACES[found.field.column]
    if isinstance(found, Like):
        return _alike(value, found)
    if isinstance(found, Compare):
        return _ordered(value, found.op, _operand(found.field, found.value, dialect))
    return value.in_([_operand(found.field, each, dialect) for each in found.values])


def _placed(condition: ColumnElement[bool]) -> ColumnElement[bool]:
    """Return a condition on places and their imports as one on certificates; true or false, never unknown."""
    return exists(_places(literal(1)).where(condition))


def _places(value: ColumnElement[Any]) -> Select[Any]:
    """Select something of the places of the certificate at hand and of the imports that found them."""
    joined = _PROVENANCE.join(_IMPORT, _RUN.id == _P.run)
    return select(value).select_from(joined).where(_P.certificate == _C.id).correlate(_CERTIFICATE)


def _known(field: Field, condition: ColumnElement[bool], dialect: Dialect) -> ColumnElement[bool]:
    return and_(_column(field, dialect).is_not(None), condition) if field.is_optional else condition


def _listed(field: Field, values: Sequence[Value], dialect: Dialect) -> ColumnElement[bool]:
    if field.name == "ca":
        return or_(*(_compared(field, "=", value, dialect) for value in values))
    return _column(field, dialect).in_([_operand(field, value, dialect) for value in values])


def _compared(field: Field, op: str, value: Value, dialect: Dialect) -> ColumnElement[bool]:
    if field.name == "ca" and op == "=":
        # An id begins with its CA, so a CA is a range of the primary key, in the order in which pages are asked for.
        name = str(value)
        first, last = (f"{name}:", f"{name};") if "@" in name else (f"{name}@", f"{name}A")
        return and_(_C.id >= first, _C.id < last)
    return _ordered(_column(field, dialect), op, _operand(field, value, dialect))


def _ordered(one: ColumnElement[Any], op: str, other: ColumnElement[Any]) -> ColumnElement[bool]:
    comparisons: dict[str, ColumnElement[bool]] = {
        "=": one == other,
        "<": one < other,
        "<=": one <= other,
        ">": one > other,
        ">=": one >= other,
    }
    return comparisons[op]


def _operand(field: Field, value: Value, dialect: Dialect) -> ColumnElement[Any]:
    if dialect is Dialect.POSTGRESQL and field.name == "state" and value in field.known:
        # In the text, where PostgreSQL sees that an index of the certificates in this state will do. SQLite would
        # take that index where another holds all that is asked for.
        return literal_column(f"'{value}'", Text())
    return literal(_stored(value))


def _stored(value: Value) -> str | int:
    return encode_time(value) if isinstance(value, datetime) else value


def _column(field: Field, dialect: Dialect) -> ColumnElement[Any]:
    if field.column == "origin":
        return _ORIGIN
    if field.of_places:
        # What a certificate is counted by: the first of them, so that it is counted once.
        return _places(func.min(_OF_PLACES[field.column], type_=Text())).scalar_subquery()
    found: ColumnElement[Any] = _C[field.column]
    if not field.attribute:
        return found
    taken = _attribute(found, field.attribute, dialect)
    return taken if field.trait is None else case((_C.traits.is_(None), taken), else_=_trait(field.trait, dialect))


def _trait(place: int, dialect: Dialect) -> ColumnElement[Any]:
    """Take one of the traits out of their column: a JSON array, which either database reads many times as fast."""
    if dialect is Dialect.SQLITE:
        return func.json_extract(_C.traits, f"$[{place}]", type_=Text())
    text: ColumnElement[Any] = cast(_C.traits, JSONB)[place].astext
    return text


def _attribute(subject: ColumnElement[Any], short: str, dialect: Dialect) -> ColumnElement[Any]:
    """Take one attribute out of the subject's text, as `filter_fields.attribute_of` does."""
    find = func.instr if dialect is Dialect.SQLITE else func.strpos
    text: ColumnElement[Any] = subject
    for escaped, mark in _ESCAPES:
        text = func.replace(text, escaped, mark)
    text = literal(",", Text()).concat(func.replace(text, "+", ",")).concat(",")
    wanted = f",{short}="
    rest = func.substr(text, find(text, wanted) + len(wanted))
    value: ColumnElement[Any] = func.replace(func.substr(rest, 1, find(rest, ",") - 1), "\\", "")
    for escaped, mark in _ESCAPES:
        value = func.replace(value, mark, escaped[1:])
    return case((find(text, wanted) > 0, value), else_=None)
