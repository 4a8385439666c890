"""A manufacturer with a catalogue of releases beside a CSMS, and simulated stations that take them."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from chargepki.ocpp_security.csms import CsmsServer
from chargepki.ocpp_security.firmware import sign_firmware, verify_firmware
from chargepki.ocpp_security.firmware_catalogue import FirmwareCatalogue, ReleaseOffer
from chargepki.ocpp_security.firmware_certificate import FirmwareTrust
from chargepki.ocpp_security.firmware_lab import Lab
from chargepki.ocpp_security.firmware_version import ImageLabel, build_label
from chargepki.ocpp_security.operation_store import OperationStore, new_operation_id
from chargepki.ocpp_security.operations import OperationKind
from chargepki.ocpp_security.station import StationSimulator, StationStore
from chargepki.ocpp_security.station.simulator import RetryPolicy
from chargepki.pki.inventory.records import OperationRecord
from chargepki.pki.keys import KeyAlgorithm
from chargepki.pki.signer import Signer
from testkit.csms_rig import ACTOR, PASSWORD, Rig
from testkit.requests import key_of

__all__ = ["BOB", "IMAGE", "Plant", "running"]

BOB = Signer.of("file:bob.key", key_of(KeyAlgorithm.SECP256R1, 30))
IMAGE = secrets.token_bytes(300_000)


@dataclass(frozen=True, slots=True)
class Plant:
    """A CSMS with a catalogue, a manufacturer, and a server of images."""

    rig: Rig
    catalogue: FirmwareCatalogue
    lab: Lab

    @classmethod
    def of(cls, rig: Rig) -> Plant:
        """Return a plant with an empty catalogue and one approver."""
        catalogue = FirmwareCatalogue(rig.inventory, rig.folder, actor=ACTOR)
        catalogue.register_approver("bob", BOB.spki_der, now=datetime.now(UTC))
        return cls(rig, catalogue, Lab(datetime.now(UTC)))

    def release(self, name: str, version: str = "2.0.0", *, vendor: str = "chargepki") -> None:
        """Add and approve a release."""
        image = self.rig.folder / f"{name}.bin"
        image.write_bytes(build_label(ImageLabel("chargepki", "Simulator", version)) + IMAGE)
        now = datetime.now(UTC)
        signer = Signer.of("file:maker.key", self.lab.ec_key)
        signed = sign_firmware(image, signer, self.lab.ecdsa.der, at=now)
        verified = verify_firmware(
            image, signature=signed.text, certificate_pem=self.lab.ecdsa.pem,
            trust=FirmwareTrust((self.lab.root.der,)), at=now,
        )  # fmt: skip
        self.catalogue.add(
            ReleaseOffer(name, vendor, "Simulator", version), image, verified, signature=signed.text,
            certificate_pem=self.lab.ecdsa.pem, root_der=self.lab.root.der, quirks=(), now=now,
        )  # fmt: skip
        self.catalogue.approve(name, "bob", self.catalogue.sign_approval(name, BOB), now=now)

    def order(self, station: str, release: str, base_url: str, *, seconds: float = 300, **more: Any) -> str:
        """Order an update and return the operation's id."""
        store = OperationStore(self.rig.inventory, self.rig.sealing_key, owner="test", actor=ACTOR)
        now = datetime.now(UTC)
        parameters = {"release": release, "request_id": secrets.randbelow(1 << 30) + 1, "base_url": base_url, **more}
        return store.create(
            OperationKind.UPDATE_FIRMWARE, station, parameters, operation_id=new_operation_id(), actor=ACTOR, now=now,
            deadline=now + timedelta(seconds=seconds),
        ).id  # fmt: skip

    def outcome(self, operation: str) -> OperationRecord:
        return self.rig.inventory.get_operation(operation)

    def statuses(self, operation: str) -> list[str]:
        return [record.status for record in self.rig.inventory.list_firmware_statuses(operation)]

    def events(self, station: str) -> set[str]:
        return {event.type for event in self.rig.inventory.list_security_events(station=station)}

    def simulator(self, server: CsmsServer | str, name: str, version: str, **options: Any) -> StationSimulator:
        """Return a station with a store of its own; called again it is the same station after a restart."""
        store = StationStore(self.rig.folder / f"station-{name}")
        if not store.trust():
            store.set_trust(self.rig.root_pem.encode())
            store.set_manufacturer_trust(self.lab.root.pem.encode())
            store.set_password(PASSWORD)
        retry = RetryPolicy(timedelta(milliseconds=20), timedelta(milliseconds=100))
        url = server if isinstance(server, str) else self.rig.url_of(server)
        return StationSimulator(url, name, store, version, enrol=False, retry=retry, **options)


@contextlib.asynccontextmanager
async def running(*simulators: StationSimulator) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(simulator.run()) for simulator in simulators]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
