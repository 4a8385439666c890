"""What the fast lane knows of a kind of request, and what it reads from the next one."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, NamedTuple, TypeAlias, cast

from chargepki.pki import der
from chargepki.pki.authority.issuance import Issuer, Prepared
from chargepki.pki.authority.orders import IssueOrder
from chargepki.pki.csr import plain_der
from chargepki.pki.csr_usual import UsualRequest, read_usual
from chargepki.pki.inventory.bulk_records import BulkRow
from chargepki.pki.inventory.codec import CERTIFICATE, Value, load_json
from chargepki.pki.inventory.records import Actor, CaRecord, CertificateRecord, CertificateState, CrlShardRecord
from chargepki.pki.inventory.verdict_forms import VerdictForm, whole_verdict
from chargepki.pki.policy_settings import PolicySettings
from chargepki.pki.profiles.base import AttributeRule, Profile
from chargepki.pki.template import Template, Window

__all__ = ["Asked", "ChooseShard", "Dated", "Kind", "Known", "Name", "Quick", "read_order", "split_name"]

_CN: Final = bytes.fromhex("0603550403")
_PLAIN: Final = {0x13: re.compile(rb"[A-Za-z0-9.:-]+\Z"), 0x0C: re.compile(rb"[A-Za-z0-9.:_-]+\Z")}
"""Common names that read the same in every form a record holds them in, by their string type (Printable, UTF8)."""
_MAX_CN: Final = 64
_MAX_FIXED_BYTES: Final = 1024
"""Of a request's other RDNs and its attributes together: hostile requests must not fill the memory."""

ChooseShard: TypeAlias = Callable[[CaRecord], CrlShardRecord | None]


class Quick(NamedTuple):
    """A certificate of a known kind that waits for its reservation."""

    order: IssueOrder
    issuer: Issuer
    row: BulkRow
    tbs: bytes
    common_name: str
    window: Window
    clamped: bool
    shard: CrlShardRecord | None
    judged_first: int
    """How many of the stored verdicts under ``record`` do not depend on what was issued before; they come first."""
    policy: PolicySettings

    @property
    def id(self) -> str:
        """Of the certificate."""
        return str(self.row.values["id"])

    @property
    def verdict(self) -> dict[str, Any]:
        """The whole verdict."""
        found: dict[str, Any] = load_json(
            whole_verdict(str(self.row.values["verdict"]), {self.row.form.id: self.row.form})
        )
        return found

    def to_prepared(self) -> Prepared:
        """Return the same for `issuance.reserve`, which judges it against the record with care."""
        record = CERTIFICATE.decode([self.row.values[name] for name in CERTIFICATE.columns])
        verdict = self.verdict
        # That nothing is on record was assumed; it is judged now.
        verdict["record"] = verdict["record"][: self.judged_first]
        record = replace(record, verdict=verdict)
        return Prepared(self.order, self.issuer, record, self.clamped, self.shard, self.policy)

    def to_record(self, issued: bytes, sha256: str, now: datetime) -> CertificateRecord:
        """Return the record of the certificate as it was stored once it was issued."""
        values = self.row.values
        return CertificateRecord(
            id=self.id,
            ca=self.issuer.ca.id,
            serial=str(values["serial"]),
            profile=self.order.profile,
            state=CertificateState.ISSUED,
            subject=str(values["subject"]),
            subject_der=cast("bytes", values["subject_der"]),
            spki_sha256=str(values["spki_sha256"]),
            not_before=self.window.not_before,
            not_after=self.window.not_after,
            request_key=str(values["request_key"]),
            requester=str(values["requester"]),
            reserved_at=now,
            tbs=self.tbs,
            der=issued,
            sha256=sha256,
            station=cast("str | None", values["station"]),
            csr=cast("bytes", values["csr"]),
            verdict=self.verdict,
            issued_at=now,
            shard=cast("int | None", values["shard"]),
        )


class Name(NamedTuple):
    """A distinguished name around its common name."""

    before: bytes
    tag: int
    value: bytes
    after: bytes

    def filled(self, value: bytes) -> bytes:
        """Return the DER of the name with another common name of at most 64 octets."""
        size = len(value)
        rdn = bytes((0x31, size + 9, 0x30, size + 7)) + _CN + bytes((self.tag, size)) + value
        return der.sequence(self.before, rdn, self.after)


class Asked(NamedTuple):
    """What a request of the usual shape says, and which kind it is of."""

    key: tuple[object, ...]
    encoded: bytes
    usual: UsualRequest
    name: Name


class Dated(NamedTuple):
    """What a kind makes of an instant."""

    now: datetime
    window: Window
    clamped: bool
    encoded: bytes
    values: dict[str, Value]


@dataclass(slots=True)
class Kind:
    """All that requests of one kind have in common."""

    issuer: Issuer
    policy: PolicySettings
    profile: Profile
    rule: AttributeRule
    """Of the common name."""
    static: dict[str, Value]
    """Stored values by column; those that differ with each certificate are filled in."""
    name: Name
    subject: tuple[str, ...]
    """Text of the subject before and behind the common name."""
    form: VerdictForm
    """Of the verdict; its values are the content digest, and the common name twice."""
    traits: str | None
    """Stored text of what its certificates have in common (`inventory.traits`)."""
    details: tuple[str, ...]
    """JSON of the audit entry before and behind the common name."""
    judged_first: int
    frame: tuple[bytes, bytes]
    template: Template | None
    """``None`` where the pointers differ with each certificate."""
    proven: bool = False
    dated: Dated | None = None
    """For the last instant that was asked for: all certificates of a batch share it."""


class Known(NamedTuple):
    """An order of a kind that is trusted."""

    order: IssueOrder
    kind: Kind
    asked: Asked


def read_order(order: IssueOrder, issuer: Issuer, actor: Actor, policy: PolicySettings) -> Asked | None:
    """Return what *order* asks for, ``None`` when it is not of the plain sort that this lane is for."""
    if (
        order.csr is None
        or order.spki is not None
        or order.subject
        or order.subject_defaults
        or order.dns_names
        or order.request_id is not None
        or order.station is not None
        or order.must_deliver
        or order.delivery
        or order.queued_for is not None
    ):
        return None
    encoded = plain_der(order.csr)
    usual = None if encoded is None else read_usual(encoded)
    if encoded is None or usual is None:
        return None
    name = split_name(usual.subject, usual.subject_content)
    if name is None or len(name.before) + len(name.after) + len(usual.attributes) > _MAX_FIXED_BYTES:
        return None
    key = (
        order.profile, order.validity, order.criticality, order.requester, actor.name, id(issuer), id(policy),
        name.before, name.tag, name.after, usual.attributes,
    )  # fmt: skip
    return Asked(key, encoded, usual, name)


def split_name(name: bytes, content: int) -> Name | None:
    """Return *name* (DER, its first RDN at *content*) around its only common name; ``None`` if it is not a plain one.

    What is before and behind it is not judged here: names with the same octets there are good or bad alike.
    """
    at = name.find(_CN, content)
    if at < content + 4 or name.find(_CN, at + 1) >= 0 or at + 7 > len(name):
        return None
    tag, size = name[at + 5], name[at + 6]
    end = at + 7 + size
    if size > _MAX_CN or end > len(name) or name[at - 4 : at] != bytes((0x31, size + 9, 0x30, size + 7)):
        return None
    plain = _PLAIN.get(tag)
    value = name[at + 7 : end]
    if plain is None or not plain.match(value):
        return None
    return Name(name[content : at - 4], tag, value, name[end:])
