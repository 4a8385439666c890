"""Judge certificates and revocation lists against their standards, rule by rule.

One module per document; each rule is one function. `lint_tbs` judges the exact bytes that are about to be signed.
"""

from __future__ import annotations

from chargepki.pki.lint.engine import LintReport, Rule, list_rules
from chargepki.pki.lint.run import guess_profile, lint_certificate, lint_crl, lint_tbs

__all__ = ["LintReport", "Rule", "guess_profile", "lint_certificate", "lint_crl", "lint_tbs", "list_rules"]
