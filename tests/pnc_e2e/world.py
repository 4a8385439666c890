"""The PKI of the sessions, made by our commands; and forged certificates below its CAs, which no command would make."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from chargepki.pki import keys, names, private_keys
from chargepki.pki.certificate_view import view_certificate, view_tbs
from chargepki.pki.chain import AnchorUse, TrustAnchor
from chargepki.pki.config import load_settings
from chargepki.pki.keys import KeyAlgorithm, PrivateKey
from chargepki.pki.layouts import Material, Role
from chargepki.pki.pem import pem_blocks, to_pem
from chargepki.pki.pointers import Pointers
from chargepki.pki.profiles import get_profile
from chargepki.pki.provisioning import IssuedCps, Provisioner
from chargepki.pki.template import Window, build_tbs
from chargepki.pki.workspace import Workspace
from testkit.command_line import CommandLine
from testkit.drafts import Draft

__all__ = ["Leaf", "World", "make_world", "read_pem"]

PASSPHRASE = b"correct horse battery staple"
OURS, FOREIGN = "ev", "far"
SECC_SUBJECT = "CN=DE*8AA*E1001,O=Acme Mobility"


@dataclass(frozen=True, slots=True)
class Leaf:
    """A chain (DER, leaf first, without its root) and the key of its leaf."""

    chain: tuple[bytes, ...]
    key: PrivateKey
    files: tuple[Path, Path] | None = None
    """Chain and key, as a command wrote them."""

    @property
    def ec_key(self) -> ec.EllipticCurvePrivateKey:
        """The key of a leaf on a curve."""
        assert isinstance(self.key, ec.EllipticCurvePrivateKey)
        return self.key


def read_pem(path: Path) -> tuple[bytes, ...]:
    """Return the certificates of a file."""
    return tuple(block.der for block in pem_blocks(path.read_bytes(), max_bytes=1 << 20))


class World:
    """A workspace with two hierarchies, ours and one of strangers, a station and its certificates."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "pass.txt").write_bytes(PASSPHRASE)
        (folder / "pass.txt").chmod(0o600)
        self.home = folder / "home"
        self.variables = {"CHARGEPKI_PASSPHRASE_FILE": str(folder / "pass.txt")}
        self.run = CommandLine(self.home, self.variables)
        self._numbers = iter(range(1, 1000))

    def build(self) -> None:
        """Make the hierarchies and the station, each by its command."""
        for prefix, organization in ((OURS, "Acme Mobility"), (FOREIGN, "Far Away")):
            owner = ("--prefix", prefix, "--organization", organization, "--country", "DE")
            self.run("ca", "create-hierarchy", "iso15118-2", *owner)
        password = self.folder / "station.txt"
        password.write_bytes(b"charge-me-1234567")
        self.run("station", "add", "CS-1", "--security-profile", "1", "--password-file", password)
        settings = load_settings({}, {"CHARGEPKI_HOME": str(self.home)}, default_home=self.home)
        self._workspace = Workspace(settings, passphrase=lambda: PASSPHRASE)
        self.authority = self._workspace.authority
        self.inventory = self._workspace.inventory
        self.secc = self.command_leaf("cpo-sub2", "secc", SECC_SUBJECT)
        self.provisioner = Provisioner(
            self.authority, [f"{OURS}-mo-sub2"], [IssuedCps(self.authority, f"{OURS}-cps-sub2")]
        )

    def close(self) -> None:
        """Close the inventory."""
        self._workspace.close()

    # -- certificates that our commands make ---------------------------------------------------------------------------

    def command_leaf(self, ca: str, role: str, subject: str, *, prefix: str = OURS) -> Leaf:
        """Have a leaf issued."""
        number = next(self._numbers)
        key, chain = self.folder / f"leaf{number}.key", self.folder / f"leaf{number}.pem"
        kind = ("--profile", f"iso15118-2/{role}", "--subject", subject)
        self.run("cert", "issue", "--ca", f"{prefix}-{ca}", *kind, "--new-key", "--key-out", key, "--chain-out", chain)
        return Leaf(read_pem(chain), private_keys.load_private_key(key.read_bytes()), (chain, key))

    def vehicle(self, *, contract: bool = True) -> tuple[str, Leaf, str]:
        """Make a vehicle that is known here, and a contract for it; return PCID, its chain, and the EMAID."""
        number = next(self._numbers)
        pcid, emaid = f"WAUE2E{number:011d}D", f"DE8AAE{number:08d}"
        leaf = self.command_leaf("oem-sub2", "oem-provisioning", f"CN={pcid},O=Acme Mobility")
        file = self.folder / f"{pcid}.pem"
        file.write_text("".join(to_pem("CERTIFICATE", each) for each in leaf.chain))
        self.run("vehicle", "import", file)
        if contract:
            self.run("contract", "create", emaid, "--vehicle", pcid)
        return pcid, leaf, emaid

    def ca(self, name: str, *, prefix: str = OURS) -> bytes:
        """Return the certificate of a CA."""
        der = self.inventory.get_ca(f"{prefix}-{name}").certificate_der
        assert der is not None
        return der

    def anchor(self, name: str, use: AnchorUse, *, prefix: str = OURS) -> TrustAnchor:
        """Return a root that is trusted for one use."""
        return TrustAnchor(self.ca(name, prefix=prefix), frozenset({use}))

    def crls(self, *cas: str) -> tuple[bytes, ...]:
        """Publish and return the lists of CAs of ours."""
        return tuple(self.authority.publish_crl(f"{OURS}-{each}").der for each in cas)

    def revoke(self, der: bytes) -> None:
        """Have a certificate revoked."""
        serial = view_certificate(der).serial
        self.run("cert", "revoke", f"{serial:x}", "--reason", "keyCompromise")

    def cps(self) -> Leaf:
        """Return the leaf that our provisioning service signs with."""
        signer = IssuedCps(self.authority, f"{OURS}-cps-sub2").signer()
        return Leaf(signer.chain, signer.key)

    # -- forged ones ---------------------------------------------------------------------------------------------------

    def forge(
        self,
        ca: str,
        role: str,
        *subject: tuple[str, str],
        prefix: str = OURS,
        curve: KeyAlgorithm = KeyAlgorithm.SECP256R1,
        days: tuple[float, float] = (-1, 20),
        spoil: Callable[[Draft], None] | None = None,
        key: PrivateKey | None = None,
    ) -> Leaf:
        """Sign what no command would: the leaf of a CA with anything about it changed.

        Args:
            days: first and last, from now.
        """
        issuer = self.authority.open_issuer(f"{prefix}-{ca}")
        key = key or keys.generate_private_key(curve)
        profile = get_profile(f"iso15118-2/{role}")
        now = datetime.now(UTC).replace(microsecond=0)
        tbs = build_tbs(
            profile,
            issuer=issuer.info,
            serial=secrets.randbits(120) | 1 << 119,
            subject_der=names.name_der(names.build_name(subject)),
            spki_der=keys.spki_der(key),
            window=Window(now + timedelta(days=days[0]), now + timedelta(days=days[1])),
            pointers=Pointers(None, None, None),
        )
        draft = Draft.from_view(profile, view_tbs(tbs))
        if spoil is not None:
            spoil(draft)
        return Leaf((draft.certificate(issuer.signer.private_key), *issuer.chain), key)

    def export(self, folder: Path, secc: Leaf, vehicle: Leaf) -> None:
        """Have the command write the simulators' folder."""
        leaves: list[str] = []
        for role, leaf in (("secc", secc), ("oem-provisioning", vehicle)):
            assert leaf.files is not None
            leaves += ("--leaf", f"{role}={leaf.files[0]},{leaf.files[1]}")
        self.run("inventory", "export", "--layout", "ecog-iso15118", "--prefix", OURS, *leaves, "--out", folder)

    def material(
        self, secc: Leaf, vehicle: Leaf, contract: Leaf | None, *, roots: str = OURS, contract_of: str = OURS
    ) -> Material:
        """Return what the two simulators' folder is made of.

        Args:
            roots: whose V2G root the vehicle believes.
            contract_of: whose sub-CAs it has for its contract.
        """
        certificates = {
            Role.V2G_ROOT: self.ca("v2g-root", prefix=roots),
            Role.MO_ROOT: self.ca("mo-root"),
            Role.MO_SUB1: self.ca("mo-sub1", prefix=contract_of),
            Role.MO_SUB2: self.ca("mo-sub2", prefix=contract_of),
            Role.OEM_ROOT: self.ca("oem-root"),
            Role.OEM_SUB1: self.ca("oem-sub1"),
            Role.OEM_SUB2: self.ca("oem-sub2"),
            Role.OEM_PROVISIONING: vehicle.chain[0],
            Role.CPO_SUB2: secc.chain[1],
            Role.SECC: secc.chain[0],
        }
        if len(secc.chain) > 2:
            certificates[Role.CPO_SUB1] = secc.chain[2]
        private: dict[Role, PrivateKey] = {Role.SECC: secc.key, Role.OEM_PROVISIONING: vehicle.key}
        if contract is not None:
            certificates[Role.CONTRACT], private[Role.CONTRACT] = contract.chain[0], contract.key
        return Material(certificates, private)


def make_world(folder: Path) -> World:
    """Return a new world in *folder*."""
    world = World(folder)
    world.build()
    return world
