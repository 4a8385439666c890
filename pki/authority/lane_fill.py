"""Make certificates of known kinds, many at a time: prove possession, fill in, lint.

Each of these steps is taken for all before the next begins. Taken in turn for each certificate, they would push each
other's tables and instructions out of the processor's caches, and cost half as much again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from chargepki.pki import keys
from chargepki.pki.authority.issuance import choose_place, judge_tbs, new_serial
from chargepki.pki.authority.lane_kind import Asked, ChooseShard, Dated, Kind, Known, Quick
from chargepki.pki.authority.orders import IssueOrder
from chargepki.pki.errors import ChargePkiError, InputError
from chargepki.pki.inventory.bulk_records import BulkRow
from chargepki.pki.inventory.codec import CERTIFICATE, Value, encode_time, sha256_hex
from chargepki.pki.keys import KeyAlgorithm, spki_sha256
from chargepki.pki.profiles.syntax import check_value
from chargepki.pki.template import Window, choose_window, encode_window, load_template

__all__ = ["fill", "is_sound", "judge_quick", "prepare_known"]

_ECDSA: Final = ec.ECDSA(hashes.SHA256())


def prepare_known(
    lot: Sequence[Known], *, now: datetime, choose_shard: ChooseShard
) -> list[Quick | ChargePkiError | None]:
    """Return the certificate for each of *lot*, linted, in their order.

    An error is that of a certificate that would break its profile or outlive its CA; ``None`` stands for a request
    whose key, common name or signature is not as it must be: the careful way says why.
    """
    sound = [is_sound(each.kind, each.asked) for each in lot]
    answers: list[Quick | ChargePkiError | None] = []
    for each, is_known in zip(lot, sound, strict=True):
        try:
            answers.append(fill(each, now=now, choose_shard=choose_shard, serial=new_serial()) if is_known else None)
        except ChargePkiError as error:
            answers.append(error)
    for number, each in enumerate(lot):
        item = answers[number]
        try:
            if isinstance(item, Quick):
                judge_quick(each.kind, item)
        except ChargePkiError as error:
            answers[number] = error
    return answers


def judge_quick(kind: Kind, item: Quick) -> None:
    """Lint the exact bytes that will be signed.

    Raises:
        ProfileViolation: they break their profile, or are more than it allows.
    """
    judge_tbs(item.tbs, kind.profile, issuer_der=item.issuer.ca.certificate_der, signer=item.issuer.signer)


def is_sound(kind: Kind, asked: Asked) -> bool:
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


def _date(kind: Kind, order: IssueOrder, now: datetime) -> Dated:
    dated = kind.dated
    if dated is None or dated.now != now:
        ca = kind.issuer.ca
        assert ca.not_before is not None and ca.not_after is not None
        window, clamped = choose_window(kind.profile, now, Window(ca.not_before, ca.not_after), order.validity)
        encoded = encode_window(window.not_before, window.not_after)
        instants = {"not_before": window.not_before, "not_after": window.not_after, "reserved_at": now}
        values: dict[str, Value] = {name: encode_time(at) for name, at in instants.items()}
        dated = kind.dated = Dated(now, window, clamped, encoded, values)
    return dated


def fill(known: Known, *, now: datetime, choose_shard: ChooseShard, serial: int) -> Quick:
    """Return the certificate for a request that is sound, not linted yet.

    Raises:
        PolicyRefusal: not even the URLs that must be there fit into the size that the profile allows.
        IssuerOutlived: it would outlive the CA.
    """
    order, kind, asked = known
    issuer, usual, name = kind.issuer, asked.usual, kind.name.filled(asked.name.value)
    common_name = asked.name.value.decode("ascii")
    dated = _date(kind, order, now)
    template, shard = kind.template, None
    if template is None:
        pointers, shard = choose_place(kind.profile, issuer, name, usual.spki, (), choose_shard)
        template = load_template(kind.profile, issuer.info, pointers, KeyAlgorithm.SECP256R1, order.criticality)
    tbs = template.fill(serial, dated.encoded, name, usual.spki, usual.spki[-65:])
    csr_sha256, hexadecimal = sha256_hex(asked.encoded), f"{serial:x}"
    content = hashlib.sha256(kind.frame[0] + csr_sha256.encode() + kind.frame[1]).hexdigest()
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
        "verdict": kind.form.shorten(content, common_name, common_name),
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
    row = BulkRow(values, common_name.join(kind.details), covered, kind.form, kind.traits)
    return Quick(
        order, issuer, row, tbs, common_name, dated.window, dated.clamped, shard, kind.judged_first, kind.policy
    )
