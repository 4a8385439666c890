"""What our validators say of a session beforehand: where it must stop, and why."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum

from chargepki.pki.certificate_view import view_certificate
from chargepki.pki.chain import AnchorUse, Purpose, Revocation, RevocationMode, verify_chain
from chargepki.pki.errors import ChargePkiError
from chargepki.pki.identifiers import Emaid
from chargepki.pki.lint import guess_profile, lint_certificate, lint_collection
from chargepki.pki.lint.collection import Kind, Member
from chargepki.pki.profiles import get_profile
from chargepki.pki.provisioning.vehicle_side import Installed, Wishes, build_request, open_response
from tests.pnc_e2e.defects import Plan
from tests.pnc_e2e.world import Leaf, World

__all__ = ["Foresight", "Place", "foresee"]


class Place(StrEnum):
    """The step of a session that does not succeed; named by what is judged there."""

    TLS = "TLS"
    REQUEST = "CertificateInstallationReq"
    RESPONSE = "CertificateInstallationRes"
    CONTRACT = "PaymentDetailsReq"
    AUTHORIZATION = "AuthorizationReq"
    NOWHERE = "-"


@dataclass(frozen=True, slots=True)
class Foresight:
    """Where a session must stop."""

    place: Place
    code: str = ""
    """Of the error, or the id of the lint rule."""
    why: str = ""
    installed: Leaf | None = None
    """The contract of the rehearsal, when it came so far."""


def foresee(plan: Plan, world: World) -> Foresight:
    """Judge a session from beginning to end as the standard wants it, with our own validators."""
    for judge in (_tls, _installation, _contract):
        verdict = judge(plan, world)
        if verdict.place is not Place.NOWHERE:
            return verdict
        if verdict.installed is not None:
            plan = replace(plan, contract=verdict.installed)
    return Foresight(Place.NOWHERE, installed=plan.contract)


def _tls(plan: Plan, world: World) -> Foresight:
    now = datetime.now(UTC)
    anchor = world.anchor("v2g-root", AnchorUse.V2G, prefix=plan.roots)
    leaf, *others = plan.secc.chain
    revocation = _require(world, "v2g-root", "cpo-sub1", "cpo-sub2") if plan.check_secc_status else _OFF
    try:
        verify_chain(leaf, others, [anchor], purpose=Purpose.SECC, at=now, revocation=revocation)
    except ChargePkiError as error:
        return _refused(Place.TLS, error)
    members = []
    for number, der in enumerate(plan.secc.chain):
        view = view_certificate(der)
        profile = get_profile("iso15118-2/secc") if number == 0 else guess_profile(view)[0]
        members.append(Member(f"chain#{number}", view, profile))
        found = lint_certificate(der, profile=members[-1].profile, now=now).errors
        if found:
            return Foresight(Place.TLS, found[0].rule, found[0].message)
    found = lint_collection(members, kind=Kind.BUNDLE, now=now).errors
    return Foresight(Place.TLS, found[0].rule, found[0].message) if found else Foresight(Place.NOWHERE)


def _installation(plan: Plan, world: World) -> Foresight:
    if not plan.install:
        return Foresight(Place.NOWHERE)
    now = datetime.now(UTC)
    vehicle, signing = plan.vehicle, plan.signing or plan.vehicle.key
    roots = [world.ca("v2g-root", prefix=plan.roots)]
    try:
        request = build_request(
            vehicle.chain, Leaf(vehicle.chain, signing).ec_key, Wishes(roots=roots), session_id=bytes(8), now=now
        )
        answer = world.provisioner.provision(world.provisioner.examine(request)).exi
    except ChargePkiError as error:
        return _refused(Place.REQUEST, error)
    answer = plan.tamper(answer) if plan.tamper else answer
    try:
        opened = open_response(answer, vehicle.chain[0], vehicle.ec_key, roots=roots, now=now)
    except ChargePkiError as error:
        return _refused(Place.RESPONSE, error)
    return Foresight(Place.NOWHERE, installed=_leaf(opened))


def _contract(plan: Plan, world: World) -> Foresight:
    """As a CSMS decides about Authorize (C07), without one: path, status by lists, eMAID; then the vehicle's key."""
    assert plan.contract is not None
    leaf, *others = plan.contract.chain
    anchors = [world.anchor("mo-root", AnchorUse.MO), world.anchor("v2g-root", AnchorUse.V2G)]
    revocation = _require(world, "mo-root", "mo-sub1", "mo-sub2")
    try:
        verify_chain(leaf, others, anchors, purpose=Purpose.CONTRACT, at=datetime.now(UTC), revocation=revocation)
    except ChargePkiError as error:
        return _refused(Place.CONTRACT, error)
    view = view_certificate(leaf)
    if not world.inventory.find_certificates_by_serial(f"{view.serial:x}"):
        return Foresight(Place.CONTRACT, "unknown", "its CA has issued no certificate of this serial number")
    emaid = Emaid.parse(view.common_name or "")
    if plan.token is not None and not emaid.same(Emaid.parse(plan.token)):
        return Foresight(Place.CONTRACT, "other-contract", f"the certificate is for {emaid}, the token {plan.token}")
    if plan.contract.key.public_key() != _public(leaf):
        return Foresight(Place.AUTHORIZATION, "other-key", "the vehicle's key is not the certificate's (V2G2-823)")
    return Foresight(Place.NOWHERE)


_OFF = Revocation(RevocationMode.OFF)


def _require(world: World, *cas: str) -> Revocation:
    return Revocation(RevocationMode.REQUIRE, world.crls(*cas))


def _refused(place: Place, error: ChargePkiError) -> Foresight:
    return Foresight(place, getattr(error, "rule", None) or error.code, str(error).splitlines()[0])


def _leaf(opened: Installed) -> Leaf:
    return Leaf(opened.chain, opened.key)


def _public(der: bytes) -> object:
    from cryptography import x509

    return x509.load_der_x509_certificate(der).public_key()
