"""Chains are chosen by the V2G roots that a vehicle names; who could verify none of ours gets nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from cryptography import x509

from chargepki.pki.authority import CaOrder
from chargepki.pki.authority.rollover import cross_sign_cas
from chargepki.pki.chain import AnchorUse, TrustAnchor
from chargepki.pki.errors import ChainError
from chargepki.pki.exi import MessageSet
from chargepki.pki.provisioning import Channel, IssuedCps, NoCommonRoot, Provisioner
from chargepki.pki.provisioning.anchors import roots_held
from chargepki.pki.provisioning.request import RootName
from chargepki.pki.provisioning.vehicle_side import Installed, Wishes, build_request, open_response
from testkit.authorities import log_findings
from testkit.contracts import ContractWorld, Vehicle, make_world
from testkit.hierarchy import make_node

BOTH = [MessageSet.ISO15118_2, MessageSet.ISO15118_20]


@pytest.fixture(scope="module", params=BOTH)
def crossed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ContractWorld]:
    """A world whose V2G root another V2G root has certified; the eMSP root of -20 was certified by our V2G root.

    In -2 the CPS sub-CA 2 stands below the root: three certificates are allowed, and the cross-certificate is one.
    """
    world = make_world(tmp_path_factory.mktemp("anchors"))
    standard = request.param
    world.build(standard)
    prefix = prefix_of(standard)
    subject = (("CN", "Other V2G Root"), ("O", "Other"), ("C", "DE"), ("DC", "V2G"))
    world.authority.create_ca(CaOrder("other", f"{standard.value}/v2g-root", subject=subject))
    if standard is MessageSet.ISO15118_2:
        below = (("CN", "Short CPS"), ("O", "Test"), ("C", "DE"))
        world.authority.create_ca(CaOrder("short", "iso15118-2/cps-sub2", issuer=f"{prefix}-v2g-root", subject=below))
    else:
        cross_sign_cas(world.authority, f"{prefix}-emsp-root", f"{prefix}-v2g-root")
    cross_sign_cas(world.authority, f"{prefix}-v2g-root", "other")
    yield world
    assert not log_findings(world.authority.inventory, world.folder)
    world.authority.inventory.close()


def prefix_of(standard: MessageSet) -> str:
    return "two" if standard is MessageSet.ISO15118_2 else "twenty"


def provisioner(world: ContractWorld, *cps: str) -> Provisioner:
    (standard,) = world.made
    contracts = f"{prefix_of(standard)}-{'mo' if standard is MessageSet.ISO15118_2 else 'emsp'}-sub2"
    return Provisioner(world.authority, [contracts], [IssuedCps(world.authority, each) for each in cps])


def ask(vehicle: Vehicle, *roots: bytes) -> bytes:
    wishes = Wishes(roots=list(roots))
    return build_request(vehicle.chain, vehicle.key, wishes, session_id=b"sessione", now=vehicle.world.clock.now)


def opened(vehicle: Vehicle, exi: bytes, *roots: bytes) -> Installed:
    return open_response(exi, vehicle.chain[0], vehicle.key, roots=list(roots), now=vehicle.world.clock.now)


def make_vehicle(world: ContractWorld, number: int) -> Vehicle:
    (standard,) = world.made
    vehicle = world.vehicle(standard, f"WAUABC{number:011d}D")
    world.contract(vehicle, f"DE8AA{number:05d}0000")
    return vehicle


def der_of(world: ContractWorld, ca: str) -> bytes:
    der = world.authority.inventory.get_ca(ca).certificate_der
    assert der is not None
    return der


def test_a_vehicle_with_another_root_gets_the_chain_over_the_cross_certificate(crossed: ContractWorld) -> None:
    (standard,) = crossed.made
    own, other = crossed.root(standard), der_of(crossed, "other")
    service = provisioner(crossed, "short" if standard is MessageSet.ISO15118_2 else f"{prefix_of(standard)}-cps-sub2")
    subjects = {"direct": own, "crossed": other}
    for number, (name, root) in enumerate(subjects.items()):
        vehicle = make_vehicle(crossed, 100 + number)
        answer = service.provision(service.examine(ask(vehicle, root)))
        # The vehicle has that root alone; what it opens is verified up to it.
        assert opened(vehicle, answer.exi, root).emaid, name
        with pytest.raises(ChainError):
            opened(vehicle, answer.exi, make_node("stranger", None, ca=True).der)


def test_a_vehicle_with_none_of_our_roots_gets_nothing_and_nothing_is_made(crossed: ContractWorld) -> None:
    (standard,) = crossed.made
    vehicle, service = make_vehicle(crossed, 200), provisioner(crossed, f"{prefix_of(standard)}-cps-sub2")
    stranger = make_node("stranger", None, ca=True).der
    helpful = make_vehicle(crossed, 201)  # whose answer has the signer of the service made
    service.provision(service.examine(ask(helpful, crossed.root(standard))))
    before = len(list(crossed.authority.inventory.list_certificates()))
    with pytest.raises(NoCommonRoot, match="none of the V2G roots") as refused:
        service.provision(service.examine(ask(vehicle, stranger)))
    assert "CN=stranger" in refused.value.why and refused.value.fix
    if standard is MessageSet.ISO15118_2:
        # With two sub-CAs there is no room for the cross-certificate (V2G2-009).
        with pytest.raises(NoCommonRoot):
            service.provision(service.examine(ask(vehicle, der_of(crossed, "other"))))
    assert len(list(crossed.authority.inventory.list_certificates())) == before


def test_a_contract_comes_with_the_chain_to_a_root_of_the_list_where_it_fits(crossed: ContractWorld) -> None:
    (standard,) = crossed.made
    prefix, root = prefix_of(standard), crossed.root(standard)
    service = provisioner(crossed, f"{prefix}-cps-sub2")
    vehicle = make_vehicle(crossed, 300)
    answer = service.provision(service.examine(ask(vehicle, root)), channel=Channel(characters=17_000))
    chain = opened(vehicle, answer.exi, root).chain
    top = x509.load_der_x509_certificate(chain[-1])
    if standard is MessageSet.ISO15118_2:
        assert len(chain) == 3 and top.issuer == x509.load_der_x509_certificate(der_of(crossed, "two-mo-root")).subject
        return
    # Over the eMSP root, which the V2G root has certified: four with a cross-certificate (V2G20-1003).
    assert len(chain) == 4 and top.issuer == x509.load_der_x509_certificate(root).subject
    tight = make_vehicle(crossed, 301)
    longest = 4 * -(-len(answer.exi) // 3)
    answer = service.provision(service.examine(ask(tight, root)), channel=Channel(characters=longest - 100))
    assert len(opened(tight, answer.exi, root).chain) == 3


def test_of_two_roots_with_one_number_the_one_that_is_named_counts(
    crossed: ContractWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = [make_node(name, None, ca=True, serial=1) for name in ("One V2G", "Two V2G")]
    anchors = tuple(TrustAnchor(each.der, frozenset({AnchorUse.V2G})) for each in nodes)
    monkeypatch.setattr("chargepki.pki.provisioning.anchors.role_anchors", lambda _: anchors)
    inventory = crossed.authority.inventory
    assert roots_held(inventory, [RootName("CN=Two V2G", 1)]) == (nodes[1].der,)
    assert roots_held(inventory, [RootName("written otherwise", 1)]) == (nodes[0].der, nodes[1].der)
    assert roots_held(inventory, [RootName("CN=Two V2G", 2)]) == ()
