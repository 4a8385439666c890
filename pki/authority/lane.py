"""The fast lane of issuance: requests that differ from an earlier one in key and common name alone.

A fleet's requests are alike, and so is nearly all that is decided about them. The first request of a kind goes the
careful way (`issuance.prepare`). What came of it is taken apart into what the kind fixes and what the request brings;
the second goes both ways, and only if they agree in every stored value is the kind trusted. From then on a certificate
is made by filling in. Each request is still read, its possession proven, its common name judged, and its to-be-signed
bytes linted; whatever is unusual goes the careful way again, which also says what is wrong.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Final

from chargepki.pki import der
from chargepki.pki.authority.issuance import Issuer, Prepared, choose_place, reserve_details
from chargepki.pki.authority.lane_fill import fill, is_sound, judge_quick
from chargepki.pki.authority.lane_kind import Asked, Kind, Known, read_order, split_name
from chargepki.pki.authority.orders import IssueOrder, content_frame
from chargepki.pki.authority.request_record import stored_verdicts
from chargepki.pki.errors import InputError
from chargepki.pki.inventory.codec import CERTIFICATE, dump_json
from chargepki.pki.inventory.records import Actor
from chargepki.pki.inventory.traits import text_of
from chargepki.pki.inventory.verdict_forms import VerdictForm
from chargepki.pki.keys import KeyAlgorithm
from chargepki.pki.policy_record import Asking, judge_rate, judge_same_key, judge_secrecy
from chargepki.pki.policy_settings import PolicySettings
from chargepki.pki.profiles import get_profile
from chargepki.pki.profiles.base import Presence
from chargepki.pki.profiles.common import adapt_to_issuer
from chargepki.pki.template import load_template

__all__ = ["Lane"]

_SET: Final = 0x31
_MOST_KINDS: Final = 256


class Lane:
    """The kinds that one authority has learnt; for several threads, of which at worst two learn the same."""

    def __init__(self) -> None:
        self._kinds: dict[tuple[object, ...], Kind | None] = {}

    def find(self, order: IssueOrder, issuer: Issuer, *, actor: Actor, policy: PolicySettings) -> Known | None:
        """Return *order* as it was read, if it is of a kind that is trusted; ``None`` when it goes the careful way."""
        asked = read_order(order, issuer, actor, policy)
        kind = self._kinds.get(asked.key) if asked is not None else None
        if asked is None or kind is None or not kind.proven or kind.issuer is not issuer or kind.policy is not policy:
            return None
        return Known(order, kind, asked)

    def learn(self, prepared: Prepared, *, actor: Actor, now: datetime) -> None:
        """Take note of what came of an order that went the careful way.

        The first of a kind is taken apart; the second must be what filling in makes of it, or the kind is given up.
        """
        asked = read_order(prepared.order, prepared.issuer, actor, prepared.policy)
        if asked is None:
            return
        kind = self._kinds.get(asked.key)
        if kind is not None and (kind.issuer is not prepared.issuer or kind.policy is not prepared.policy):
            del self._kinds[asked.key]  # of objects that are gone, whose identities were given out anew
        if asked.key not in self._kinds:
            if len(self._kinds) >= _MOST_KINDS:
                self._kinds.clear()
            self._kinds[asked.key] = _take_apart(prepared, asked, now)
        elif kind is not None and not kind.proven and asked.name.value != kind.name.value and is_sound(kind, asked):
            serial = int(prepared.record.serial, 16)
            known = Known(prepared.order, kind, asked)
            quick = fill(known, now=now, choose_shard=lambda _: prepared.shard, serial=serial)
            judge_quick(kind, quick)
            record = replace(quick.to_prepared().record, station=prepared.record.station)
            if record == prepared.record and text_of(quick.row.values) == kind.traits:
                kind.proven = True
            else:
                self._kinds[asked.key] = None


def _are_rdns(encoded: bytes) -> bool:
    """Whether *encoded* is a row of whole RDNs: then a common name may stand before or behind it."""
    try:
        return all(rdn.tag == _SET for rdn in der.parse(der.sequence(encoded)).children(der.SEQUENCE))
    except InputError:
        return False


def _take_apart(prepared: Prepared, asked: Asked, now: datetime) -> Kind | None:
    """Return what *prepared* teaches about its kind; ``None`` when the common name cannot be told from all else."""
    order, issuer, record, policy = prepared.order, prepared.issuer, prepared.record, prepared.policy
    profile = adapt_to_issuer(get_profile(order.profile), issuer.profile, issuer.signer.algorithm)
    rules = [rule for rule in profile.subject.attributes if rule.attribute == "CN"]
    plain = len(rules) == 1 and rules[0].fixed is None and profile.subject.closed and not profile.is_ca
    name = split_name(record.subject_der, 2 if record.subject_der[1] < 0x80 else 2 + (record.subject_der[1] & 0x7F))
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
    opening = f'{{"content":"{verdict["content"]}"'
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
    before, between, behind = texts
    values = CERTIFICATE.encode(record)
    return Kind(
        issuer,
        policy,
        profile,
        rules[0],
        values,
        name,
        subject,
        VerdictForm.of(('{"content":"', f'"{before}', between, behind)),
        text_of(values),
        details,
        len(listed),
        content_frame(order, ca_id=issuer.ca.id),
        template,
    )
