"""What our template builds keeps every rule; the rules themselves are tested with the vectors."""

from __future__ import annotations

import pytest

from chargepki.pki import der, oids
from chargepki.pki.findings import Severity
from chargepki.pki.keys import KeyAlgorithm
from chargepki.pki.lint import lint_tbs
from chargepki.pki.profiles import get_profile, list_profiles
from chargepki.pki.profiles.base import Profile
from chargepki.pki.profiles.common import adapt_to_issuer
from testkit.drafts import Draft, DraftExtension

SECC, OEM20, SIGNER = "iso15118-2/secc", "iso15118-20/oem-provisioning", "common/ocsp-signer"
UNKNOWN = "1.3.6.1.4.1.55555.1"


@pytest.mark.parametrize(
    ("profile", "algorithm"),
    [(p, a) for p in list_profiles() for a in p.keys.algorithms],
    ids=lambda v: getattr(v, "id", v),
)
def test_everything_that_our_template_builds_passes_without_error_or_warning(
    profile: Profile, algorithm: KeyAlgorithm
) -> None:
    draft = Draft.of(profile.id, algorithm)
    report = lint_tbs(draft.tbs(), profile=profile, issuer_der=Draft.issuer_of(profile.id, algorithm).certificate())
    said = [finding for finding in report.findings if finding.severity is not Severity.NOTICE]
    if profile.is_root or profile.role == "cross":
        # A root is its own issuer; the one that stands in here has another name and key.
        said = [finding for finding in said if finding.rule not in ("e_dn_chain_mismatch", "e_leaf_key_equals_ca_key")]
    if algorithm.value.startswith("ml-dsa"):
        # With the subject of the draft a CA certificate is longer than InstallCertificate takes.
        said = [finding for finding in said if finding.rule != "w_ocpp_field_size"]
    assert said == []


def test_an_ed448_oem_certificate_passes_without_key_agreement() -> None:
    draft = Draft.of(OEM20, KeyAlgorithm.ED448)
    draft.key_usage([0])
    report = lint_tbs(draft.tbs(), profile=draft.profile)
    assert report.ok


@pytest.mark.parametrize(
    ("ca", "algorithm", "known", "severity"),
    [
        # Adapted to its CA, as issuing does; guessed, with the CA at hand, and without.
        ("iso15118-20/cpo-sub2", KeyAlgorithm.SECP521R1, "profile", Severity.NOTICE),
        ("iso15118-20/cpo-sub2", KeyAlgorithm.ED448, "issuer", Severity.NOTICE),
        ("iso15118-20/cpo-sub2", KeyAlgorithm.SECP521R1, "", Severity.NOTICE),
        ("iso15118-20-a1/cpo-sub2", KeyAlgorithm.SECP521R1, "issuer", Severity.ERROR),
        ("iso15118-2/cpo-sub2", KeyAlgorithm.SECP256R1, "profile", Severity.ERROR),
        ("iso15118-2/cpo-sub2", KeyAlgorithm.SECP256R1, "issuer", Severity.ERROR),
        ("iso15118-2/cpo-sub2", KeyAlgorithm.SECP256R1, "", Severity.ERROR),
    ],
)
def test_critical_key_identifiers_of_an_ocsp_signer_are_judged_by_the_standard_of_its_ca(
    ca: str, algorithm: KeyAlgorithm, known: str, severity: Severity
) -> None:
    draft = Draft.of(SIGNER, algorithm)
    draft.find(oids.AUTHORITY_KEY_IDENTIFIER).critical = True
    profile = get_profile(SIGNER)
    if known == "profile":
        profile = adapt_to_issuer(profile, get_profile(ca), algorithm)
    report = lint_tbs(
        draft.tbs(), profile=profile, issuer_der=Draft.of(ca, algorithm).certificate() if known == "issuer" else None
    )
    assert [each.severity for each in report.findings if each.rule == "e_aki_ski_critical"] == [severity]


def test_a_wildcard_extension_is_reported_once_per_repetition() -> None:
    draft = Draft.of(SECC)
    draft.extensions += [DraftExtension(UNKNOWN, False, der.null())] * 3
    report = lint_tbs(draft.tbs(), profile=draft.profile)
    assert len([finding for finding in report.findings if finding.rule == "e_duplicate_extension"]) == 2
