"""The extensions that path processing understands, and what each restricts."""

from __future__ import annotations

from functools import cache
from typing import Final

from chargepki.pki import der, oids

__all__ = ["RESTRICTIONS", "RESTRICTS_NAMES", "RESTRICTS_POLICIES", "UNDERSTOOD", "content_of_oid"]

# ISO 15118-20:2022 marks key identifiers, AIA, SIA and CRL pointers critical against RFC 5280: known, though critical.
UNDERSTOOD: Final = frozenset(
    {
        oids.BASIC_CONSTRAINTS,
        oids.KEY_USAGE,
        oids.EXTENDED_KEY_USAGE,
        oids.SUBJECT_ALTERNATIVE_NAME,
        oids.NAME_CONSTRAINTS,
        oids.CERTIFICATE_POLICIES,
        oids.POLICY_MAPPINGS,
        oids.POLICY_CONSTRAINTS,
        oids.INHIBIT_ANY_POLICY,
        oids.SUBJECT_KEY_IDENTIFIER,
        oids.AUTHORITY_KEY_IDENTIFIER,
        oids.AUTHORITY_INFORMATION_ACCESS,
        oids.SUBJECT_INFORMATION_ACCESS,
        oids.CRL_DISTRIBUTION_POINTS,
        oids.FRESHEST_CRL,
        oids.OCSP_NO_CHECK,
    }
)
"""Extensions that may be critical, dotted: path processing acts on each, or it restricts nothing that we do."""

RESTRICTS_POLICIES: Final = 1
RESTRICTS_NAMES: Final = 2


@cache
def content_of_oid(dotted: str) -> bytes:
    """Return the content octets of an identifier: how extensions are looked up, so that few are decoded to text."""
    return der.oid(dotted)[2:]


RESTRICTIONS: Final = (
    dict.fromkeys(map(content_of_oid, UNDERSTOOD), 0)
    | dict.fromkeys(
        map(content_of_oid, (oids.POLICY_CONSTRAINTS, oids.POLICY_MAPPINGS, oids.INHIBIT_ANY_POLICY)),
        RESTRICTS_POLICIES,
    )
    | {content_of_oid(oids.NAME_CONSTRAINTS): RESTRICTS_NAMES}
)
"""`content_of_oid` of what is understood -> what it restricts, as a mask: one look-up says both."""
