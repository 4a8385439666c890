"""The story of ``chargepki demo``, step by step; the same parts as the real commands, nothing staged."""

from __future__ import annotations

import asyncio
import logging
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography import x509

from chargepki.cli.csms_tls import server_identities
from chargepki.cli.globals import GlobalState
from chargepki.cli.stations import add_station, record_profile
from chargepki.ocpp_security.csms import CsmsConfig, CsmsServer
from chargepki.ocpp_security.passwords import generate_password
from chargepki.ocpp_security.security_profile import SecurityProfile
from chargepki.ocpp_security.sign_certificate import CertificateUse, IssuePlan
from chargepki.ocpp_security.station import CsrForgery, Milestone, Progress, StationSimulator, StationStore
from chargepki.ocpp_security.tls import server_context
from chargepki.pki import aio, files
from chargepki.pki.authority.hierarchy import create_hierarchy
from chargepki.pki.config import load_settings
from chargepki.pki.crl import parse_crl
from chargepki.pki.der import to_pem
from chargepki.pki.errors import StateError
from chargepki.pki.inventory import verify_log
from chargepki.pki.inventory.records import CertificateRecord, CertificateState, Delivery
from chargepki.pki.workspace import Workspace

__all__ = ["tell"]

_PREFIX, _ORGANIZATION, _COUNTRY = "demo", "Demo Charging", "DE"
_CA = f"{_PREFIX}-cso-sub"
_GOOD, _BAD = "CS-0001", "CS-0002"
# Loopback needs no name: nothing of the demo leaves this machine, and no relying party looks the URL up.
_PUBLIC_URL = "http://pki.demo.invalid"
_OPENSSL_FILES = ("-CAfile", "root.pem", "-untrusted", "sub.pem", "-CRLfile", "crl.pem", "leaf.pem")
_STEP_SECONDS = 20.0
_CLOSE_LIMIT_MS = 500.0


@dataclass
class _Story:
    """What the steps hand on."""

    state: GlobalState
    folder: Path
    workspace: Workspace
    protocol: str
    step: int = 0
    facts: dict[str, Any] = field(default_factory=dict)

    def head(self, text: str) -> None:
        """Begin a step."""
        self.step += 1
        if not self.state.output.for_machines:
            self.state.output.text(f"\n{self.step}. {text}")

    def line(self, text: str) -> None:
        """Say one thing about the step."""
        if not self.state.output.for_machines:
            self.state.output.text(f"   {text}")


def tell(state: GlobalState, *, protocol: str, keep: str | None) -> None:
    """Run the story.

    Raises:
        StateError: a step did not end as the story says; the text tells which.
    """
    started = time.monotonic()
    # Refused handshakes are part of the story and told there.
    logging.getLogger("websockets").setLevel(logging.CRITICAL)
    logging.getLogger("chargepki").addHandler(logging.NullHandler())
    folder = Path(keep).absolute() if keep else Path(tempfile.mkdtemp(prefix="chargepki-demo-"))
    if keep and folder.exists():
        raise StateError(f"{folder} exists already", why="the demo starts from nothing", fix="name a new folder")
    workspace = _workspace(folder)
    story = _Story(state, folder, workspace, protocol)
    try:
        _create_hierarchies(story)
        asyncio.run(_on_loopback(story))
        _check_crl(story)
        _show_inventory(story)
        _check_log(story)
        story.facts["seconds"] = round(time.monotonic() - started, 1)
        _finish(story)
    finally:
        workspace.close()
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


def _workspace(folder: Path) -> Workspace:
    passphrase = secrets.token_urlsafe(24).encode()
    settings = load_settings(
        {"home": str(folder / "home"), "public_url": _PUBLIC_URL, "publish_dir": str(folder / "www")},
        {},
        default_home=folder / "home",
    )
    files.make_private_folder(folder)
    files.make_private_folder(folder / "home")
    files.write_new(folder / "passphrase.txt", passphrase + b"\n")
    return Workspace(settings, passphrase=lambda: passphrase)


def _create_hierarchies(story: _Story) -> None:
    story.head("Two hierarchies are made: OCPP for the links, ISO 15118-2 for Plug & Charge.")
    made = 0
    for standard, prefix in (("ocpp", _PREFIX), ("iso15118-2", f"{_PREFIX}-v2")):
        cas = create_hierarchy(
            story.workspace.authority, standard, prefix=prefix, organization=_ORGANIZATION, country=_COUNTRY
        )
        made += len(cas)
        story.line(f"{standard}: {', '.join(ca.name for ca in cas)}")
    story.facts["cas"] = made


async def _on_loopback(story: _Story) -> None:
    workspace = story.workspace
    for station in (_GOOD, _BAD):
        password = generate_password().encode()
        add_station(
            workspace,
            station,
            serial_number=None,
            organization=_ORGANIZATION,
            security_profile=2,
            password=password,
        )
        _equip(story, station, password)
    issuer = aio.Authority(workspace.authority)
    trust = [ca.certificate_der for ca in workspace.inventory.list_cas() if ca.name.startswith(f"{_PREFIX}-cso")]
    context = server_context(
        [SecurityProfile(2), SecurityProfile(3)],
        server_identities(workspace, _CA, ("localhost",)),
        client_trust=[der for der in trust if der is not None],
        ignore_client_validity=True,
    )
    plan = IssuePlan(ca=_CA, profile="ocpp/charging-station")
    config = CsmsConfig(tls=context, plans={CertificateUse.CHARGING_STATION: plan}, sealing_key=workspace.sealing_key)
    async with CsmsServer(config, workspace.inventory, issuer) as server:
        url = f"wss://localhost:{server.port}"
        story.head(f"A CSMS listens on {url}/ocpp/ for security profiles 2 and 3.")
        await _enrol(story, url)
        await _refuse_forgeries(story, url)
        await _revoke(story, url)
    await issuer.aclose()


def _equip(story: _Story, station: str, password: bytes) -> StationStore:
    store = _store(story, station)
    root = story.workspace.inventory.get_ca(f"{_PREFIX}-cso-root").certificate_der
    assert root is not None
    store.set_trust(to_pem("CERTIFICATE", root).encode())
    store.set_password(password)
    return store


def _store(story: _Story, station: str) -> StationStore:
    return StationStore(story.folder / "stations" / station)


def _station(story: _Story, url: str, station: str, **options: Any) -> tuple[StationSimulator, list[Progress]]:
    seen: list[Progress] = []
    simulator = StationSimulator(
        url,
        station,
        _store(story, station),
        story.protocol,
        organization=_ORGANIZATION,
        progress=seen.append,
        **options,
    )
    return simulator, seen


async def _until(simulator: StationSimulator, milestone: Milestone) -> Progress:
    try:
        reached = await asyncio.wait_for(simulator.run(until=lambda event: event.milestone is milestone), _STEP_SECONDS)
    except TimeoutError as error:
        raise StateError(f"the station did not reach {milestone.value} within {_STEP_SECONDS:.0f} s") from error
    assert reached is not None
    return reached


async def _enrol(story: _Story, url: str) -> None:
    story.head(f"Station {_GOOD} enrols over {story.protocol}.")
    simulator, seen = _station(story, url, _GOOD)
    await _until(simulator, Milestone.CERTIFICATE_PROVEN)
    told = (
        Milestone.CONNECTED,
        Milestone.CSR_SENT,
        Milestone.CSR_ACCEPTED,
        Milestone.CERTIFICATE_INSTALLED,
        Milestone.CERTIFICATE_PROVEN,
    )
    for event in seen:
        if event.milestone in told:
            story.line(event.text)
    record = _certificate_of(story, _GOOD)
    story.line(
        f"certificate {record.serial} of {record.ca}, {record.delivery}, valid until {record.not_after:%Y-%m-%d}"
    )
    story.facts["certificate"] = record.id

    record_profile(story.workspace, _GOOD, 3)
    story.line("its record now says profile 3: the password alone does not let it in any more (A05.FR.07)")


async def _refuse_forgeries(story: _Story, url: str) -> None:
    story.head(f"Station {_BAD} knows its own password and asks for what it must not have.")
    attempts: list[tuple[str, CsrForgery]] = [
        ("CA rights", CsrForgery(ca=True)),
        (f"the identity of {_GOOD}", CsrForgery(common_name=_GOOD)),
    ]
    refusals = []
    for wish, forgery in attempts:
        simulator, _ = _station(story, url, _BAD, forgery=forgery)
        known = len(_refusals(story))
        await _until(simulator, Milestone.CSR_REFUSED)
        # The station has its answer before the CSMS has put the refusal on record.
        await _wait_for(lambda known=known: len(_refusals(story)) > known, "get its refusal recorded")
        reason = _refusals(story)[-1]
        story.line(f"it asks for {wish}: refused")
        story.line(f"  reason: {reason}")
        refusals.append({"wish": wish, "reason": reason})
    issued = [item for item in story.workspace.inventory.list_certificates(station=_BAD)]
    if issued:
        raise StateError(f"{_BAD} was given a certificate", fix="this is a bug; please report it")
    story.facts["refusals"] = refusals


def _refusals(story: _Story) -> list[str]:
    events = story.workspace.inventory.list_security_events(station=_BAD)
    # The part before it names station, address and event.
    return [item.tech_info.partition(" refused: ")[2] for item in events if item.source == "csms"]


async def _revoke(story: _Story, url: str) -> None:
    story.head(f"The certificate of {_GOOD} is revoked while it is connected.")
    simulator, seen = _station(story, url, _GOOD)
    closed = asyncio.Event()
    refused = asyncio.Event()
    times: dict[str, float] = {}

    def watch(event: Progress) -> bool:
        if event.milestone is Milestone.DISCONNECTED and "begun" in times and not closed.is_set():
            times["closed"] = time.monotonic()
            closed.set()
        if event.milestone is Milestone.REFUSED and closed.is_set():
            refused.set()
        return refused.is_set()

    running = asyncio.create_task(simulator.run(until=watch))
    await _wait_for(lambda: any(event.milestone is Milestone.BOOTED for event in seen), "boot")
    record = _certificate_of(story, _GOOD)
    # A second opening of the inventory: to the CSMS this is another process.
    other = Workspace(story.workspace.settings, passphrase=lambda: (story.folder / "passphrase.txt").read_bytes()[:-1])
    try:
        times["begun"] = time.monotonic()
        await asyncio.to_thread(other.authority.revoke, record.id, "keyCompromise")
        times["revoked"] = time.monotonic()
        await asyncio.wait_for(closed.wait(), _STEP_SECONDS)
        # The connection may be closed before this side hears that the revocation is recorded.
        milliseconds = max(0.0, times["closed"] - times["revoked"]) * 1000
        story.line(f"{record.serial} revoked (keyCompromise); its connection closed after {milliseconds:.0f} ms")
        if milliseconds > _CLOSE_LIMIT_MS:
            story.line(f"(slower than the {_CLOSE_LIMIT_MS:.0f} ms that an idle machine keeps: this one is busy)")
        await asyncio.to_thread(other.authority.publish_crl, record.ca)
        await asyncio.wait_for(refused.wait(), _STEP_SECONDS)
    except TimeoutError as error:
        raise StateError("the revoked station kept its connection, or came back", fix="please report it") from error
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        other.close()
    last = next(event for event in reversed(seen) if event.milestone is Milestone.REFUSED)
    story.line(f"it tries again with the same certificate: {last.text}")
    story.facts["closed_after_ms"] = round(milliseconds, 1)


async def _wait_for(condition: Any, what: str) -> None:
    end = time.monotonic() + _STEP_SECONDS
    while not condition():
        if time.monotonic() > end:
            raise StateError(f"the station did not {what} within {_STEP_SECONDS:.0f} s")
        await asyncio.sleep(0.01)


def _certificate_of(story: _Story, station: str) -> CertificateRecord:
    records = story.workspace.inventory.list_certificates(station=station, state=CertificateState.ISSUED)
    return next(record for record in records if record.delivery in (Delivery.IN_USE, Delivery.DELIVERED))


def _check_crl(story: _Story) -> None:
    story.head("The published CRL is checked.")
    inventory = story.workspace.inventory
    certificate = inventory.get_certificate(story.facts["certificate"])
    path = story.folder / "www" / "crl" / f"{certificate.ca}.crl"
    der = path.read_bytes()
    crl = parse_crl(der)
    entry = crl.find(int(certificate.serial, 16))
    if entry is None:
        raise StateError("the CRL does not list the revoked certificate", fix="this is a bug; please report it")
    story.line(f"CRL {crl.number} of {certificate.ca} lists {certificate.serial} ({entry.reason})")
    story.line(_foreign_opinion(story, certificate, der))


def _foreign_opinion(story: _Story, certificate: CertificateRecord, crl_der: bytes) -> str:
    """Let software that is not ours judge the revoked certificate: openssl when it is there, else cryptography."""
    inventory = story.workspace.inventory
    ca, root = inventory.get_ca(certificate.ca), inventory.get_ca(f"{_PREFIX}-cso-root")
    assert ca.certificate_der and root.certificate_der and certificate.der
    openssl = shutil.which("openssl")
    if openssl is None:
        key = x509.load_der_x509_certificate(ca.certificate_der).public_key()
        valid = x509.load_der_x509_crl(crl_der).is_signature_valid(key)  # type: ignore[arg-type]  # a CA key
        return f"the cryptography package finds its signature {'valid' if valid else 'INVALID'}"
    # One folder, fixed names: no text of the inventory reaches the command line.
    folder = story.folder / "openssl"
    files.make_private_folder(folder)
    for name, pem in (
        ("root.pem", to_pem("CERTIFICATE", root.certificate_der)),
        ("sub.pem", to_pem("CERTIFICATE", ca.certificate_der)),
        ("leaf.pem", to_pem("CERTIFICATE", certificate.der)),
        ("crl.pem", to_pem("X509 CRL", crl_der)),
    ):
        files.write_durable(folder / name, pem.encode())
    result = subprocess.run(  # noqa: S603 - a fixed command on files of our own
        [
            openssl,
            "verify",
            "-crl_check",
            "-CAfile",
            "root.pem",
            "-untrusted",
            "sub.pem",
            "-CRLfile",
            "crl.pem",
            "leaf.pem",
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    said = next((line for line in (result.stderr + result.stdout).splitlines() if "revoked" in line), "")
    if result.returncode == 0 or not said:
        raise StateError("openssl does not see the revocation", why=result.stderr.strip()[:200])
    return f"openssl verify -crl_check says: {said.strip()}"


def _show_inventory(story: _Story) -> None:
    story.head("What the inventory holds of the two stations:")
    if story.state.output.for_machines:
        return
    rows: list[Mapping[str, Any]] = []
    inventory = story.workspace.inventory
    for station in inventory.list_stations():
        certificates = list(inventory.list_certificates(station=station.id))
        rows += [
            {
                "station": station.id,
                "certificate": record.serial[:16] + "…",
                "state": record.state,
                "reason": record.revocation_reason,
                "delivery": record.delivery,
            }
            for record in certificates
        ]
        if not certificates:
            rows.append({"station": station.id, "certificate": "none", "state": "two requests refused"})
    story.state.output.rows("chargepki/demo", ("station", "certificate", "state", "reason", "delivery"), rows)


def _check_log(story: _Story) -> None:
    inventory = story.workspace.inventory
    report = verify_log(inventory, pinned_keys=[story.workspace.audit_key.public])
    story.head(f"The audit log holds {report.entries} entries; the last ones about {_GOOD}:")
    certificate = story.facts["certificate"]
    for entry in inventory.list_audit(limit=10_000):
        if certificate in entry.subject or (entry.subject == _GOOD and entry.action.startswith("station")):
            mark = "" if entry.actor.authenticated else " (unauthenticated)"
            story.line(f"{entry.seq:>4}  {entry.action:<22} {entry.actor.kind.value}:{entry.actor.name}{mark}")
    if report.findings:
        raise StateError(f"the log does not verify: {report.findings[0].what}", fix="this is a bug; please report it")
    story.line(f"verified: {report.entries} entries and {report.rows} rows agree, head signed by the log key")
    story.facts["audit_entries"] = report.entries


def _finish(story: _Story) -> None:
    if story.state.output.for_machines:
        story.state.output.document("chargepki/demo", story.facts)
        return
    text = f"""
Done in {story.facts["seconds"]} s. The same with your own CSR:

   printf '%s\\n' 'a long passphrase' > pass.txt && chmod 600 pass.txt
   export CHARGEPKI_HOME=$PWD/pki-home CHARGEPKI_PASSPHRASE_FILE=$PWD/pass.txt CHARGEPKI_PUBLIC_URL=http://pki.example.org
   chargepki ca create-hierarchy ocpp --prefix acme --organization 'Acme Charging' --country DE
   openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout station.key \\
       -subj '/CN=CS-0001/O=Acme Charging' -out station.csr
   chargepki cert issue --ca acme-cso-sub --profile ocpp/charging-station --csr station.csr --chain-out chain.pem
   chargepki audit verify
"""
    story.state.output.text(text)
