"""What does one OCPP message cost the CSMS: read, check against the schema, answer, check and write the answer?

The reference is the `ocpp` package as its users run it: a `ChargePoint` whose handler returns the answer at once.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, cast

from ocpp.routing import on
from ocpp.v201 import ChargePoint, call_result
from websockets.asyncio.connection import Connection
from websockets.exceptions import ConnectionClosedOK

from benchmarks.harness import Case, Comparison, Limit, compare, main
from benchmarks.material import make_request
from chargepki.ocpp_security.link import Reply, RpcLink
from chargepki.ocpp_security.rpc import CallReceived, ProtocolViolation, RpcSession
from chargepki.ocpp_security.versions import OcppVersion

MESSAGES = 200
# What the message path must save at least against the plain package.
LIMITS = {
    "SignCertificate": Limit(1 / 4, "at least 4 times less CPU than the ocpp package"),
    "TransactionEvent": Limit(1 / 10, "at least 10 times less CPU than the ocpp package"),
}
ANSWERS: dict[str, dict[str, Any]] = {"SignCertificate": {"status": "Accepted"}, "TransactionEvent": {}}


def transaction_event() -> dict[str, Any]:
    """Return a meter reading as stations send it every minute."""
    sampled = [
        {"value": value, "context": "Sample.Periodic", "measurand": measurand, "unitOfMeasure": {"unit": unit}}
        for value, measurand, unit in (
            (1234567.8, "Energy.Active.Import.Register", "Wh"),
            (11040.0, "Power.Active.Import", "W"),
            (16.0, "Current.Import", "A"),
        )
    ]
    return {
        "eventType": "Updated",
        "timestamp": "2026-03-01T12:00:00Z",
        "triggerReason": "MeterValuePeriodic",
        "seqNo": 17,
        "transactionInfo": {"transactionId": "0b1c6f0e-54f3-4d0c-9f0a-3a3c1c1d8f7e", "chargingState": "Charging"},
        "evse": {"id": 1, "connectorId": 1},
        "meterValue": [{"timestamp": "2026-03-01T12:00:00Z", "sampledValue": sampled}],
    }


class Silent:
    """A connection that swallows what is sent, and gives what it was told to."""

    def __init__(self) -> None:
        self.frames: list[str] = []

    async def send(self, message: str) -> None:
        """Take *message*."""
        assert message.startswith("[3,")

    async def recv(self) -> str:
        """Give the next frame; after the last one the connection is closed."""
        if not self.frames:
            raise ConnectionClosedOK(None, None)
        return self.frames.pop()


class Plain(ChargePoint):  # type: ignore[misc]  # ocpp ships no type marker
    """The reference's handlers."""

    @on("SignCertificate")  # type: ignore[untyped-decorator]  # ocpp ships no type marker
    def sign_certificate(self, **_: object) -> object:
        """Accept."""
        return call_result.SignCertificate(status="Accepted")

    @on("TransactionEvent")  # type: ignore[untyped-decorator]  # ocpp ships no type marker
    def transaction_event(self, **_: object) -> object:
        """Accept."""
        return call_result.TransactionEvent()


def frames(action: str, payload: dict[str, Any]) -> Callable[[], list[str]]:
    """Return what makes calls with ids that were never used."""
    numbers = itertools.count()
    text = json.dumps(payload, separators=(",", ":"))
    return lambda: [f'[2,"m{next(numbers)}","{action}",{text}]' for _ in range(MESSAGES)]


def ours(action: str, make: Callable[[], list[str]], runner: asyncio.Runner) -> Callable[[], None]:
    """Return what answers *MESSAGES* calls over an `RpcLink`, as the CSMS does."""
    reply = Reply(ANSWERS[action])

    async def answer(event: CallReceived) -> Reply:
        assert event.action == action
        return reply

    async def violated(event: ProtocolViolation) -> None:
        raise AssertionError(event.reason)

    async def all_of_them() -> None:
        connection = Silent()
        connection.frames = make()
        link = RpcLink(
            cast("Connection", connection),
            RpcSession(OcppVersion("ocpp2.0.1"), role="csms"),
            on_call=answer,
            on_violation=violated,
            clock=lambda: datetime.now(UTC),
            log=logging.getLogger("chargepki.csms"),
            name="station",
        )
        await link.run()

    return lambda: runner.run(all_of_them())


def plain(make: Callable[[], list[str]], runner: asyncio.Runner) -> Callable[[], None]:
    """Return what answers as many calls with the `ocpp` package."""
    point = Plain("station", Silent())

    async def all_of_them() -> None:
        for frame in make():
            await point.route_message(frame)

    return lambda: runner.run(all_of_them())


def measure() -> Sequence[Comparison]:
    """Compare one message with a CSR in it, and the one that a CSMS receives most."""
    logging.getLogger("ocpp").setLevel(logging.CRITICAL)
    csr = make_request("STATION-0001").decode()
    payloads = {
        "SignCertificate": {"csr": csr, "certificateType": "ChargingStationCertificate"},
        "TransactionEvent": transaction_event(),
    }
    with asyncio.Runner() as runner:
        return [
            compare(
                f"receive and answer one {action}",
                subject=Case("RpcLink", ours(action, frames(action, payload), runner), MESSAGES),
                reference=Case("the ocpp package", plain(frames(action, payload), runner), MESSAGES),
                limit=LIMITS[action],
            )
            for action, payload in payloads.items()
        ]


if __name__ == "__main__":
    raise SystemExit(main("messages", measure))
