"""Questions about everything in the inventory: pure functions over its reads, whose answers are frozen dataclasses.

Command line, JSON and report ask the same functions. What stations report is asked in `chargepki.ocpp_security`
(`drift`, `root_impact`).
"""

from __future__ import annotations

from chargepki.pki.questions.authorities import AuthorityCertificate, Provenance, list_authorities
from chargepki.pki.questions.census import CENSUS_BY, Census, CensusRow, take_census, take_trait_censuses
from chargepki.pki.questions.key_reuse import KeyReuse, KeyReuseKind, find_key_reuse
from chargepki.pki.questions.orphans import Orphan, find_orphans
from chargepki.pki.questions.revocations import (
    Publication,
    RevocationEffect,
    RevocationSummary,
    revocation_effects,
    summarise_revocations,
)
from chargepki.pki.questions.timeline import (
    Bucket,
    Cliff,
    CliffRule,
    ExpiryTimeline,
    Span,
    expiry_timeline,
    find_cliffs,
    valid_at,
)

__all__ = [
    "CENSUS_BY",
    "AuthorityCertificate",
    "Bucket",
    "Census",
    "CensusRow",
    "Cliff",
    "CliffRule",
    "ExpiryTimeline",
    "KeyReuse",
    "KeyReuseKind",
    "Orphan",
    "Provenance",
    "Publication",
    "RevocationEffect",
    "RevocationSummary",
    "Span",
    "expiry_timeline",
    "find_cliffs",
    "find_key_reuse",
    "find_orphans",
    "list_authorities",
    "revocation_effects",
    "summarise_revocations",
    "take_census",
    "take_trait_censuses",
    "valid_at",
]
