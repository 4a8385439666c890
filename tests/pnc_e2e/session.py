"""Run sessions: the two simulators, and behind the charge point our station, our CSMS and our provisioning service."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from chargepki.ocpp_security.link import CallRefused
from chargepki.ocpp_security.station import Milestone, Progress, StationSimulator, StationStore
from chargepki.ocpp_security.station.ev_contract import EvExchange, ask_for_contracts
from chargepki.ocpp_security.versions import OcppVersion
from chargepki.pki.errors import ChargePkiError
from chargepki.pki.layouts import Layout, Material, Role, lay_out
from chargepki.pki.layouts.base import key_pem
from chargepki.pki.pem import to_pem
from tests.pnc_e2e.defects import Plan
from tests.pnc_e2e.namespaces import CHARGE_POINT, SIMULATORS, VEHICLE, plug_in, vehicle_command
from tests.pnc_e2e.world import OURS, World

__all__ = ["Observed", "Rig"]

# Ports of a namespace that nobody else is in.
_CSMS_PORT, _BACKEND_PORT = 18915, 18916
_SECONDS: Final = 60.0
"""For one session; a session takes two."""
_CHARGED: Final = ("ChargingStatusReq", "SessionStopReq")


@dataclass
class Observed:
    """What a session did."""

    vehicle: list[str] = field(default_factory=list)
    """Messages that the vehicle has sent."""
    charge_point: list[str] = field(default_factory=list)
    stopped: dict[str, str] = field(default_factory=dict)
    """Why each side says that it ended the session, in the order of their ends."""
    installed: str | None = None
    """The public key that belongs to what the vehicle unwrapped."""
    answers: list[bytes] = field(default_factory=list)
    """EXI that the vehicle was given."""
    refused: str = ""
    """What our service or our CSMS said no to."""
    listened_anew: bool = False
    """The charge point was asked for its address again, and closed its port to open it once more."""

    @property
    def charged(self) -> bool:
        """Whether energy flowed, and the session was stopped in peace."""
        return all(each in self.vehicle for each in _CHARGED) and "SessionStopRes" in self.charge_point

    @property
    def place(self) -> str:
        """Where it stopped, by the name of what was judged; ``-`` when it did not."""
        if self.charged:
            return "-"
        if not self.vehicle:
            return "TLS"
        last = self.vehicle[-1]
        # A charge point that says no does so in its response; a vehicle that says no sends nothing more.
        if last.endswith("Req") and not self.is_refused_by_charge_point:
            return f"{last.removesuffix('Req')}Res"
        return last

    @property
    def is_refused_by_charge_point(self) -> bool:
        """Whether the vehicle was told no, rather than saying so."""
        return self.stopped.get("vehicle", "").startswith("Negative response code")

    @property
    def is_late(self) -> bool:
        """Whether one side waited in vain: their patience is seconds or less, whatever else the machine has to do.

        A vehicle whose request for an address (SDP) is answered late sends another one, for which the charge point
        closes the port that its first answer names.
        """
        between = self.listened_anew and "ConnectionRefusedError" in self.stopped.get("vehicle", "")
        return between or any("TimeoutError" in reason for reason in self.stopped.values())


class Side:
    """A simulator's process."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self.name, self.process = name, process

    @classmethod
    async def start(cls, name: str, *command: str, log: Path) -> Side:
        """Start it, and wait for its Java machine."""
        with log.open("ab") as errors:
            process = await asyncio.create_subprocess_exec(
                *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=errors
            )
        side = cls(name, process)
        await side.wait_for("started")
        return side

    async def order(self, order: dict[str, Any]) -> None:
        """Give an order; ``{}`` ends the session that runs."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(order).encode() + b"\n")
        await self.process.stdin.drain()

    async def events(self, last: str) -> list[dict[str, Any]]:
        """Return what it tells, up to and with the event *last*."""
        assert self.process.stdout is not None
        told = []
        while True:
            line = await asyncio.wait_for(self.process.stdout.readline(), 2 * _SECONDS)
            if not line:
                raise RuntimeError(f"the simulator of the {self.name} has ended; see its log")
            told.append(json.loads(line))
            if told[-1]["event"] == last:
                return told

    async def wait_for(self, last: str) -> None:
        """Wait for an event."""
        await self.events(last)

    async def stop(self) -> None:
        """End it, and its Java machine with it."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        await self.process.wait()


class Rig:
    """Everything that runs as long as the sessions do; an asynchronous context manager."""

    def __init__(self, world: World, folder: Path) -> None:
        self._world, self._folder = world, folder
        self._plan: Plan | None = None
        self._observed = Observed()
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Rig:
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def _start(self) -> None:
        await self._start_csms()
        await self._start_station()
        server = await asyncio.start_server(self._serve, "127.0.0.1", _BACKEND_PORT, limit=1 << 20)
        self._stack.push_async_callback(self._close, server)
        program = str(Path(__file__).with_name("simulator.py"))
        self._secc, self._evcc = await asyncio.gather(
            Side.start("charge point", str(SIMULATORS), program, "secc", log=self._folder / "secc.err"),
            Side.start("vehicle", *vehicle_command(str(SIMULATORS), program, "evcc"), log=self._folder / "evcc.err"),
        )
        self._stack.push_async_callback(self._secc.stop)
        self._stack.push_async_callback(self._evcc.stop)
        plug_in(self._evcc.process.pid)

    async def __aexit__(self, *error: object) -> None:
        await self._stack.aclose()

    async def _close(self, server: asyncio.Server) -> None:
        server.close()
        await server.wait_closed()

    async def _start_csms(self) -> None:
        path = self._folder / "csms.log"
        log = path.open("wb")
        self._stack.callback(log.close)
        process = await asyncio.create_subprocess_exec(
            str(Path(sys.executable).with_name("chargepki")), "csms", "serve",
            "--home", str(self._world.home), "--passphrase-file", self._world.variables["CHARGEPKI_PASSPHRASE_FILE"],
            "--listen", f"127.0.0.1:{_CSMS_PORT}", "--security-profile", "1", "--issue-here",
            "--contract-ca", f"{OURS}-mo-sub2", "--cps-ca", f"{OURS}-cps-sub2",
            stdout=log, stderr=log,
        )  # fmt: skip

        async def stop() -> None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await process.wait()

        self._stack.push_async_callback(stop)
        async with asyncio.timeout(_SECONDS):
            while b"ready:" not in path.read_bytes():
                if process.returncode is not None:
                    raise RuntimeError(f"the CSMS has ended: {path.read_text()}")
                await asyncio.sleep(0.05)

    async def _start_station(self) -> None:
        booted = asyncio.Event()

        def progress(event: Progress) -> None:
            if event.milestone is Milestone.BOOTED:
                booted.set()

        store = StationStore(self._folder / "station")
        store.set_password((self._world.folder / "station.txt").read_bytes())
        url = f"ws://127.0.0.1:{_CSMS_PORT}"
        self._station = StationSimulator(url, "CS-1", store, OcppVersion.V201, enrol=False, progress=progress)
        running = asyncio.create_task(self._station.run())

        async def stop() -> None:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

        self._stack.push_async_callback(stop)
        await asyncio.wait_for(booted.wait(), _SECONDS)

    # -- the charge point's back end -----------------------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        question = json.loads(await reader.readline())
        answer = await (self._contract(question) if question["ask"] == "contract" else self._authorize(question))
        writer.write(json.dumps(answer).encode() + b"\n")
        await writer.drain()
        writer.close()

    async def _contract(self, question: dict[str, Any]) -> dict[str, Any]:
        """Get15118EVCertificate through our station; what comes back may be spoilt before the vehicle sees it."""
        assert self._plan is not None
        kept: list[bytes] = []
        exchange = EvExchange(base64.b64decode(question["exi"]), lambda exi, _number: kept.append(exi))
        try:
            async for _ in ask_for_contracts(exchange, OcppVersion.V201, self._station.call):
                pass
        except (ChargePkiError, CallRefused) as error:
            self._observed.refused = str(error)
            return {"status": "Failed", "reason": str(error)}
        exi = self._plan.tamper(kept[0]) if self._plan.tamper else kept[0]
        self._observed.answers.append(exi)
        return {"status": "Accepted", "exi": base64.b64encode(exi).decode("ascii")}

    async def _authorize(self, question: dict[str, Any]) -> dict[str, Any]:
        """Authorize through our station (C07)."""
        assert self._plan is not None
        token = {"idToken": self._plan.token or question["token"], "type": "eMAID"}
        answer = await self._station.call("Authorize", {"idToken": token, "certificate": question["chain"]})
        status, certificate = answer["idTokenInfo"]["status"], answer.get("certificateStatus")
        may_charge = status == "Accepted" and certificate in (None, "Accepted")
        if not may_charge:
            self._observed.refused = f"{status}, {certificate}"
        return {"may_charge": may_charge, "certificate": certificate}

    # -- a session -----------------------------------------------------------------------------------------------------

    async def run(self, name: str, plan: Plan) -> Observed:
        """Run one session."""
        self._plan, self._observed = plan, Observed()
        folder = self._folder / name
        secc, ev = folder / "secc", folder / "ev"
        self._lay_out(name, plan, secc, ev)
        order = {"backend": _BACKEND_PORT, "seconds": _SECONDS}
        await self._secc.order({**order, "pki": str(secc), "interface": CHARGE_POINT, "log": str(folder / "secc.log")})
        await self._secc.wait_for("ready")
        await self._evcc.order(
            {**order, "pki": str(ev), "interface": VEHICLE, "log": str(folder / "evcc.log"), "install": plan.install}
        )
        self._note("vehicle", await self._evcc.events("over"))
        # The charge point notices by itself that a vehicle has ended, but takes its time.
        if "charge_point" not in self._observed.stopped and self._observed.vehicle:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.5):
                    self._note("charge_point", await self._secc.events("over"))
        for side in (self._secc, self._evcc):
            await side.order({})
        self._note("charge_point", await self._secc.events("idle"))
        await self._evcc.wait_for("idle")
        return self._observed

    def _note(self, side: str, events: list[dict[str, Any]]) -> None:
        seen = self._observed
        for each in events:
            match each["event"]:
                case "sent":
                    (seen.vehicle if side == "vehicle" else seen.charge_point).append(each["message"])
                case "installed":
                    seen.installed = each["public"]
                case "listens-anew":
                    seen.listened_anew = True
                case "stopped" | "connection" | "failed":
                    seen.stopped.setdefault(side, each["reason"])

    def _lay_out(self, name: str, plan: Plan, secc: Path, ev: Path) -> None:
        material = self._world.material(
            plan.secc, plan.vehicle, plan.contract, roots=plan.roots, contract_of=plan.contract_of
        )
        if name == "none" and not secc.exists():
            for folder in (secc, ev):
                self._world.export(folder, plan.secc, plan.vehicle)
            return
        # A charge point knows no manufacturers; it has to leave a vehicle's chain to the provisioning service.
        strangers = (Role.OEM_ROOT, Role.OEM_SUB1, Role.OEM_SUB2)
        public = {role: each for role, each in material.certificates.items() if role not in strangers}
        for folder, parts in ((secc, Material(public, material.keys)), (ev, material)):
            for file in lay_out(Layout.ECOG, parts):
                path = folder / file.path
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(file.content)
        # The charge point sends what this file holds, in its order; a vehicle's key is the only other thing to spoil.
        chain = "".join(to_pem("CERTIFICATE", each) for each in plan.secc.chain)
        (secc / "iso15118_2" / "certs" / "cpoCertChain.pem").write_text(chain)
        if plan.signing is not None:
            (ev / "iso15118_2" / "private_keys" / "oemLeaf.key").write_bytes(key_pem(plan.signing))
