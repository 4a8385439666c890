"""What commands start from in the crash tests: functions that bring a workspace so far."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from chargepki.pki.authority import Authority, CaOrder, IssueOrder
from chargepki.pki.inventory import AuditKey, Transaction
from chargepki.pki.inventory.campaign_records import CampaignState, CampaignStationState
from chargepki.pki.signer import SoftwareKeyStore
from testkit.authorities import make_csr
from testkit.crash import PASSPHRASE, Place, Runner
from testkit.crash_judge import cheapen_keys
from testkit.crash_scenarios import SUBJECT, filled, open_place
from testkit.inventories import ACTOR

__all__ = [
    "STATION",
    "after",
    "ceremony",
    "due",
    "ended",
    "firmware",
    "offline",
    "password",
    "person",
    "recorded",
    "registered",
    "vehicle",
]

_LEAF: Final = timedelta(days=90)
STATION: Final = ("station", "add", "CS-1", "--security-profile", "2")


def after(*commands: tuple[str, ...]) -> Callable[[Runner, Place], None]:
    def setup(runner: Runner, place: Place) -> None:
        for arguments in commands:
            done = runner.run(place, *filled(arguments, place))
            assert done.code == 0, (arguments, done.stderr)
        cheapen_keys(place)

    return setup


def offline(*more: tuple[str, ...]) -> Callable[[Runner, Place], None]:
    """Ask for a CA, and have another workspace with a root of its own answer; its list is beside the answer."""

    def setup(runner: Runner, place: Place) -> None:
        other = Place.new(place.root.with_name(f"{place.root.name}-offline"))
        ask = ("ca", "request", "n", "--profile", "ocpp/cso-sub", *SUBJECT, "--out", str(other.root / "q.json"))
        after(ask)(runner, place)
        root = ("--profile", "ocpp/cso-root", "--subject", "CN=Far,O=Test CSO,C=DE")
        answer, listed = str(place.root / "answer.json"), str(place.root / "far.crl")
        after(
            ("ca", "create", "far", *root),
            ("ca", "sign-request", "q.json", "--issuer", "far", "--out", answer),
            ("crl", "publish", "--ca", "far", "--out", listed),
        )(runner, other)
        with open_place(other) as inventory:
            digest = hashlib.sha256(inventory.get_ca("far").certificate_der or b"").hexdigest()
        (place.root / "root.sha256").write_text(digest)
        after(*more)(runner, place)

    return setup


def recorded(*works: Callable[[Transaction], Any]) -> Callable[[Runner, Place], None]:
    """Put what no command makes into the inventory."""

    def setup(runner: Runner, place: Place) -> None:
        with open_place(place) as inventory:
            for work in works:

                def both(tx: Transaction, work: Callable[[Transaction], Any] = work) -> None:
                    work(tx)
                    tx.audit(ACTOR, "test.put", "x", now=datetime.now(UTC))

                inventory.write(both)

    return setup


def registered(runner: Runner, place: Place) -> None:
    person(runner, place)
    after(("approval", "register", "bob", "--public-key", "bob.pub"))(runner, place)


def ended(campaign: str, *commands: tuple[str, ...]) -> Callable[[Runner, Place], None]:
    """Let a campaign end as a CSMS ends one whose station never came."""

    def setup(runner: Runner, place: Place) -> None:
        after(*commands)(runner, place)
        waiting, unreached = CampaignStationState.WAITING, CampaignStationState.UNREACHED
        recorded(
            lambda tx: tx.change_campaign_station(campaign, "CS-1", expected=waiting, state=unreached),
            lambda tx: tx.change_campaign(campaign, state=CampaignState.DONE),
        )(runner, place)

    return setup


def due(runner: Runner, place: Place) -> None:
    """Let three certificates come into the last third of their lives, one of them held by a station."""
    place.home.mkdir(mode=0o700)
    began = datetime.now(UTC).replace(microsecond=0) - timedelta(days=85)
    AuditKey.load_or_create(place.home / "audit.key")
    with open_place(place) as inventory:
        authority = Authority(
            inventory,
            SoftwareKeyStore(place.home / "keys", lambda: PASSPHRASE),
            actor=ACTOR,
            clock=lambda: began,
            public_url="http://pki.example.org",
        )
        subject = (("CN", "Root"), ("O", "Test CSO"), ("C", "DE"))
        authority.create_ca(CaOrder("r", "ocpp/cso-root", subject=subject))
        authority.create_ca(CaOrder("s", "ocpp/cso-sub", issuer="r", subject=(("CN", "Sub"), *subject[1:])))
        for number in range(2):
            order = IssueOrder("s", "ocpp/charging-station", csr=make_csr(f"CS-D{number}"), validity=_LEAF)
            authority.issue(order)
        after(("station", "add", "CS-D9"))(runner, place)
        authority.issue(
            IssueOrder("s", "ocpp/charging-station", csr=make_csr("CS-D9"), validity=_LEAF, station="CS-D9")
        )
    cheapen_keys(place)


def person(runner: Runner, place: Place) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    (place.root / "bob.pub").write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    path = place.root / "bob.key"
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    path.chmod(0o600)


def password(runner: Runner, place: Place) -> None:
    (place.root / "password").write_bytes(b"0123456789abcdef")
    (place.root / "password").chmod(0o600)
    after(STATION)(runner, place)


def ceremony(runner: Runner, place: Place) -> None:
    steps = (
        ("ca", "create", "k", "--profile", "ocpp/cso-root", "--subject", "CN=K,O=Test CSO,C=DE"),
        ("crl", "publish", "--ca", "k"),
    )
    text = 'title = "T"\nwitnesses = []\n[[step]]\nsay = "no network"\n'
    text += "".join(f"[[step]]\nrun = {json.dumps(list(step))}\n" for step in steps)
    (place.root / "script.toml").write_text(text)


def firmware(*more: tuple[str, ...]) -> Callable[[Runner, Place], None]:
    def setup(runner: Runner, place: Place) -> None:
        person(runner, place)
        (place.root / "image").write_bytes(b"image" * 500)
        maker = ("--profile", "ocpp/manufacturer-root", "--subject", "CN=Maker,O=Maker")
        issue = ("--profile", "ocpp/firmware-signing", "--subject", "CN=FW,O=Maker", "--new-key")
        out = ("--key-out", "fw.key", "--out", "fw.pem")
        sign = ("firmware", "sign", "image", "--key", "fw.key", "--cert", "fw.pem", "--out", "sig")
        after(
            ("ca", "create", "maker", *maker),
            ("cert", "issue", "--ca", "maker", *issue, *out),
            sign,
            ("firmware", "register-approver", "bob", "--public-key", "bob.pub"),
            *more,
        )(runner, place)

    return setup


def vehicle(*more: tuple[str, ...]) -> Callable[[Runner, Place], None]:
    """Make a manufacturer, a vehicle and a contract service, as far as ISO 15118-2 goes."""
    roles = (("v2g-root", None), ("oem-root", None), ("oem-sub1", "oem-root"), ("oem-sub2", "oem-sub1"),
             ("mo-root", None), ("mo-sub1", "mo-root"), ("mo-sub2", "mo-sub1"),
             ("cps-sub1", "v2g-root"), ("cps-sub2", "cps-sub1"))  # fmt: skip

    def setup(runner: Runner, place: Place) -> None:
        for role, above in roles:
            domain = "OEM" if "oem" in role else "MO" if "mo" in role else "CPS" if "cps" in role else "V2G"
            words = ["ca", "create", f"p-{role}", "--profile", f"iso15118-2/{role}"]
            words += ["--subject", f"CN=P {role},O=Acme,DC={domain}"]
            after((*words, *(("--issuer", f"p-{above}") if above else ())))(runner, place)
        leaf = ("--profile", "iso15118-2/oem-provisioning", "--subject", "CN=WAUABC12345678901D,O=Acme", "--new-key")
        out = ("--key-out", "car.key", "--chain-out", "car.pem")
        after(("cert", "issue", "--ca", "p-oem-sub2", *leaf, *out), ("ca", "chain", "p-v2g-root", "--out", "v2g.pem"))(
            runner, place
        )
        pem = (place.root / "v2g.pem").read_bytes()
        digest = hashlib.sha256(x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)).hexdigest()
        (place.root / "root.sha256").write_text(digest)
        after(*more)(runner, place)

    return setup
