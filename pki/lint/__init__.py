"""Judge certificates, requests, revocation lists, OCSP responses and chains against their standards, rule by rule.

One module per document; each rule is one function. `lint_tbs` judges the exact bytes that are about to be signed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

from chargepki.pki.lint import (
    hygiene,
    iso15118_2,
    iso15118_2_roles,
    iso15118_20,
    ocpp,
    rfc5280,
    rfc5280_extensions,
    rfc5280_pointers,
    rfc5280_purposes,
)
from chargepki.pki.lint.engine import LintData, LintReport, Rule, list_rules
from chargepki.pki.lint.guess import guess_profile
from chargepki.pki.lint.run import lint_certificate, lint_crl, lint_tbs

if TYPE_CHECKING:
    from chargepki.pki.lint.catalogue import all_rules
    from chargepki.pki.lint.crl_rules import list_crl_rules
    from chargepki.pki.lint.issuance import lint_issuance
    from chargepki.pki.lint.objects import (
        lint_collection,
        lint_csr,
        lint_file,
        lint_hash_data,
        lint_ocsp_response,
        lint_pkcs7,
        lint_pkcs12,
        lint_private_key,
    )
    from chargepki.pki.lint.reading import read_inputs
    from chargepki.pki.lint.session import LintSession
    from chargepki.pki.lint.settings import LintSettings, load_lint_settings

# Importing a rule module registers its rules; naming them here keeps the order of findings stable.
_RULE_MODULES = (
    rfc5280,
    rfc5280_extensions,
    rfc5280_pointers,
    rfc5280_purposes,
    hygiene,
    iso15118_2,
    iso15118_2_roles,
    iso15118_20,
    ocpp,
)

__all__ = [
    "LintData",
    "LintReport",
    "LintSession",
    "LintSettings",
    "Rule",
    "all_rules",
    "guess_profile",
    "lint_certificate",
    "lint_collection",
    "lint_crl",
    "lint_csr",
    "lint_file",
    "lint_hash_data",
    "lint_issuance",
    "lint_ocsp_response",
    "lint_pkcs7",
    "lint_pkcs12",
    "lint_private_key",
    "lint_tbs",
    "list_crl_rules",
    "list_rules",
    "load_lint_settings",
    "read_inputs",
]

_LATE: Final = {
    "LintSession": "session",
    "LintSettings": "settings",
    "all_rules": "catalogue",
    "lint_collection": "objects",
    "lint_csr": "objects",
    "lint_file": "objects",
    "lint_hash_data": "objects",
    "lint_issuance": "issuance",
    "lint_ocsp_response": "objects",
    "lint_pkcs12": "objects",
    "lint_pkcs7": "objects",
    "lint_private_key": "objects",
    "list_crl_rules": "crl_rules",
    "load_lint_settings": "settings",
    "read_inputs": "reading",
}


def __getattr__(name: str) -> object:
    """Load on first use (PEP 562) what issuing a certificate does not need."""
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_LATE[name]}"), name)
