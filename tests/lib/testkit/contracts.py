"""A small world of contracts: hierarchies of -2 and -20 in one inventory, vehicles with keys, a provisioner."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from chargepki.pki import keys
from chargepki.pki.authority import Authority, CaOrder, IssueOrder
from chargepki.pki.exi import MessageSet
from chargepki.pki.keys import KeyAlgorithm
from chargepki.pki.provisioning import (
    IssuedCps,
    Provisioner,
    admit_vehicle,
    create_contract,
    offer_contract,
    store_vehicle,
)
from chargepki.pki.provisioning.vehicle_side import Installed, Wishes, build_request, open_response
from testkit.authorities import ACTOR, NOW, MemoryKeyStore, make_authority, open_inventory

__all__ = ["ACCOUNT", "PCID", "Clock", "ContractWorld", "Vehicle", "make_world"]

PCID = "WAUABC12345678901D"
ACCOUNT = "DE8AA001234567"
_CHAINS = {
    MessageSet.ISO15118_2: ("mo", "v2g-root", "cps-sub1", "cps-sub2", "mo-root", "mo-sub1", "mo-sub2"),
    MessageSet.ISO15118_20: ("emsp", "v2g-root", "cps-sub1", "cps-sub2", "emsp-root", "emsp-sub1", "emsp-sub2"),
}


@dataclass
class Clock:
    """A clock that stands until it is moved."""

    now: datetime = NOW

    def __call__(self) -> datetime:
        return self.now

    def move(self, **span: float) -> None:
        self.now += timedelta(**span)


@dataclass
class Vehicle:
    """A vehicle with its key."""

    world: ContractWorld
    pcid: str
    key: ec.EllipticCurvePrivateKey
    chain: tuple[bytes, ...]

    def request(self, *, session: bytes = b"sessione", **wishes: object) -> bytes:
        roots = [self.world.root(self.message_set)]
        return build_request(
            self.chain,
            self.key,
            Wishes(roots=roots, **wishes),  # type: ignore[arg-type]  # as given
            session_id=session,
            now=self.world.clock.now,
        )

    @property
    def message_set(self) -> MessageSet:
        return MessageSet.ISO15118_2 if self.key.curve.name == "secp256r1" else MessageSet.ISO15118_20

    def open(self, exi: bytes) -> Installed:
        roots = [self.world.root(self.message_set)]
        return open_response(exi, self.chain[0], self.key, roots=roots, now=self.world.clock.now)


@dataclass
class ContractWorld:
    """What the tests of provisioning share."""

    authority: Authority
    clock: Clock
    keystore: MemoryKeyStore
    folder: Path
    made: set[MessageSet] = field(default_factory=set)
    _provisioner: Provisioner | None = None

    def root(self, message_set: MessageSet) -> bytes:
        der = self.authority.inventory.get_ca(f"{_prefix(message_set)}-v2g-root").certificate_der
        assert der is not None
        return der

    def build(self, message_set: MessageSet) -> None:
        """Make the hierarchies of a standard, once."""
        if message_set in self.made:
            return
        self.made.add(message_set)
        prefix = _prefix(message_set)
        oem = ("oem-root", "oem-sub1", "oem-sub2")
        for role in (*_CHAINS[message_set][1:], *oem):
            family, _, kind = role.rpartition("-")
            issuer = {"root": None, "sub1": "v2g-root" if family == "cps" else f"{family}-root"}.get(
                kind, f"{family}-sub1"
            )
            subject = (("CN", f"{prefix} {role}"), ("O", "Test"), ("C", "DE"))
            self.authority.create_ca(
                CaOrder(
                    f"{prefix}-{role}",
                    f"{message_set.value}/{role}",
                    issuer=f"{prefix}-{issuer}" if issuer else None,
                    subject=subject,
                )
            )

    @property
    def provisioner(self) -> Provisioner:
        if self._provisioner is None:
            self._provisioner = self.new_provisioner()
        return self._provisioner

    def new_provisioner(self) -> Provisioner:
        """Return another one, as another process would have it."""
        cas = [f"{_prefix(each)}-{_CHAINS[each][-1]}" for each in sorted(self.made)]
        cps = [IssuedCps(self.authority, f"{_prefix(each)}-cps-sub2") for each in sorted(self.made)]
        return Provisioner(self.authority, cas, cps)

    def vehicle(self, message_set: MessageSet, pcid: str = PCID) -> Vehicle:
        """Make a vehicle with a provisioning certificate, and admit it."""
        self.build(message_set)
        algorithm = KeyAlgorithm.SECP256R1 if message_set is MessageSet.ISO15118_2 else KeyAlgorithm.SECP521R1
        key = keys.generate_private_key(algorithm)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        issued = self.authority.issue(
            IssueOrder(
                f"{_prefix(message_set)}-oem-sub2",
                f"{message_set.value}/oem-provisioning",
                spki=keys.spki_der(key),
                subject=(("CN", pcid), ("O", "Test")),
            )
        )
        inventory, now = self.authority.inventory, self.clock.now
        store_vehicle(inventory, admit_vehicle(inventory, issued.chain, actor=ACTOR, now=now), actor=ACTOR, now=now)
        return Vehicle(self, pcid, key, issued.chain)

    def contract(self, vehicle: Vehicle, emaid: str = ACCOUNT, *, priority: int = 0) -> None:
        """Create a contract and offer it to the vehicle."""
        inventory, now = self.authority.inventory, self.clock.now
        create_contract(inventory, emaid, actor=ACTOR, now=now)
        offer_contract(inventory, emaid, vehicle.pcid, priority=priority, actor=ACTOR, now=now)

    def answer(self, exi: bytes, **terms: object) -> bytes:
        """Have a request answered."""
        from chargepki.pki.provisioning import Channel

        examined = self.provisioner.examine(exi)
        channel = Channel(**terms)  # type: ignore[arg-type]  # as given
        return self.provisioner.provision(examined, channel=channel).exi


def _prefix(message_set: MessageSet) -> str:
    return "two" if message_set is MessageSet.ISO15118_2 else "twenty"


def make_world(folder: Path, url: str | None = None) -> ContractWorld:
    """Return a world whose clock stands at `NOW`; its hierarchies are made when they are first needed."""
    clock, keystore = Clock(), MemoryKeyStore()
    inventory = open_inventory(url or f"sqlite:///{folder / 'inventory.db'}", folder)
    return ContractWorld(make_authority(inventory, keystore=keystore, clock=clock), clock, keystore, folder)
