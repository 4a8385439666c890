"""Take the pictures of the report in docs/images, of an inventory that is made for them.

Run as ``make screenshots``. Dates, names and numbers are the same each time; keys are not.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

from chargepki.pki import keys
from chargepki.pki.authority import Authority, CaOrder, IssueOrder
from chargepki.pki.config import load_settings
from chargepki.pki.inventory.records import Actor, ActorKind
from chargepki.pki.keys import KeyAlgorithm
from chargepki.pki.workspace import Workspace
from testkit.browser import open_browser
from testkit.inventories import add_station

__all__ = ["main", "make_inventory"]

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "images"
AT = datetime(2026, 11, 2, 9, tzinfo=UTC)
MOST_BYTES = 150 * 1024
SIZE = (1120, 1230)
_PASSPHRASE = b"correct horse battery staple"
_VENDORS = ("Acme Charging", "Volt AG", "Ladewerk", "Borne SA", "Chargely")
_COUNTRIES = ("DE", "DE", "DE", "NL", "NL", "FR", "AT")
_CAS = (
    ("acme-cso-root", "ocpp/cso-root", None, ""),
    ("acme-cso-sub", "ocpp/cso-sub", "acme-cso-root", ""),
    ("acme-manufacturer-root", "ocpp/manufacturer-root", None, ""),
    ("acme-v2g-root", "iso15118-2/v2g-root", None, "V2G"),
    ("acme-cpo-sub1", "iso15118-2/cpo-sub1", "acme-v2g-root", "CPO"),
    ("acme-cpo-sub2", "iso15118-2/cpo-sub2", "acme-cpo-sub1", "CPO"),
    ("acme-v2g20-root", "iso15118-20/v2g-root", None, "V2G"),
    ("acme-cpo20-sub1", "iso15118-20/cpo-sub1", "acme-v2g20-root", "CPO"),
    ("acme-cpo20-sub2", "iso15118-20/cpo-sub2", "acme-cpo20-sub1", "CPO"),
)


class _Clock:
    """Goes where it is put."""

    def __init__(self) -> None:
        self.now = AT - timedelta(days=420)

    def __call__(self) -> datetime:
        return self.now


def make_inventory(home: Path) -> None:
    """Fill the workspace *home* with a year of issuing, publishing and revoking."""
    clock, random = _Clock(), Random(20261102)  # chooses names and dates, no secrets
    actor = Actor("operator", ActorKind.OPERATOR, authenticated=True)
    workspace = Workspace(load_settings({}, {}, default_home=home), passphrase=lambda: _PASSPHRASE, actor=actor)
    authority = Authority(
        *(workspace.inventory, workspace.keystore), actor=actor, clock=clock, public_url="http://pki.acme-charging.eu"
    )
    for name, profile, issuer, component in _CAS:
        subject = [("CN", name), ("O", "Acme Charging"), ("C", "DE")]
        authority.create_ca(
            CaOrder(
                name, profile, issuer=issuer, subject=(*subject, ("DC", component)) if component else tuple(subject)
            )
        )
    for number in range(120):
        add_station(workspace.inventory, f"CS-{number:04d}")
    issued: list[str] = []
    for day in range(400, -1, -2):
        clock.now = AT - timedelta(days=day, minutes=random.randrange(600))
        # Many stations came in one autumn: what they have ends at one time.
        for _ in range(4 if 318 < day < 326 else 1):
            issued.append(authority.issue(_order(random, len(issued))).record.id)
        if random.random() < 0.12:
            victim = issued[random.randrange(max(0, len(issued) - 25), len(issued))]
            authority.revoke(victim, random.choice(("superseded", "keyCompromise")))
            clock.now += timedelta(minutes=random.choice((1, 4, 9, 35, 200)))
        if day % 6 == 0:
            for name, *_ in _CAS:
                authority.publish_crl(name)
    clock.now = AT - timedelta(minutes=20)
    authority.revoke(issued[-3], "keyCompromise")
    workspace.close()


def _order(random: Random, number: int) -> IssueOrder:
    algorithm = KeyAlgorithm.SECP256R1
    subject = [("O", random.choice(_VENDORS)), ("C", random.choice(_COUNTRIES))]
    kind = random.choices(("station", "secc", "secc20", "csms"), (60, 25, 10, 5))[0]
    station: str | None = None
    dns: tuple[str, ...] = ()
    component: list[tuple[str, str]] = []
    if kind == "station":
        station = f"CS-{number % 120:04d}"
        ca, profile, name = "acme-cso-sub", "ocpp/charging-station", station
    elif kind == "csms":
        ca, profile, name = "acme-cso-sub", "ocpp/csms", f"csms{number}.acme-charging.eu"
        dns = (name,)
    else:
        ca, profile = (
            ("acme-cpo-sub2", "iso15118-2/secc") if kind == "secc" else ("acme-cpo20-sub2", "iso15118-20/secc")
        )
        name, component = f"DE*ACM*E{number:06d}", [("DC", "CPO")]
        if kind == "secc20":
            ca, profile = "acme-cpo20-sub2", "iso15118-20/secc"
            algorithm = KeyAlgorithm.SECP521R1
    key = keys.generate_private_key(algorithm)
    return IssueOrder(
        ca,
        profile,
        spki=keys.spki_der(key.public_key()),
        subject=(("CN", name), *subject, *component),
        dns_names=dns,
        station=station,
    )


def take(page_file: Path) -> dict[str, bytes]:
    """Return the pictures of a report by the names of their files."""
    width, height = SIZE
    found = {}
    with open_browser() as browser:
        page = browser.page()
        for name, dark in (("report-light.png", False), ("report-dark.png", True)):
            page.show(width=width, height=height, dark=dark)
            page.load(page_file.as_uri())
            found[name] = page.screenshot()
    return found


def main(arguments: Sequence[str]) -> int:
    """Write the pictures, and return the exit code."""
    folder = Path(arguments[0]) if arguments else FOLDER
    with tempfile.TemporaryDirectory(prefix="screenshots-") as temporary:
        home, file = Path(temporary) / "home", Path(temporary) / "report.html"
        make_inventory(home)
        command = Path(sys.executable).parent / "chargepki"
        at = AT.strftime("%Y-%m-%dT%H:%M:%SZ")
        words = ("inventory", "report", "--home", home, "--at", at, "--out", file)
        subprocess.run([command, *words], check=True)
        pictures = take(file)
        if len(arguments) > 1:
            Path(arguments[1]).write_bytes(file.read_bytes())
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in pictures.items():
        (folder / name).write_bytes(content)
        print(f"{folder / name}: {len(content) / 1024:.0f} KiB")
    too_large = [name for name, content in pictures.items() if len(content) > MOST_BYTES]
    if too_large:
        print(f"error: larger than {MOST_BYTES // 1024} KiB: {', '.join(too_large)}", file=sys.stderr)
    return 1 if too_large else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
