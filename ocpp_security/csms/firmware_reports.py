"""What stations report about their firmware: the version they run, and how an update goes."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from chargepki.ocpp_security.csms.services import Services, station_actor
from chargepki.ocpp_security.firmware_flow import FirmwareStatus, parse_status
from chargepki.ocpp_security.operations import OperationKind
from chargepki.ocpp_security.wire import BootReceived
from chargepki.pki.errors import ChargePkiError, printable
from chargepki.pki.inventory import Inventory, Transaction
from chargepki.pki.inventory.firmware_records import StationFirmwareRecord

__all__ = ["record_boot", "record_status"]

_log = logging.getLogger("chargepki.csms")


async def record_boot(services: Services, station: str, boot: BootReceived, now: datetime) -> None:
    """Keep what the station says it is and runs, when that is new; a failure is logged, the station goes on."""
    vendor, model = printable(boot.vendor)[:50], printable(boot.model)[:50]
    record = StationFirmwareRecord(station, vendor, model, printable(boot.firmware_version or "")[:50], now)
    try:
        known = await services.offload.read(lambda: services.inventory.find_station_firmware(station))
        told = (record.vendor, record.model, record.version)
        if known is not None and (known.vendor, known.model, known.version) == told:
            return

        def work(tx: Transaction) -> None:
            if tx.put_station_firmware(record):
                details = {"vendor": record.vendor, "model": record.model, "version": record.version}
                tx.audit(station_actor(station), "station.firmware", station, now=now, details=details)

        await services.offload.run(services.inventory.write, work)
    except ChargePkiError as exc:
        _log.error("%s: what it runs cannot be recorded: %s", station, exc)


async def record_status(services: Services, station: str, payload: Mapping[str, Any], now: datetime) -> None:
    """Keep a status of an update that is under way; others are logged only."""
    status, request_id = parse_status(payload)
    if status is None:
        return
    operation = await services.offload.run(_find_operation, services.inventory, station, status, request_id)
    if operation is None:
        _log.info("%s: firmware status %s for no open operation (request %s)", station, status.value, request_id)
        return

    def work(tx: Transaction) -> None:
        if tx.add_firmware_status(operation, status.value, at=now) is not None:
            details = {"operation": operation, "status": status.value}
            tx.audit(station_actor(station), "firmware.status", station, now=now, details=details)

    await services.offload.run(services.inventory.write, work)


def _find_operation(inventory: Inventory, station: str, status: FirmwareStatus, request_id: int | None) -> str | None:
    """Return the open update that the request id names; Idle has none and counts for the oldest."""
    for operation in inventory.list_operations(station=station, open_only=True):
        if operation.kind != OperationKind.UPDATE_FIRMWARE:
            continue
        if status is FirmwareStatus.IDLE or operation.parameters.get("request_id") == request_id:
            return operation.id
    return None
