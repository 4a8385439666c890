"""The sessions: the good one, and one for each defect of a certificate, a request, an answer or a contract."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec

from chargepki.pki import der, keys, oids
from chargepki.pki.certificate_view import view_certificate
from chargepki.pki.contract_keys import CBC_IV_BYTES, WrapForm, wrap_ec_key
from chargepki.pki.exi import Message, Tree, decode, encode
from chargepki.pki.keys import KeyAlgorithm, PrivateKey
from chargepki.pki.message_signature import sign_elements, signed_elements
from testkit.drafts import Draft
from tests.pnc_e2e.world import FOREIGN, OURS, Leaf, World

__all__ = ["DEFECTS", "Defect", "Plan"]

Tamper = Callable[[bytes], bytes]


@dataclass(frozen=True, slots=True)
class Plan:
    """One session: what the charge point and the vehicle have, and who interferes.

    Attributes:
        roots: whose V2G root the vehicle believes.
        install: whether the vehicle asks for its contract; otherwise it has *contract*.
        signing: what the vehicle signs its request with, in place of its key.
        tamper: what a bad provisioning service makes of our answer.
        token: the eMAID that the station asks the CSMS for, in place of the vehicle's.
        check_secc_status: whether our judgement of the charge point asks for revocation lists.
    """

    secc: Leaf
    vehicle: Leaf
    roots: str = OURS
    install: bool = True
    signing: PrivateKey | None = None
    tamper: Tamper | None = None
    contract: Leaf | None = None
    contract_of: str = OURS
    token: str | None = None
    check_secc_status: bool = False


@dataclass(frozen=True, slots=True)
class Defect:
    """A session to run.

    Attributes:
        laxer: where the simulators notice what they should have noticed earlier, or ``-`` if they never do.
    """

    name: str
    title: str
    plan: Callable[[World], Plan]
    laxer: str = ""


def _plain(world: World) -> Plan:
    return Plan(world.secc, world.vehicle()[1])


# -- the charge point's chain ------------------------------------------------------------------------------------------


def _secc(**forgery: Any) -> Callable[[World], Plan]:
    ca = forgery.pop("ca", "cpo-sub2")
    dc = forgery.pop("dc", "CPO")

    def plan(world: World) -> Plan:
        subject = (("CN", "DE*8AA*E1001"), ("O", "Acme Mobility"), ("DC", dc))
        return replace(_plain(world), secc=world.forge(ca, "secc", *subject, **forgery))

    return plan


def _secc_order(*positions: int) -> Callable[[World], Plan]:
    def plan(world: World) -> Plan:
        return replace(_plain(world), secc=Leaf(tuple(world.secc.chain[at] for at in positions), world.secc.key))

    return plan


def _secc_revoked(world: World) -> Plan:
    secc = world.command_leaf("cpo-sub2", "secc", "CN=DE*8AA*E1002,O=Acme Mobility")
    world.revoke(secc.chain[0])
    return replace(_plain(world), secc=secc, check_secc_status=True)


def _secc_path_length(world: World) -> Plan:
    """A sub-CA 1 that may issue leaves alone, and issued a sub-CA 2."""

    def spoil(draft: Draft) -> None:
        constraints = der.sequence(der.boolean(True), der.integer(0))
        draft.put(oids.BASIC_CONSTRAINTS, constraints, critical=True)

    real = world.authority.open_issuer(f"{OURS}-cpo-sub1").signer.private_key
    subject = (("CN", "ev cpo-sub1"), ("O", "Acme Mobility"), ("C", "DE"), ("DC", "V2G"))

    def keep_name(draft: Draft) -> None:
        draft.subject = view_certificate(world.ca("cpo-sub1")).subject
        spoil(draft)

    short = world.forge("v2g-root", "cpo-sub1", *subject, key=real, days=(-1, 300), spoil=keep_name)
    leaf, sub2, _ = world.secc.chain
    return replace(_plain(world), secc=Leaf((leaf, sub2, short.chain[0]), world.secc.key))


# -- the vehicle's request ---------------------------------------------------------------------------------------------


def _other_signer(world: World) -> Plan:
    return replace(_plain(world), signing=keys.generate_private_key(KeyAlgorithm.SECP256R1))


def _unknown_vehicle(world: World) -> Plan:
    subject = "CN=WFAR0000000000001D,O=Far Away"
    return replace(_plain(world), vehicle=world.command_leaf("oem-sub2", "oem-provisioning", subject, prefix=FOREIGN))


def _revoked_vehicle(world: World) -> Plan:
    plan = _plain(world)
    world.revoke(plan.vehicle.chain[0])
    return plan


def _no_contract(world: World) -> Plan:
    return Plan(world.secc, world.vehicle(contract=False)[1])


def _ended_contract(world: World) -> Plan:
    _, leaf, emaid = world.vehicle()
    world.run("contract", "revoke", emaid)
    return Plan(world.secc, leaf)


# -- the provisioning service's answer ---------------------------------------------------------------------------------


def _answered(change: Callable[[World, Leaf, Tree], None], *, cps: Callable[[World], Leaf] | None = None) -> Any:
    """Return the plan of a session whose answer is changed and signed again, by the service or by *cps*."""

    def plan(world: World) -> Plan:
        base = _plain(world)
        service = cps(world) if cps is not None else world.cps()

        def tamper(exi: bytes) -> bytes:
            message = decode(exi)
            body = _body(message)
            leaf, *below = service.chain
            body["SAProvisioningCertificateChain"] = {
                "Certificate": leaf,
                "SubCertificates": {"Certificate": list(below)},
            }
            change(world, base.vehicle, body)
            header = message.tree["Header"]
            assert isinstance(header, dict)
            header["Signature"] = sign_elements(signed_elements(message), service.ec_key)
            return encode(message)

        return replace(base, tamper=tamper)

    return plan


def _body(message: Message) -> Any:
    body = message.tree["Body"]
    assert isinstance(body, dict)
    return body["CertificateInstallationRes"]


def _unchanged(world: World, vehicle: Leaf, body: Tree) -> None:
    """Leave the answer as it is."""


def _cps(**forgery: Any) -> Callable[[World], Leaf]:
    dc, ca = forgery.pop("dc", "CPS"), forgery.pop("ca", "cps-sub2")
    return lambda world: world.forge(ca, "cps", ("CN", "Provisioning"), ("O", "Acme Mobility"), ("DC", dc), **forgery)


def _wrap_for_another(world: World, vehicle: Leaf, body: Any) -> None:
    """Wrap some contract key for the key of another vehicle."""
    curve = KeyAlgorithm.SECP256R1
    made = [keys.generate_private_key(curve) for _ in range(3)]
    contract, other, ephemeral = (each for each in made if isinstance(each, ec.EllipticCurvePrivateKey))
    wrapped = wrap_ec_key(
        contract, other.public_key(), form=WrapForm.ISO15118_2, ephemeral=ephemeral, iv=bytes(range(CBC_IV_BYTES))
    )
    body["ContractSignatureEncryptedPrivateKey"]["value"] = wrapped.encrypted
    body["DHpublickey"]["value"] = wrapped.public


def _wrap_another_key(world: World, vehicle: Leaf, body: Any) -> None:
    """Wrap for this vehicle a key that is not the certificate's."""
    made = [keys.generate_private_key(KeyAlgorithm.SECP256R1) for _ in range(2)]
    contract, ephemeral = (each for each in made if isinstance(each, ec.EllipticCurvePrivateKey))
    wrapped = wrap_ec_key(
        contract,
        vehicle.ec_key.public_key(),
        form=WrapForm.ISO15118_2,
        ephemeral=ephemeral,
        iv=bytes(range(CBC_IV_BYTES)),
    )
    body["ContractSignatureEncryptedPrivateKey"]["value"] = wrapped.encrypted
    body["DHpublickey"]["value"] = wrapped.public


def _other_emaid(world: World, vehicle: Leaf, body: Any) -> None:
    body["eMAID"]["value"] = "DE8AAOTHER0001"


def _flipped(name: str) -> Callable[[World], Plan]:
    """An answer of which one bit was changed after it was signed."""

    def tamper(exi: bytes) -> bytes:
        message = decode(exi)
        body = _body(message)
        value = body[name]["value"]
        body[name]["value"] = value[:-1] + bytes((value[-1] ^ 1,))
        return encode(message)

    return lambda world: replace(_plain(world), tamper=tamper)


# -- the contract ------------------------------------------------------------------------------------------------------


def _installed(world: World) -> tuple[Plan, str]:
    """Return a session of a vehicle that has its contract, from an earlier one, and the EMAID."""
    from tests.pnc_e2e.foresight import foresee

    _, leaf, emaid = world.vehicle()
    plan = Plan(world.secc, leaf)
    return replace(plan, install=False, contract=foresee(plan, world).installed), emaid


def _contract_revoked(world: World) -> Plan:
    plan, emaid = _installed(world)
    world.run("contract", "revoke", emaid)
    return plan


def _contract_forged(**forgery: Any) -> Callable[[World], Plan]:
    def plan(world: World) -> Plan:
        base, emaid = _installed(world)
        leaf = world.forge("mo-sub2", "contract", ("CN", emaid), ("O", "Acme Mobility"), **forgery)
        return replace(base, contract=leaf, contract_of=forgery.get("prefix", OURS))

    return plan


def _contract_of_manufacturer(world: World) -> Plan:
    plan, emaid = _installed(world)
    return replace(plan, contract=world.forge("oem-sub2", "contract", ("CN", emaid), ("O", "Acme Mobility")))


def _contract_other_token(world: World) -> Plan:
    plan, _ = _installed(world)
    return replace(plan, token="DE8AAOTHER0001")


def _contract_other_key(world: World) -> Plan:
    plan, _ = _installed(world)
    assert plan.contract is not None
    other = Leaf(plan.contract.chain, keys.generate_private_key(KeyAlgorithm.SECP256R1))
    return replace(plan, contract=other)


_NO_SIGNATURES: Final = (2, 4)  # keyEncipherment, keyAgreement

DEFECTS: Final = (
    Defect("none", "nothing is wrong", _plain),
    Defect("secc-wrong-root", "the vehicle believes another V2G root", lambda w: replace(_plain(w), roots=FOREIGN)),
    Defect("secc-wrong-family", "the charge point's certificate comes from a mobility operator", _secc(ca="mo-sub2")),
    Defect("secc-expired", "the charge point's certificate has expired", _secc(days=(-80, -1))),
    Defect("secc-not-yet-valid", "the charge point's certificate is not valid yet", _secc(days=(1, 40))),
    Defect("secc-sub-ca-missing", "the charge point sends no sub-CA 1", _secc_order(0, 1)),
    Defect("secc-path-length", "sub-CA 1 has pathLen 0 and issued a sub-CA 2", _secc_path_length),
    Defect("secc-wrong-curve", "the charge point's key is on secp384r1", _secc(curve=KeyAlgorithm.SECP384R1)),
    Defect("secc-swapped-sub-cas", "the charge point sends sub-CA 1 before sub-CA 2", _secc_order(0, 2, 1), "-"),
    Defect("secc-wrong-dc", "the charge point's certificate has DC=CPS", _secc(dc="CPS"), "-"),
    Defect("secc-revoked", "the charge point's certificate is revoked", _secc_revoked, "-"),
    Defect("request-other-key", "the vehicle signs with a key that is not its certificate's", _other_signer),
    Defect("vehicle-unknown", "the vehicle of a manufacturer that nobody here knows", _unknown_vehicle),
    Defect("vehicle-revoked", "the vehicle's provisioning certificate is revoked", _revoked_vehicle),
    Defect("contract-none", "no contract is offered to the vehicle", _no_contract),
    Defect("contract-ended", "the contract was ended before the vehicle asked", _ended_contract),
    Defect(
        "cps-expired",
        "the provisioning service's certificate has expired",
        _answered(_unchanged, cps=_cps(days=(-80, -1))),
    ),
    Defect(
        "cps-wrong-root",
        "the provisioning service is below another V2G root",
        _answered(_unchanged, cps=_cps(prefix=FOREIGN)),
    ),
    Defect(
        "cps-wrong-dc",
        "the provisioning service's certificate has DC=CPO",
        _answered(_unchanged, cps=_cps(dc="CPO")),
        "-",
    ),
    Defect(
        "answer-altered",
        "the wrapped key is changed after it was signed",
        _flipped("ContractSignatureEncryptedPrivateKey"),
    ),
    Defect(
        "wrong-wrap",
        "the contract key is wrapped for another vehicle",
        _answered(_wrap_for_another),
        "AuthorizationReq",
    ),
    Defect(
        "wrong-key",
        "the wrapped key is not the contract certificate's",
        _answered(_wrap_another_key),
        "AuthorizationReq",
    ),
    Defect("emaid-other", "the answer's eMAID is not the contract certificate's", _answered(_other_emaid), "-"),
    Defect("contract-revoked", "the contract is revoked after it was installed", _contract_revoked),
    Defect("contract-expired", "the contract certificate has expired", _contract_forged(days=(-80, -1))),
    Defect(
        "contract-wrong-root",
        "the contract of an operator that the CSMS does not know",
        _contract_forged(prefix=FOREIGN),
    ),
    Defect(
        "contract-not-issued",
        "the contract certificate is unknown to the CA that seems to have signed it",
        _contract_forged(),
    ),
    Defect(
        "contract-no-signatures",
        "the contract certificate's KeyUsage allows no signatures",
        _contract_forged(spoil=lambda d: d.key_usage(_NO_SIGNATURES)),
    ),
    Defect("contract-wrong-family", "the contract certificate comes from a manufacturer", _contract_of_manufacturer),
    Defect("token-other", "the station asks for another eMAID than the contract certificate's", _contract_other_token),
    Defect("contract-other-key", "the vehicle signs with a key that is not its contract's", _contract_other_key),
)
"""The good session first."""

BY_NAME: Final[Mapping[str, Defect]] = {each.name: each for each in DEFECTS}
