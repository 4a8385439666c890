"""Public keys that more than one certificate has, and what that means."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from chargepki.pki.csr import parse_csr
from chargepki.pki.errors import ChargePkiError
from chargepki.pki.inventory.filters import And, Filter
from chargepki.pki.inventory.question_reads import SharedKey
from chargepki.pki.inventory.reads import Reads
from chargepki.pki.inventory.records import EstRequestState
from chargepki.pki.keys import spki_sha256
from chargepki.pki.questions.timeline import valid_at

__all__ = ["KeyReuse", "KeyReuseKind", "find_key_reuse"]

_EVERYTHING: Final = And(())


class KeyReuseKind(StrEnum):
    """What the holders of one key have in common."""

    ACROSS_STATIONS = "across-stations"
    """Two stations have one private key: it was copied, or came with both from the factory."""
    CA_KEY = "ca-key"
    """The key of a CA is also that of another CA, or of a certificate that is none."""
    ACROSS_SUBJECTS = "across-subjects"
    """Certificates for different names."""
    REQUESTED = "requested"
    """A request that waits for an answer has the key of a certificate that is valid already."""
    RENEWED = "renewed"
    """The same name again: a renewal, or another generation of a CA, that kept its key."""


@dataclass(frozen=True, slots=True)
class KeyReuse:
    """One public key and who has it."""

    kind: KeyReuseKind
    key_sha256: str
    """Of the SubjectPublicKeyInfo, lower-case hex, as the field `key_sha256` of filters."""
    certificates: int
    stations: int
    cas: int
    """How many CAs issued for it."""
    subjects: int
    examples: tuple[str, ...]
    """Ids of certificates, and of CAs and requests with that key; the first ones."""


def find_key_reuse(
    reads: Reads, at: datetime, *, wanted: Filter = _EVERYTHING, only_valid: bool = True, limit: int = 1000
) -> tuple[KeyReuse, ...]:
    """Return the keys that are used more than once, the worst kind first, then the most frequent.

    Args:
        at: only certificates that are valid then count, unless *only_valid* is false.
        limit: at most so many keys of certificates.
    """
    chosen = valid_at(at, wanted) if only_valid else wanted
    ca_keys: dict[str, list[str]] = {}
    for ca in reads.list_cas():
        if ca.spki_sha256 is not None:
            ca_keys.setdefault(ca.spki_sha256, []).append(ca.id)
    found = {shared.key_sha256: _reuse(shared, ca_keys) for shared in reads.list_shared_keys(chosen, limit=limit)}
    for reuse in _requests(reads, chosen):
        found.setdefault(reuse.key_sha256, reuse)
    order = list(KeyReuseKind)
    return tuple(sorted(found.values(), key=lambda each: (order.index(each.kind), -each.certificates, each.key_sha256)))


def _reuse(shared: SharedKey, ca_keys: dict[str, list[str]]) -> KeyReuse:
    owners = ca_keys.get(shared.key_sha256, [])
    if shared.stations > 1:
        kind = KeyReuseKind.ACROSS_STATIONS
    elif owners and shared.subjects > 1:
        kind = KeyReuseKind.CA_KEY
    elif shared.subjects > 1:
        kind = KeyReuseKind.ACROSS_SUBJECTS
    else:
        kind = KeyReuseKind.RENEWED
    examples = (*shared.examples, *(f"CA {owner}" for owner in owners))
    return KeyReuse(
        kind, shared.key_sha256, shared.certificates, shared.stations, shared.cas, shared.subjects, examples
    )


def _requests(reads: Reads, chosen: Filter) -> list[KeyReuse]:
    """Return what requests that wait ask for with a key that a chosen certificate has already.

    A renewal that keeps its key looks alike until it is answered; it is told as well, since policy may forbid it.
    """
    from chargepki.pki.inventory.filter_fields import FIELDS
    from chargepki.pki.inventory.filters import OneOf

    waiting = [(f"request {each.id}", each.csr) for each in reads.list_issuances(open_only=True)]
    waiting += [(f"request {each.id}", each.csr) for each in reads.list_est_requests(state=EstRequestState.WAITING)]
    names: dict[str, list[str]] = {}
    for name, csr in waiting:
        try:
            names.setdefault(spki_sha256(parse_csr(csr).spki_der), []).append(name)
        except ChargePkiError:
            continue  # its refusal is the authority's business
    keys = sorted(names)
    holders: Counter[str] = Counter()
    for start in range(0, len(keys), 500):
        asked = And((OneOf(FIELDS["key_sha256"], tuple(keys[start : start + 500])), chosen))
        for (key,), number in reads.count_groups(asked, (FIELDS["key_sha256"],)):
            holders[str(key)] += number
    return [
        KeyReuse(KeyReuseKind.REQUESTED, key, number, 0, 0, 1, tuple(names[key][:10]))
        for key, number in sorted(holders.items())
    ]
