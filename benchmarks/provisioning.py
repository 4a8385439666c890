"""How many contracts does a CPU-second provision, against the floor: the signatures and keys that it cannot do without?

The floor of one answer: verify the request and the three certificates of the vehicle's chain, make contract key and
ephemeral key, agree on a secret, sign the certificate and the response. Ours is everything: EXI both ways, judging,
lint, eight audit entries and five durable commits, wrapping. Requests are signed beforehand; each brings a new
certificate.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from benchmarks.harness import Comparison, Timing, main
from benchmarks.material import make_authority
from chargepki.pki import keys
from chargepki.pki.authority import Authority, CaOrder, IssueOrder
from chargepki.pki.keys import KeyAlgorithm
from chargepki.pki.provisioning import (
    IssuedCps,
    Provisioner,
    admit_vehicle,
    create_contract,
    store_vehicle,
)
from chargepki.pki.provisioning.vehicle_side import Wishes, build_request

VEHICLES, ROUNDS = 30, 7
_ROLES = {
    "iso15118-2": (
        "v2g-root",
        "cps-sub1",
        "cps-sub2",
        "mo-root",
        "mo-sub1",
        "mo-sub2",
        "oem-root",
        "oem-sub1",
        "oem-sub2",
    ),
    "iso15118-20": (
        "v2g-root",
        "cps-sub1",
        "cps-sub2",
        "emsp-root",
        "emsp-sub1",
        "emsp-sub2",
        "oem-root",
        "oem-sub1",
        "oem-sub2",
    ),
}
_CURVES: dict[str, tuple[KeyAlgorithm, ec.EllipticCurve, hashes.HashAlgorithm]] = {
    "iso15118-2": (KeyAlgorithm.SECP256R1, ec.SECP256R1(), hashes.SHA256()),
    "iso15118-20": (KeyAlgorithm.SECP521R1, ec.SECP521R1(), hashes.SHA512()),
}


class World:
    """Hierarchies of a standard, and vehicles with one contract each."""

    def __init__(self, authority: Authority, standard: str) -> None:
        self.authority, self.standard = authority, standard
        for role in _ROLES[standard]:
            family, _, kind = role.rpartition("-")
            top = "v2g-root" if family == "cps" else f"{family}-root"
            issuer = {"root": None, "sub1": top, "sub2": f"{family}-sub1"}[kind]
            subject = (("CN", f"{standard} {role}"), ("O", "Bench"), ("C", "DE"))
            above = f"{standard}-{issuer}" if issuer else None
            authority.create_ca(CaOrder(f"{standard}-{role}", f"{standard}/{role}", issuer=above, subject=subject))
        contracts = "mo-sub2" if standard == "iso15118-2" else "emsp-sub2"
        self.provisioner = Provisioner(
            authority, [f"{standard}-{contracts}"], [IssuedCps(authority, f"{standard}-cps-sub2")]
        )
        self.vehicles = [self._vehicle(number) for number in range(VEHICLES)]
        root = authority.inventory.get_ca(f"{standard}-v2g-root").certificate_der
        assert root is not None
        self._wishes = Wishes(roots=(root,))

    def _vehicle(self, number: int) -> tuple[ec.EllipticCurvePrivateKey, tuple[bytes, ...]]:
        key = keys.generate_private_key(_CURVES[self.standard][0])
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        pcid, is_2 = f"WAUBEN{number:011d}D", self.standard == "iso15118-2"
        subject, profile = (("CN", pcid), ("O", "Bench")), f"{self.standard}/oem-provisioning"
        order = IssueOrder(f"{self.standard}-oem-sub2", profile, spki=keys.spki_der(key), subject=subject)
        chain = self.authority.issue(order).chain
        inventory, actor, now = self.authority.inventory, self.authority.actor, self.authority.now()
        store_vehicle(inventory, admit_vehicle(inventory, chain, actor=actor, now=now), actor=actor, now=now)
        emaid = f"DE8{'AA' if is_2 else 'BB'}{number:09d}"
        create_contract(inventory, emaid, vehicles=[pcid], actor=actor, now=now)
        return key, chain

    def requests(self) -> list[bytes]:
        """Return a newly signed request of each vehicle."""
        now = self.authority.now()
        return [build_request(chain, key, self._wishes, session_id=bytes(8), now=now) for key, chain in self.vehicles]

    def answer(self, requests: Sequence[bytes]) -> None:
        """Answer each request."""
        for exi in requests:
            self.provisioner.provision(self.provisioner.examine(exi))


def floor(standard: str) -> Callable[[], None]:
    """Return what nobody can do without, for as many answers as there are vehicles."""
    _, curve, digest = _CURVES[standard]
    ca = ec.generate_private_key(curve)
    message = bytes(600)
    signature = ca.sign(message, ec.ECDSA(digest))
    public = ca.public_key()

    def run() -> None:
        for _ in range(VEHICLES):
            for _ in range(4):
                public.verify(signature, message, ec.ECDSA(digest))
            ec.generate_private_key(curve)
            ec.generate_private_key(curve).exchange(ec.ECDH(), public)
            ca.sign(message, ec.ECDSA(digest))
            ca.sign(message, ec.ECDSA(digest))

    return run


def measure_one(world: World, how: str, *, anew: bool) -> Comparison:
    """Measure both in alternating rounds; requests are signed outside of the measurement."""
    reference = floor(world.standard)
    requests = world.requests()
    world.answer(requests)
    reference()
    samples: list[tuple[float, float, float, float]] = []
    for _ in range(ROUNDS):
        asked = world.requests() if anew else requests
        times: list[float] = []
        for run in (lambda asked=asked: world.answer(asked), reference):
            cpu, wall = time.process_time(), time.perf_counter()
            run()
            times += [(time.process_time() - cpu) / VEHICLES, (time.perf_counter() - wall) / VEHICLES]
        samples.append((times[0], times[1], times[2], times[3]))
    ratios = [own / other for own, _, other, _ in samples]
    ours, ours_wall, theirs, theirs_wall = ([sample[column] for sample in samples] for column in range(4))
    return Comparison(
        question=f"contracts of {world.standard}, {how}",
        subject=Timing("Provisioner", ROUNDS * VEHICLES, median(ours), min(ours), median(ours_wall)),
        reference=Timing(
            "its signatures and keys alone", ROUNDS * VEHICLES, median(theirs), min(theirs), median(theirs_wall)
        ),
        ratio=median(ratios),
        ratio_low=min(ratios),
        ratio_high=max(ratios),
        rounds=ROUNDS,
    )


def measure() -> Sequence[Comparison]:
    """Measure new contracts of both standards, and the repetition of a request."""
    found = []
    for standard in _ROLES:
        with tempfile.TemporaryDirectory() as folder:
            base = make_authority(Path(folder))
            # Certificates of -20 point to their revocation lists.
            authority = Authority(base.inventory, base.keystore, actor=base.actor, public_url="http://pki.example")
            try:
                world = World(authority, standard)
                found.append(measure_one(world, "each request new", anew=True))
                found.append(measure_one(world, "the same request again", anew=False))
            finally:
                authority.inventory.close()
    return found


if __name__ == "__main__":
    raise SystemExit(main("provisioning", measure))
