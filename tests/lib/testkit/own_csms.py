"""A team's own CSMS: classes of the `ocpp` package with our mixins, on the team's own `websockets` server."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import ocpp.v16
import ocpp.v21
import ocpp.v201
from ocpp.routing import after, on
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from chargepki.ocpp_security import v16, v21, v201
from chargepki.ocpp_security.csms import CsmsConfig, CsmsLimits
from chargepki.ocpp_security.csms.embedding import CertificateNews, SecurityEventNews
from chargepki.ocpp_security.csms.security import CsmsSecurity
from chargepki.ocpp_security.sign_certificate import IssuePlan
from chargepki.ocpp_security.wire import CertificateUse
from chargepki.pki import aio
from testkit.csms_rig import Rig

__all__ = ["CLASSES", "OwnCsms", "Station16", "Station21", "Station201", "own_csms"]


class Team:
    """The handlers of a team, the same for all versions; each class below adds those that differ."""

    team: OwnCsms
    id: str
    _call_result: Any

    async def on_certificate_signed(self, news: CertificateNews) -> None:
        self.team.certificates.append(news)

    async def on_security_event(self, news: SecurityEventNews) -> None:
        self.team.events.append(news)

    @on("Heartbeat")  # type: ignore[untyped-decorator]  # no types
    async def on_heartbeat(self) -> Any:
        return self._call_result.Heartbeat(current_time=datetime.now(UTC).isoformat())

    @on("BootNotification")  # type: ignore[untyped-decorator]  # no types
    async def on_boot(self, **fields: Any) -> Any:
        self.team.boots.append(fields)
        now = datetime.now(UTC).isoformat()
        return self._call_result.BootNotification(current_time=now, interval=60, status=self.team.boot_status)

    @after("BootNotification")  # type: ignore[untyped-decorator]  # no types
    async def after_boot(self, **_: Any) -> None:
        self.team.after_boots += 1

    @on("DataTransfer")  # type: ignore[untyped-decorator]  # no types
    async def on_data_transfer(self, **fields: Any) -> Any:
        assert self.team.data_transfer is not None
        return await self.team.data_transfer(self, fields)


class Station16(v16.SecurityMixin, Team, ocpp.v16.ChargePoint):  # type: ignore[misc]  # untyped base
    pass


class Station201(v201.SecurityMixin, Team, ocpp.v201.ChargePoint):  # type: ignore[misc]  # untyped base
    pass


class Station21(v21.SecurityMixin, Team, ocpp.v21.ChargePoint):  # type: ignore[misc]  # untyped base
    pass


CLASSES: dict[str, Any] = {"ocpp1.6": Station16, "ocpp2.0.1": Station201, "ocpp2.1": Station21}


@dataclass
class OwnCsms:
    """What the team's CSMS has seen, and how it shall behave."""

    security: CsmsSecurity
    stations: dict[str, Any] = field(default_factory=dict)
    boots: list[dict[str, Any]] = field(default_factory=list)
    after_boots: int = 0
    boot_status: str = "Accepted"
    certificates: list[CertificateNews] = field(default_factory=list)
    events: list[SecurityEventNews] = field(default_factory=list)
    response_timeout: float = 10
    server: Server | None = None
    data_transfer: Callable[[Any, dict[str, Any]], Coroutine[Any, Any, Any]] | None = None
    """Answers DataTransfer."""
    classes: dict[str, Any] = field(default_factory=lambda: dict(CLASSES))

    @property
    def url(self) -> str:
        """Base URL by the name in the server certificate."""
        assert self.server is not None
        scheme = "ws" if self.security.config.tls is None else "wss"
        return f"{scheme}://localhost:{next(iter(self.server.sockets)).getsockname()[1]}"

    async def handle(self, socket: ServerConnection) -> None:
        """Serve one connection, as a team would."""
        if socket.subprotocol is None:
            await socket.close(1002, "no common subprotocol")
            return
        identity = self.security.admitted(socket).station.id
        logger = logging.getLogger("team")
        station = self.classes[socket.subprotocol](
            identity, socket, response_timeout=self.response_timeout, logger=logger, security=self.security
        )
        station.team = self
        self.stations[identity] = station
        with contextlib.suppress(ConnectionClosed):
            await station.start()


@contextlib.asynccontextmanager
async def own_csms(
    rig: Rig, *profiles: int, issuer: aio.Issuer | None = None, limits: CsmsLimits | None = None, **options: Any
) -> AsyncIterator[OwnCsms]:
    """Run the team's server for the block; profiles 2 and 3 unless told otherwise."""
    served = frozenset(profiles or (2, 3))
    plan = IssuePlan("t-cso-sub", "ocpp/charging-station")
    config = CsmsConfig(
        security_profiles=served,
        tls=rig.tls(served),
        plans={CertificateUse.CHARGING_STATION: plan},
        sealing_key=rig.sealing_key,
        limits=limits or CsmsLimits(),
        **options,
    )
    own = issuer or aio.Authority(rig.authority)
    async with CsmsSecurity(config, rig.inventory, own) as security:
        team = OwnCsms(security)
        async with serve(team.handle, "127.0.0.1", 0, **security.serve_options()) as server:
            team.server = server
            yield team
            await security.close_all()
    if issuer is None:
        await own.aclose()
