"""Judge certificates and revocation lists against their standards, rule by rule.

One module per document; each rule is one function. `lint_tbs` judges the exact bytes that are about to be signed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from chargepki.pki.lint import hygiene, iso15118_2, iso15118_2_roles, iso15118_20, ocpp, rfc5280, rfc5280_extensions
from chargepki.pki.lint.engine import LintReport, Rule, list_rules
from chargepki.pki.lint.guess import guess_profile
from chargepki.pki.lint.run import lint_certificate, lint_crl, lint_tbs

if TYPE_CHECKING:
    from chargepki.pki.lint.crl_rules import list_crl_rules

# Importing a rule module registers its rules; naming them here keeps the order of findings stable.
_RULE_MODULES = (rfc5280, rfc5280_extensions, hygiene, iso15118_2, iso15118_2_roles, iso15118_20, ocpp)

__all__ = [
    "LintReport",
    "Rule",
    "guess_profile",
    "lint_certificate",
    "lint_crl",
    "lint_tbs",
    "list_crl_rules",
    "list_rules",
]


def __getattr__(name: str) -> object:
    """Load the rules for revocation lists on first use (PEP 562): issuing a certificate needs none of them."""
    if name != "list_crl_rules":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from chargepki.pki.lint import crl_rules

    return crl_rules.list_crl_rules
