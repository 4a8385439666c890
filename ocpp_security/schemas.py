"""OCPP payload schemas: read from the files of the `ocpp` wheel (never imported), corrected, compiled on first use."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import jsonschema_rs
import orjson

from chargepki.ocpp_security.errors import RpcErrorCode, SchemaViolation
from chargepki.ocpp_security.versions import OcppVersion, rules_of
from chargepki.pki.errors import NotFound, UnavailableError

__all__ = [
    "CORRECTIONS",
    "Correction",
    "Kind",
    "Schema",
    "actions",
    "check_payload",
    "is_action",
    "load_schema",
    "max_items",
    "max_length",
    "member_names",
    "resolve",
]

Schema = dict[str, Any]

_INT64 = 2**63
_MAX_ERRORS_LOOKED_AT = 16


class Kind(StrEnum):
    """Which half of an exchange a payload is."""

    REQUEST = "request"
    RESPONSE = "response"


@dataclass(frozen=True, slots=True)
class Correction:
    """Where a shipped schema and the standard differ; what we send is never laxer than what we accept."""

    version: OcppVersion
    action: str
    kind: Kind
    field: str
    clause: str
    max_length_sent: int | None = None
    """Longest value that we send; what we accept is what the shipped schema allows."""
    absence_accepted: bool = False
    """A required field that peers leave out, and that the conformance tests leave out too."""


CORRECTIONS: tuple[Correction, ...] = (
    Correction(
        version=OcppVersion.V201,
        action="Get15118EVCertificate",
        kind=Kind.RESPONSE,
        field="exiResponse",
        clause="OCPP 2.0.1 edition 3 schema: 5600; the shipped schema says 7500. TC_M_27_CS and TC_M_29_CS omit it.",
        max_length_sent=5600,
        absence_accepted=True,
    ),
)


class _Compiled:
    """One compiled schema with the names that may be spoken about in an error."""

    __slots__ = ("action", "kind", "names", "validator", "version")

    def __init__(self, version: OcppVersion, action: str, kind: Kind, schema: Schema) -> None:
        self.version, self.action, self.kind = version, action, kind
        self.names = frozenset(_property_names(schema))
        # Draft 4 for every file, although most declare draft 6: only there is 1.0 no integer, as OCPP wants
        # ("integer", part 2, 2.1.2), and no file uses a keyword that the two drafts read differently.
        formats: dict[str, Callable[[str], bool]] | None = None
        if version is OcppVersion.V16:
            formats = {"date-time": _is_iso8601}
        self.validator = jsonschema_rs.Draft4Validator(schema, validate_formats=True, formats=formats)

    def check(self, payload: object) -> None:
        try:
            if self.validator.is_valid(payload):
                return
            violation = self._violation(payload)
        except (TypeError, ValueError):  # a value that is no JSON, for example bytes in a payload of our own
            raise SchemaViolation(
                f"the {self.kind.value} of {self.action} cannot be written as JSON",
                rpc_code=RpcErrorCode.FORMAT_VIOLATION,
                path="",
            ) from None  # the chained error may quote the payload
        raise violation

    def _violation(self, payload: object) -> SchemaViolation:
        errors = list(islice(self.validator.iter_errors(payload), _MAX_ERRORS_LOOKED_AT))
        first = min(errors, key=lambda error: _PRIORITY.get(error.kind.name, len(_PRIORITY)))
        keyword = first.kind.name
        path = self._path(first)
        return SchemaViolation(
            f"{self.action} {self.kind.value}: {path or 'payload'} breaks {keyword}{_limit(first)}",
            rpc_code=_CODES.get(keyword, RpcErrorCode.PROPERTY_CONSTRAINT_VIOLATION),
            path=path,
            why=f"the {self.version.value} schema does not allow it",
        )

    def _path(self, error: jsonschema_rs.ValidationError) -> str:
        """Name the place in words of the schema alone: member names of customData are the peer's text."""
        steps = [str(step) if isinstance(step, int) or step in self.names else "?" for step in error.instance_path]
        if error.kind.name == "required":
            missing = getattr(error.kind, "property", None)
            if isinstance(missing, str) and missing in self.names:
                steps.append(missing)
        return ".".join(steps)


def _limit(error: jsonschema_rs.ValidationError) -> str:
    """Return the bound that was broken, for the keywords that have one: it is the schema's text, not the payload's."""
    limit = getattr(error.kind, "limit", None)
    return f" {limit}" if isinstance(limit, int | float) else ""


# Which of several errors is reported: a wrong type explains the others best.
_PRIORITY = {"type": 0, "required": 1, "additionalProperties": 2}

_CODES = {
    "type": RpcErrorCode.TYPE_CONSTRAINT_VIOLATION,
    "required": RpcErrorCode.OCCURRENCE_CONSTRAINT_VIOLATION,
    "minItems": RpcErrorCode.OCCURRENCE_CONSTRAINT_VIOLATION,
    "maxItems": RpcErrorCode.OCCURRENCE_CONSTRAINT_VIOLATION,
    # An unknown member is "not conform the PDU structure": ProtocolError in 2.x, FormationViolation in 1.6.
    "additionalProperties": RpcErrorCode.PROTOCOL_ERROR,
    "additionalItems": RpcErrorCode.PROTOCOL_ERROR,
}


@cache
def actions(version: OcppVersion) -> frozenset[str]:
    """Return every action that *version* knows, those without an answer included.

    Raises:
        UnavailableError: the `ocpp` package, which carries the schemas, is not installed.
    """
    return frozenset(_files(version))


@cache
def member_names(action: str | None = None) -> frozenset[str]:
    """Return the name of every member that *action* (one of which `is_action` is true) has in any version; or all."""
    kinds = [
        kinds for version in OcppVersion for name, kinds in _files(version).items() if action is None or name == action
    ]
    paths = [path for found in kinds for path in found.values()]
    return frozenset(name for path in paths for name in _property_names(orjson.loads(path.read_bytes())))


@cache
def _all_actions() -> frozenset[str]:
    return frozenset().union(*(actions(version) for version in OcppVersion))


def is_action(name: str) -> bool:
    """Say whether any version has an action of that name."""
    return name in _all_actions()


def check_payload(version: OcppVersion, action: str, kind: Kind, payload: object, *, sending: bool) -> None:
    """Refuse a payload that the schema of *action* does not allow.

    Args:
        sending: judge it as one of ours; `CORRECTIONS` then narrows what the shipped schema allows.

    Raises:
        SchemaViolation: with the CALLERROR code; its text holds nothing of the payload.
        NotFound: *version* has no such action, or the action has no response.
    """
    _compiled(version, action, kind, sending).check(payload)


def max_length(version: OcppVersion, action: str, kind: Kind | str, field: str) -> int:
    """Return how many characters *field* may have when we send it.

    Args:
        field: member names joined by dots; arrays are passed through, ``certificateHashDataChain.certificateType``.

    Raises:
        NotFound: no such action or field, or the field has no limit.

    >>> max_length(OcppVersion.V16, "SignCertificate", "request", "csr")
    5500
    """
    return _keyword(version, action, Kind(kind), field, "maxLength")


def max_items(version: OcppVersion, action: str, kind: Kind | str, field: str) -> int:
    """Return how many elements the array *field* may have; see `max_length`."""
    return _keyword(version, action, Kind(kind), field, "maxItems")


@cache
def _keyword(version: OcppVersion, action: str, kind: Kind, field: str, keyword: str) -> int:
    root = _load(version, action, kind, sending=True)
    node = root
    for step in field.split("."):
        node = resolve(root, node.get("properties", {}).get(step))
        while keyword not in node and "items" in node:
            node = resolve(root, node["items"])
    value = node.get(keyword)
    if not isinstance(value, int):
        raise NotFound(f"{version.value} {action} {kind.value} sets no {keyword} for {field}")
    return value


@cache
def load_schema(version: OcppVersion, action: str, kind: Kind) -> Schema:
    """Return the schema of what we accept; not to be changed.

    Raises:
        NotFound: *version* has no such action, or the action has no response.
    """
    return _load(version, action, kind, sending=False)


def resolve(root: Schema, node: object) -> Schema:
    """Return the schema that *node* of *root* is or refers to; empty where there is none."""
    if not isinstance(node, dict):
        return {}
    reference = node.get("$ref")
    if isinstance(reference, str):
        return resolve(root, root["definitions"][reference.rsplit("/", 1)[1]])
    return node


@cache
def _compiled(version: OcppVersion, action: str, kind: Kind, sending: bool) -> _Compiled:
    return _Compiled(version, action, kind, _load(version, action, kind, sending=sending))


@cache
def _folder() -> Path:
    # find_spec does not run the package: importing it costs 100 ms and drags its own jsonschema in.
    spec = importlib.util.find_spec("ocpp")
    for location in (spec.submodule_search_locations or ()) if spec else ():
        return Path(location)
    raise UnavailableError(
        "the OCPP schemas are missing",
        why="they are read from the installed package 'ocpp', which is not there",
        fix="install chargepki with its dependencies",
    )


@cache
def _files(version: OcppVersion) -> Mapping[str, Mapping[Kind, Path]]:
    """Map each action to its schema files, by listing the folder (no file is read)."""
    rules = rules_of(version)
    found: dict[str, dict[Kind, Path]] = {}
    for path in sorted((_folder() / rules.schema_folder / "schemas").glob("*.json")):
        if path.stem.endswith("Response"):
            found.setdefault(path.stem.removesuffix("Response"), {})[Kind.RESPONSE] = path
        else:
            found.setdefault(path.stem.removesuffix(rules.request_suffix), {})[Kind.REQUEST] = path
    if not found:
        raise UnavailableError(
            f"the installed package 'ocpp' holds no schemas for {version.value}", fix="install ocpp 2.1 or newer"
        )
    return found


def _load(version: OcppVersion, action: str, kind: Kind, *, sending: bool) -> Schema:
    path = _files(version).get(action, {}).get(kind)
    if path is None:
        raise NotFound(f"{version.value} has no {kind.value} of this action", why=f"action {action[:50]!r}")
    schema: Schema = orjson.loads(path.read_bytes())
    for key in ("$schema", "$id", "id", "comment"):
        schema.pop(key, None)
    for node in _nodes(schema):
        # OCPP's integers are of 32 bits; 64 are let through, for stations that count in milliseconds,
        # and beyond that no database could hold them.
        if node.get("type") == "integer":
            node.setdefault("minimum", -_INT64)
            node.setdefault("maximum", _INT64 - 1)
    for correction in CORRECTIONS:
        if (correction.version, correction.action, correction.kind) == (version, action, kind):
            _correct(schema, correction, sending=sending)
    return schema


def _correct(schema: Schema, correction: Correction, *, sending: bool) -> None:
    if sending and correction.max_length_sent is not None:
        schema["properties"][correction.field]["maxLength"] = correction.max_length_sent
    if not sending and correction.absence_accepted:
        schema["required"] = [name for name in schema["required"] if name != correction.field]


def _nodes(schema: object) -> Iterator[Schema]:
    if isinstance(schema, dict):
        yield schema
        for value in schema.values():
            yield from _nodes(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _nodes(value)


def _property_names(schema: Schema) -> Iterator[str]:
    for node in _nodes(schema):
        properties = node.get("properties")
        if isinstance(properties, dict):
            yield from properties


def _is_iso8601(text: str) -> bool:
    """Accept what ISO 8601 allows: 1.6 asks for no more, and stations leave the zone out (OCPP-S/J 1.6, 3.14)."""
    if len(text) > 40 or "T" not in text:
        return False
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True
