"""Every rule of the linter, whatever it judges: for lists, overrides and the reference."""

from __future__ import annotations

from functools import cache
from typing import Any

from chargepki.pki import lint
from chargepki.pki.lint.collection_rules import COLLECTIONS
from chargepki.pki.lint.container_rules import PKCS7S, PKCS12S, PRIVATE_KEYS
from chargepki.pki.lint.crl_rules import CRLS
from chargepki.pki.lint.csr_rules import CSRS
from chargepki.pki.lint.engine import Rule
from chargepki.pki.lint.ocsp_rules import OCSP_RESPONSES
from chargepki.pki.lint.other_rules import FILES, HASH_DATA

__all__ = ["all_rules"]


@cache
def all_rules() -> tuple[Rule[Any], ...]:
    """Return all rules, sorted by id, then by kind of object: a few ids judge several kinds."""
    others = (CRLS, CSRS, OCSP_RESPONSES, COLLECTIONS, FILES, HASH_DATA, PKCS7S, PKCS12S, PRIVATE_KEYS)
    rules: list[Rule[Any]] = [*lint.list_rules()]
    for registry in others:
        rules += registry.rules()
    return tuple(sorted(rules, key=lambda rule: (rule.id, rule.subject)))
