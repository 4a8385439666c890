"""Which relying parties are asked about a chain, and what each alone objects to."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from chargepki.pki.certificate_view import view_certificate
from chargepki.pki.doctor.graph import Graph, Node
from chargepki.pki.doctor.parties import Opinion, Party, opinions_of
from chargepki.pki.keys import KeyAlgorithm
from chargepki.pki.profiles import get_profile
from testkit.chains import AT, Made, hierarchy, make

TOOLS = {Party.OPENSSL, Party.JAVA}
EVS = {Party.EV_2, Party.EV_20}
ASKED = {
    "iso15118-2/secc": EVS,
    "iso15118-2/private-secc": EVS,
    "iso15118-20/secc": EVS,
    "iso15118-2/cps": EVS,
    "iso15118-2/contract": {Party.STATION, Party.CSMS},
    "iso15118-2/oem-provisioning": {Party.PROVISIONING},
    "iso15118-20/vehicle": {Party.STATION},
    "ocpp/charging-station": {Party.CSMS},
    "ocpp/csms": {Party.STATION},
    "ocpp/firmware-signing": {Party.STATION},
    "common/ocsp-signer": {Party.RFC5280},
}


def asked(profile: str, made: tuple[Made, ...]) -> dict[Party, Opinion]:
    """Return what each makes of the chain *made*, root first, whose leaf is of *profile*."""
    nodes = [Node([f"{number}.pem"], view_certificate(each.der), None, "") for number, each in enumerate(made)]
    nodes[-1].profile = get_profile(profile)
    (chain,) = Graph(nodes).chains
    assert len(chain.path) == len(made)
    return {each.party: each for each in opinions_of(chain, AT)}


def rules(opinion: Opinion) -> set[str]:
    return {each.rule for each in opinion.objections}


@pytest.fixture(scope="module")
def four() -> tuple[Made, ...]:
    """Root, sub-CA 1, sub-CA 2, leaf."""
    return hierarchy()


@pytest.mark.parametrize("profile", ASKED)
def test_those_are_asked_who_meet_such_a_leaf(four: tuple[Made, ...], profile: str) -> None:
    assert set(asked(profile, four)) == ASKED[profile] | TOOLS


def test_about_a_chain_of_cas_whoever_relies_on_it_is_asked(four: tuple[Made, ...]) -> None:
    assert set(asked("ocpp/cso-sub", four[:3])) == {Party.RFC5280} | TOOLS


@pytest.mark.parametrize(
    ("algorithm", "refused_by"),
    [
        (KeyAlgorithm.SECP256R1, {Party.EV_20}),
        (KeyAlgorithm.SECP521R1, {Party.EV_2}),
        (KeyAlgorithm.ED448, {Party.EV_2}),
        (KeyAlgorithm.ED25519, EVS),
    ],
)
def test_an_ev_takes_the_keys_of_its_edition_alone(algorithm: KeyAlgorithm, refused_by: set[Party]) -> None:
    found = asked("iso15118-2/secc", hierarchy(algorithm))
    assert {party for party in found if "ev-curve" in rules(found[party])} == refused_by
    station = asked("ocpp/csms", hierarchy(algorithm))
    assert not any("ev-curve" in rules(each) for each in station.values())


def test_java_and_openssl_refuse_another_extended_use_and_what_they_do_not_know(four: tuple[Made, ...]) -> None:
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING])
    strange = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\x00")
    odd = make("Leaf", four[2], nth=4, extensions=[(usage, False), (strange, True)])
    found = asked("ocpp/csms", (*four[:3], odd))
    for tool in TOOLS:
        assert {"extended-key-usage", "critical-extension"} <= rules(found[tool]), tool
        assert not rules(asked("ocpp/csms", four)[tool]) & {"extended-key-usage", "critical-extension"}
    # A leaf that signs firmware serves no TLS.
    firmware = asked("ocpp/firmware-signing", (*four[:3], make("Leaf", four[2], nth=4, extensions=[(usage, False)])))
    assert not any("extended-key-usage" in rules(firmware[tool]) for tool in TOOLS)
