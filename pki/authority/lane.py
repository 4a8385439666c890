"""The fast lane of issuance: requests that differ from an earlier one in key and common name alone.

A fleet's requests are alike, and so is nearly all that is decided about them. The first request of a kind goes the
careful way (`issuance.prepare`). What came of it is taken apart into what the kind fixes and what the request brings;
the second goes both ways, and only if they agree in every stored value is the kind trusted. From then on a certificate
is made by filling in. Each request is still read, its possession proven, its common name judged, and its to-be-signed
bytes linted; whatever is unusual goes the careful way again, which also says what is wrong.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, NamedTuple, TypeAlias, cast

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from chargepki.pki import der, keys
from chargepki.pki.authority.issuance import (
    Issuer,
    Prepared,
    choose_place,
    judge_tbs,
    new_serial,
    reserve_details,
)
from chargepki.pki.authority.orders import IssueOrder, content_frame
from chargepki.pki.authority.request_record import stored_verdicts
from chargepki.pki.csr import plain_der
from chargepki.pki.csr_usual import UsualRequest, read_usual
from chargepki.pki.errors import InputError
from chargepki.pki.inventory.bulk_records import BulkRow
from chargepki.pki.inventory.codec import CERTIFICATE, Value, dump_json, encode_time, load_json, sha256_hex
from chargepki.pki.inventory.records import Actor, CaRecord, CertificateRecord, CertificateState, CrlShardRecord
from chargepki.pki.keys import KeyAlgorithm, spki_sha256
from chargepki.pki.policy_record import Asking, judge_rate, judge_same_key, judge_secrecy
from chargepki.pki.policy_settings import PolicySettings
from chargepki.pki.profiles import get_profile
from chargepki.pki.profiles.base import AttributeRule, Presence, Profile
from chargepki.pki.profiles.common import adapt_to_issuer
from chargepki.pki.profiles.syntax import check_value
from chargepki.pki.template import Template, Window, choose_window, encode_window, load_template

__all__ = ["Lane", "Quick"]

_ECDSA: Final = ec.ECDSA(hashes.SHA256())
_CN: Final = bytes.fromhex("0603550403")
_PLAIN: Final = {0x13: re.compile(rb"[A-Za-z0-9.:-]+\Z"), 0x0C: re.compile(rb"[A-Za-z0-9.:_-]+\Z")}
"""Common names that read the same in every form a record holds them in, by their string type (Printable, UTF8)."""
_MAX_CN: Final = 64
_SET: Final = 0x31
_MAX_FIXED_BYTES: Final = 1024
"""Of a request's other RDNs and its attributes together: hostile requests must not fill the memory."""
_MOST_KINDS: Final = 256

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

    def to_prepared(self) -> Prepared:
        """Return the same for `issuance.reserve`, which judges it against the record with care."""
        record = CERTIFICATE.decode([self.row.values[name] for name in CERTIFICATE.columns])
        # That nothing is on record was assumed; it is judged now.
        verdict = {**record.verdict, "record": record.verdict["record"][: self.judged_first]}
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
            verdict=load_json(str(values["verdict"])),
            issued_at=now,
            shard=cast("int | None", values["shard"]),
        )


class _Name(NamedTuple):
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


class _Asked(NamedTuple):
    """What a request of the usual shape says, and which kind it is of."""

    key: tuple[object, ...]
    encoded: bytes
    usual: UsualRequest
    name: _Name


class _Dated(NamedTuple):
    """What a kind makes of an instant."""

    now: datetime
    window: Window
    clamped: bool
    encoded: bytes
    values: dict[str, Value]


@dataclass(slots=True)
class _Kind:
    """All that requests of one kind have in common."""

    issuer: Issuer
    policy: PolicySettings
    profile: Profile
    rule: AttributeRule
    """Of the common name."""
    static: dict[str, Value]
    """Stored values by column; those that differ with each certificate are filled in."""
    name: _Name
    subject: tuple[str, ...]
    """Text of the subject before and behind the common name."""
    verdict: tuple[str, ...]
    """JSON of the verdict behind the content digest: before, between and behind the two places of the common name."""
    details: tuple[str, ...]
    """JSON of the audit entry before and behind the common name."""
    judged_first: int
    frame: tuple[bytes, bytes]
    template: Template | None
    """``None`` where the pointers differ with each certificate."""
    proven: bool = False
    dated: _Dated | None = None
    """For the last instant that was asked for: all certificates of a batch share it."""


class Lane:
    """The kinds that one authority has learnt; for several threads, of which at worst two learn the same."""

    def __init__(self) -> None:
        self._kinds: dict[tuple[object, ...], _Kind | None] = {}

    def prepare(
        self,
        order: IssueOrder,
        issuer: Issuer,
        *,
        actor: Actor,
        now: datetime,
        choose_shard: ChooseShard,
        policy: PolicySettings,
    ) -> Quick | None:
        """Return the certificate that `issuance.prepare` would prepare; ``None`` when that must be asked.

        Raises:
            ProfileViolation: its to-be-signed bytes do not pass the linter.
            PolicyRefusal: it is larger than its profile allows.
            IssuerOutlived: it would outlive the CA.
        """
        asked = _read(order, issuer, actor, policy)
        kind = self._kinds.get(asked.key) if asked is not None else None
        if asked is None or kind is None or not kind.proven:
            return None
        if kind.issuer is not issuer or kind.policy is not policy or not _is_sound(kind, asked):
            return None
        return _fill(kind, order, asked, now=now, choose_shard=choose_shard, serial=new_serial())

    def learn(self, prepared: Prepared, *, actor: Actor, now: datetime) -> None:
        """Take note of what came of an order that went the careful way.

        The first of a kind is taken apart; the second must be what filling in makes of it, or the kind is given up.
        """
        asked = _read(prepared.order, prepared.issuer, actor, prepared.policy)
        if asked is None:
            return
        kind = self._kinds.get(asked.key)
        if kind is not None and (kind.issuer is not prepared.issuer or kind.policy is not prepared.policy):
            del self._kinds[asked.key]  # of objects that are gone, whose identities were given out anew
        if asked.key not in self._kinds:
            if len(self._kinds) >= _MOST_KINDS:
                self._kinds.clear()
            self._kinds[asked.key] = _take_apart(prepared, asked, now)
        elif kind is not None and not kind.proven and asked.name.value != kind.name.value and _is_sound(kind, asked):
            serial = int(prepared.record.serial, 16)
            quick = _fill(kind, prepared.order, asked, now=now, choose_shard=lambda _: prepared.shard, serial=serial)
            record = replace(quick.to_prepared().record, station=prepared.record.station)
            if record == prepared.record:
                kind.proven = True
            else:
                self._kinds[asked.key] = None


def _read(order: IssueOrder, issuer: Issuer, actor: Actor, policy: PolicySettings) -> _Asked | None:
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
    ):
        return None
    encoded = plain_der(order.csr)
    usual = None if encoded is None else read_usual(encoded)
    if encoded is None or usual is None:
        return None
    name = _split(usual.subject, usual.subject_content)
    if name is None or len(name.before) + len(name.after) + len(usual.attributes) > _MAX_FIXED_BYTES:
        return None
    key = (
        order.profile, order.validity, order.criticality, order.requester, actor.name, id(issuer), id(policy),
        name.before, name.tag, name.after, usual.attributes,
    )  # fmt: skip
    return _Asked(key, encoded, usual, name)


def _split(name: bytes, content: int) -> _Name | None:
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
    return _Name(name[content : at - 4], tag, value, name[end:])


def _are_rdns(encoded: bytes) -> bool:
    """Whether *encoded* is a row of whole RDNs: then a common name may stand before or behind it."""
    try:
        return all(rdn.tag == _SET for rdn in der.parse(der.sequence(encoded)).children(der.SEQUENCE))
    except InputError:
        return False


def _is_sound(kind: _Kind, asked: _Asked) -> bool:
    """Whether the common name and the key are as they must be, and the request is signed with that key."""
    if check_value(kind.rule.syntax, asked.name.value.decode("ascii"), kind.profile.standard):
        return False
    policy, spki = kind.policy, asked.usual.spki
    if policy.weak_keys is not None and policy.weak_keys.lists(spki, None):
        return False
    try:
        keys.load_public_key(spki).verify(asked.usual.signature, asked.usual.info, _ECDSA)  # type: ignore[call-arg, arg-type]  # a usual request has a P-256 key
    except (InputError, InvalidSignature):
        return False
    return True


def _take_apart(prepared: Prepared, asked: _Asked, now: datetime) -> _Kind | None:
    """Return what *prepared* teaches about its kind; ``None`` when the common name cannot be told from all else."""
    order, issuer, record, policy = prepared.order, prepared.issuer, prepared.record, prepared.policy
    profile = adapt_to_issuer(get_profile(order.profile), issuer.profile, issuer.signer.algorithm)
    rules = [rule for rule in profile.subject.attributes if rule.attribute == "CN"]
    plain = len(rules) == 1 and rules[0].fixed is None and profile.subject.closed and not profile.is_ca
    name = _split(record.subject_der, 2 if record.subject_der[1] < 0x80 else 2 + (record.subject_der[1] & 0x7F))
    if not plain or profile.dns_names is not Presence.FORBIDDEN or name is None or name.value != asked.name.value:
        return None
    if not (_are_rdns(asked.name.before) and _are_rdns(asked.name.after)):
        return None
    common_name = name.value.decode("ascii")
    on_record = (
        *judge_secrecy(()),
        *judge_same_key(Asking(None, record.subject_der, record.csr), (), policy, now=now),
        *judge_rate(None, policy),
    )
    listed = list(record.verdict["record"])
    verdict = {**record.verdict, "record": [*listed, *stored_verdicts(on_record)]}
    opening = f'{{"content":"{verdict["content"]}",'
    whole = dump_json(verdict, "the verdict")
    subject = tuple(record.subject.split(common_name))
    texts = tuple(whole.removeprefix(opening).split(common_name))
    details = tuple(dump_json(reserve_details(order, record), "the details").split(common_name))
    if not whole.startswith(opening) or (len(subject), len(texts), len(details)) != (2, 3, 2):
        return None
    template = None
    if issuer.ca.crl_shard_size is None and profile.max_der_bytes is None:
        pointers, _ = choose_place(profile, issuer, record.subject_der, asked.usual.spki, (), lambda _: None)
        template = load_template(profile, issuer.info, pointers, KeyAlgorithm.SECP256R1, order.criticality)
    return _Kind(
        issuer,
        policy,
        profile,
        rules[0],
        CERTIFICATE.encode(record),
        name,
        subject,
        texts,
        details,
        len(listed),
        content_frame(order, ca_id=issuer.ca.id),
        template,
    )


def _date(kind: _Kind, order: IssueOrder, now: datetime) -> _Dated:
    dated = kind.dated
    if dated is None or dated.now != now:
        ca = kind.issuer.ca
        assert ca.not_before is not None and ca.not_after is not None
        window, clamped = choose_window(kind.profile, now, Window(ca.not_before, ca.not_after), order.validity)
        encoded = encode_window(window.not_before, window.not_after)
        instants = {"not_before": window.not_before, "not_after": window.not_after, "reserved_at": now}
        values: dict[str, Value] = {name: encode_time(at) for name, at in instants.items()}
        dated = kind.dated = _Dated(now, window, clamped, encoded, values)
    return dated


def _fill(
    kind: _Kind, order: IssueOrder, asked: _Asked, *, now: datetime, choose_shard: ChooseShard, serial: int
) -> Quick:
    """Return the certificate for *asked*, linted.

    Raises:
        ProfileViolation: its to-be-signed bytes do not pass the linter.
        PolicyRefusal: it is larger than its profile allows.
    """
    issuer, usual, name = kind.issuer, asked.usual, kind.name.filled(asked.name.value)
    common_name = asked.name.value.decode("ascii")
    dated = _date(kind, order, now)
    template, shard = kind.template, None
    if template is None:
        pointers, shard = choose_place(kind.profile, issuer, name, usual.spki, (), choose_shard)
        template = load_template(kind.profile, issuer.info, pointers, KeyAlgorithm.SECP256R1, order.criticality)
    tbs = template.fill(serial, dated.encoded, name, usual.spki, usual.spki[-65:])
    judge_tbs(tbs, kind.profile, issuer_der=issuer.ca.certificate_der, signer=issuer.signer)
    csr_sha256, hexadecimal = sha256_hex(asked.encoded), f"{serial:x}"
    content = hashlib.sha256(kind.frame[0] + csr_sha256.encode() + kind.frame[1]).hexdigest()
    first, second, third = kind.verdict
    values = {
        **kind.static,
        **dated.values,
        "id": f"{issuer.ca.id}:{hexadecimal}",
        "serial": hexadecimal,
        "subject": common_name.join(kind.subject),
        "subject_der": name,
        "spki_sha256": spki_sha256(usual.spki),
        "request_key": f"content:{content}",
        "tbs": tbs,
        "station": None,
        "csr": asked.encoded,
        "verdict": f'{{"content":"{content}",{first}{common_name}{second}{common_name}{third}',
        "shard": shard.number if shard else None,
    }
    covered: dict[str, object] = {
        **values,
        "subject_der": {"sha256": sha256_hex(name)},
        "tbs": {"sha256": sha256_hex(tbs)},
        "csr": {"sha256": csr_sha256},
    }
    for added in CERTIFICATE.added:
        if covered[added] is None:
            del covered[added]
    row = BulkRow(values, common_name.join(kind.details), covered)
    return Quick(
        order, issuer, row, tbs, common_name, dated.window, dated.clamped, shard, kind.judged_first, kind.policy
    )
