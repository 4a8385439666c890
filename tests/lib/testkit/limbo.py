"""Read a file of x509-limbo: every field of its schema and no other, for one that nobody reads may change a verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from chargepki.pki.errors import InputError
from chargepki.pki.pem import pem_blocks

__all__ = ["LimboCase", "LimboFileError", "PeerName", "read_limbo"]

# Lists and optional values are absent, or null, in files of some versions.
_REQUIRED = {
    *("id", "description", "validation_kind", "trusted_certs", "untrusted_intermediates", "peer_certificate"),
    "expected_result",
}
_LISTS = {
    *("conflicts_with", "features", "signature_algorithms", "key_usage", "extended_key_usage", "expected_peer_names"),
    "crls",
}
_OPTIONAL = {"importance", "peer_certificate_key", "validation_time", "expected_peer_name", "max_chain_depth"}
_USAGES = {
    *("digitalSignature", "contentCommitment", "keyEncipherment", "dataEncipherment", "keyAgreement", "keyCertSign"),
    *("cRLSign", "encipherOnly", "decipherOnly", "encipher_only", "decipher_only"),
}


class LimboFileError(ValueError):
    """The file is not what the schema, as far as it was known here, says."""


@dataclass(frozen=True, slots=True)
class PeerName:
    """A name that the peer must have: `kind` is ``DNS``, ``IP`` or ``RFC822``."""

    kind: str
    value: str


@dataclass(frozen=True, slots=True)
class LimboCase:
    """One case, certificates and lists in DER. `features` and `importance` are for people: every case is judged."""

    id: str
    kind: str
    """``SERVER``: a server's certificate is judged, by a client; ``CLIENT``: the other way round."""
    expected: str
    """``SUCCESS`` or ``FAILURE``."""
    peer: bytes
    anchors: tuple[bytes, ...]
    intermediates: tuple[bytes, ...]
    crls: tuple[bytes, ...]
    at: datetime | None
    """``None``: now."""
    names: tuple[PeerName, ...]
    """The peer must have each of them."""
    signature_algorithms: tuple[str, ...]
    key_usage: frozenset[str]
    extended_key_usage: frozenset[str]
    max_depth: int | None
    conflicts_with: frozenset[str]
    features: tuple[str, ...]
    importance: str
    description: str


def read_limbo(document: Mapping[str, Any]) -> list[LimboCase]:
    """Return the cases of a file that JSON was read from.

    Raises:
        LimboFileError: another version, a field or value that the schema does not have, an id twice, or a conflict that
            only one side knows of.
    """
    if document.get("version") != 1 or document.keys() != {"version", "testcases"}:
        raise LimboFileError("not version 1 of the format")
    cases = [_case(fields) for fields in document["testcases"]]
    by_id = {case.id: case for case in cases}
    if len(by_id) != len(cases):
        raise LimboFileError("an id is there twice")
    for case in cases:
        for other in case.conflicts_with:
            if other not in by_id or case.id not in by_id[other].conflicts_with:
                raise LimboFileError(f"{case.id}: conflicts with {other}, which does not say so")
    return cases


def _case(fields: Mapping[str, Any]) -> LimboCase:
    name = fields.get("id")
    unknown = fields.keys() - _REQUIRED - _LISTS - _OPTIONAL
    if unknown or not fields.keys() >= _REQUIRED:
        raise LimboFileError(f"{name}: fields {sorted(unknown)} are unknown, or one is missing")
    many: dict[str, Sequence[Any]] = {key: fields.get(key) or () for key in _LISTS}
    _one_of(name, fields["validation_kind"], {"SERVER", "CLIENT"})
    _one_of(name, fields["expected_result"], {"SUCCESS", "FAILURE"})
    for usage in many["key_usage"]:
        _one_of(name, usage, _USAGES)
    peer = _der(fields["peer_certificate"])
    if fields.get("peer_certificate_key"):
        _check_key(name, peer, fields["peer_certificate_key"])
    one = [fields["expected_peer_name"]] if fields.get("expected_peer_name") else []
    at = fields.get("validation_time")
    return LimboCase(
        id=fields["id"],
        kind=fields["validation_kind"],
        expected=fields["expected_result"],
        peer=peer,
        anchors=tuple(map(_der, fields["trusted_certs"])),
        intermediates=tuple(map(_der, fields["untrusted_intermediates"])),
        crls=tuple(map(_der, many["crls"])),
        at=datetime.fromisoformat(at) if at else None,
        names=tuple(_peer_name(name, each) for each in (*one, *many["expected_peer_names"])),
        signature_algorithms=tuple(many["signature_algorithms"]),
        key_usage=frozenset(many["key_usage"]),
        extended_key_usage=frozenset(many["extended_key_usage"]),
        max_depth=fields.get("max_chain_depth"),
        conflicts_with=frozenset(many["conflicts_with"]),
        features=tuple(many["features"]),
        importance=fields.get("importance") or "undetermined",
        description=fields["description"],
    )


def _one_of(name: object, found: object, known: set[str]) -> None:
    if found not in known:
        raise LimboFileError(f"{name}: {found!r} is none of {sorted(known)}")


def _der(pem: str) -> bytes:
    try:
        (block,) = pem_blocks(pem.encode(), max_bytes=16 << 20)
    except (InputError, ValueError) as error:
        raise LimboFileError(f"not one PEM object: {pem[:60]!r}") from error
    return block.der


def _peer_name(name: object, fields: Mapping[str, Any]) -> PeerName:
    _one_of(name, fields["kind"], {"DNS", "IP", "RFC822"})
    return PeerName(fields["kind"], fields["value"])


def _check_key(name: object, peer: bytes, pem: str) -> None:
    key = serialization.load_pem_private_key(pem.encode(), None)
    if key.public_key() != x509.load_der_x509_certificate(peer).public_key():
        raise LimboFileError(f"{name}: the key is another one's")
