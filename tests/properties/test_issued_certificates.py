"""Properties of every certificate that the authority hands out (house style, "Properties")."""

from __future__ import annotations

import string
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.verification import Criticality, ExtensionPolicy, PolicyBuilder, Store
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from chargepki.pki.authority import Authority, IssuedCertificate, IssueOrder
from chargepki.pki.chain import verify_chain
from chargepki.pki.errors import ChargePkiError, PolicyRefusal
from chargepki.pki.keys import KeyAlgorithm, PrivateKey
from chargepki.pki.lint import lint_certificate
from chargepki.pki.profiles import get_profile
from testkit.authorities import NOW, make_csr, make_key, ocpp_authority, open_inventory

# Keys are the slow part and not what varies here.
PROFILE = get_profile("ocpp/charging-station")
KEYS = {
    algorithm: make_key(algorithm) for algorithm in PROFILE.keys.algorithms if not algorithm.value.startswith("rsa")
}
# Its verifier knows these three and no Edwards curve.
JUDGED_BY_CRYPTOGRAPHY = (KeyAlgorithm.SECP256R1, KeyAlgorithm.SECP384R1, KeyAlgorithm.SECP521R1)

serial_numbers = st.text(alphabet=string.ascii_letters + string.digits + "-_", min_size=1, max_size=25)
organizations = st.text(
    alphabet=st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Zs")), min_size=1, max_size=64
)
quick = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Authority]:
    """One authority for all examples: what it has issued before must not matter."""
    folder: Path = tmp_path_factory.mktemp("authority")
    inventory = open_inventory(f"sqlite:///{folder / 'inventory.db'}", folder)
    yield ocpp_authority(inventory)
    inventory.close()


def issue(authority: Authority, name: str, organization: str, key: PrivateKey, **options: Any) -> IssuedCertificate:
    """Issue a station certificate, or drop the example when policy refuses what it asks for."""
    try:
        csr = make_csr(name, organization=organization, key=key)
    except (ValueError, ChargePkiError):
        assume(False)  # no builder writes such a name
    order = IssueOrder(ca="t-sub", profile="ocpp/charging-station", csr=csr, again=True, **options)
    try:
        return authority.issue(order)
    except PolicyRefusal as refusal:
        assume("CN" not in refusal.what and " O" not in refusal.what)  # a name that A00.FR.509 or FR.511 forbids
        raise


def root_of(authority: Authority) -> bytes:
    """Return the anchor."""
    der = authority.inventory.get_ca("t-root").certificate_der
    assert der is not None
    return der


@quick
@given(name=serial_numbers, organization=organizations, algorithm=st.sampled_from(sorted(KEYS)))
def test_every_issued_certificate_passes_our_linter(
    authority: Authority, name: str, organization: str, algorithm: KeyAlgorithm
) -> None:
    issued = issue(authority, name, organization, KEYS[algorithm])
    ca = authority.inventory.get_ca("t-sub").certificate_der
    report = lint_certificate(issued.certificate_der, profile=PROFILE, now=NOW, issuer_der=ca)
    assert report.errors == ()


@quick
@given(name=serial_numbers, organization=organizations, algorithm=st.sampled_from(JUDGED_BY_CRYPTOGRAPHY))
def test_every_issued_certificate_passes_an_independent_validator(
    authority: Authority, name: str, organization: str, algorithm: KeyAlgorithm
) -> None:
    issued = issue(authority, name, organization, KEYS[algorithm])
    chain = [x509.load_der_x509_certificate(der) for der in issued.chain]
    ca_policy = ExtensionPolicy.permit_all().require_present(x509.BasicConstraints, Criticality.CRITICAL, None)
    leaf_policy = ExtensionPolicy.permit_all().require_present(x509.KeyUsage, Criticality.CRITICAL, None)
    verifier = (
        PolicyBuilder()
        .store(Store([x509.load_der_x509_certificate(root_of(authority))]))
        .time(NOW)
        .max_chain_depth(3)
        .extension_policies(ca_policy=ca_policy, ee_policy=leaf_policy)
        .build_client_verifier()
    )
    assert verifier.verify(chain[0], chain[1:]).chain[0] == chain[0]


@quick
@given(seconds=st.integers(1, 9 * 365 * 86_400))
def test_every_validity_counts_both_bounds_and_stays_within_the_issuer(authority: Authority, seconds: int) -> None:
    key = KEYS[KeyAlgorithm.SECP256R1]
    record = issue(authority, "CS-1", "Test CSO", key, validity=timedelta(seconds=seconds)).record
    ca = authority.inventory.get_ca("t-sub")
    assert record.not_after - record.not_before == timedelta(seconds=seconds - 1)
    assert ca.not_before is not None and ca.not_after is not None
    assert ca.not_before <= record.not_before <= record.not_after <= ca.not_after


@pytest.fixture(scope="module")
def sample(authority: Authority) -> IssuedCertificate:
    """One certificate to damage."""
    return issue(authority, "CS-1", "Test CSO", KEYS[KeyAlgorithm.SECP256R1])


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_every_changed_byte_of_an_issued_certificate_is_refused(
    authority: Authority, sample: IssuedCertificate, data: st.DataObject
) -> None:
    der = bytearray(sample.certificate_der)
    position = data.draw(st.integers(0, len(der) - 1))
    der[position] ^= data.draw(st.integers(1, 255))
    with pytest.raises(ChargePkiError):
        verify_chain(bytes(der), sample.chain[1:], [root_of(authority)], at=NOW)


def test_the_undamaged_certificate_is_accepted(authority: Authority, sample: IssuedCertificate) -> None:
    verified = verify_chain(sample.certificate_der, sample.chain[1:], [root_of(authority)], at=NOW)
    assert verified.certificates[0] == sample.certificate_der
