"""One station's open connection: its RPC link, its certificate flow, and the handlers of what it sends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from websockets.asyncio.server import ServerConnection

from chargepki.ocpp_security.csms.admission import Admitted
from chargepki.ocpp_security.csms.answers import plain_answer
from chargepki.ocpp_security.csms.boot_standing import BootStanding
from chargepki.ocpp_security.csms.embedding import Embedding, SecurityEventNews
from chargepki.ocpp_security.csms.firmware_reports import record_boot, record_status
from chargepki.ocpp_security.csms.journal import Incident
from chargepki.ocpp_security.csms.plug_and_charge import PlugAndCharge
from chargepki.ocpp_security.csms.restricted import begin_renewal, check_allowed, pending_answer
from chargepki.ocpp_security.csms.services import Services, station_actor
from chargepki.ocpp_security.errors import CallErrorAnswer, OcppRefusal, RpcErrorCode
from chargepki.ocpp_security.ev_certificate import build_length_question, read_length_answer
from chargepki.ocpp_security.event_store import Occurrence, record_event
from chargepki.ocpp_security.events import MAX_TECH_INFO, MAX_TYPE, SecurityEvent, find_event, is_critical
from chargepki.ocpp_security.identity import IdentityMismatch, check_boot_serial_number
from chargepki.ocpp_security.issue_plans import plans_for
from chargepki.ocpp_security.link import CallRefused, CallUnanswered, Reply, RpcLink, TaskedLink
from chargepki.ocpp_security.log_store import note_status
from chargepki.ocpp_security.rpc import CallReceived, Limits, ProtocolViolation, RpcSession, random_message_id
from chargepki.ocpp_security.security_profile import SecurityProfile
from chargepki.ocpp_security.throttle import WindowCounter
from chargepki.ocpp_security.unsecured import CURE, find_change, has_consent, is_secured, refuse_call
from chargepki.ocpp_security.versions import OcppVersion, Role
from chargepki.ocpp_security.wire import parse_boot_notification
from chargepki.ocpp_security.wire_time import wire_time
from chargepki.pki.errors import printable
from chargepki.pki.inventory import Transaction
from chargepki.pki.inventory.records import PresenceRecord

__all__ = ["StationConnection"]

_log = logging.getLogger("chargepki.csms")
_POLICY_VIOLATION = 1008
_PRESENCE_REFRESH = timedelta(minutes=1)
"""How often Heartbeats are recorded; other messages only every `_PRESENCE_REFRESH_BUSY`."""
_PRESENCE_REFRESH_BUSY = timedelta(minutes=5)
_MAX_VIOLATIONS = 50
_MAX_EVENTS = 300
"""Security events a minute that are stored without delay: a queue that was offline for long. Then one a second."""


class StationConnection:
    """An authenticated connection after the upgrade."""

    def __init__(
        self,
        services: Services,
        socket: ServerConnection,
        admitted: Admitted,
        version: OcppVersion,
        peer: str,
        now: datetime,
        *,
        embedding: Embedding | None = None,
    ) -> None:
        self.embedding = embedding
        self.id = socket.id.hex
        self.station, self.profile, self.certificate = admitted.station, admitted.profile, admitted.certificate
        self.pending_password = admitted.pending_password
        self.previous_password = admitted.previous_password
        self.restriction = admitted.restriction
        """Set when it was let in to get a certificate and for nothing else."""
        self.version, self.peer, self.connected_at = version, peer, now
        self._services = services
        self.link = self._make_link(socket)
        self.renewal = services.renewals.renewal_for(
            services, self.station, version, plans_for(services.config.plans, admitted.issue)
        )
        self.renewal.embedding = embedding
        self._vehicles = PlugAndCharge(self, services)
        self.attempted: set[str] = set()
        """Operations with an attempt over this connection; a later one over another would have displaced this."""
        self.password_sent = False
        self.is_served = False
        """Whether `CsmsSecurity.run` has taken it: only then do operations and revocations reach it."""
        self.is_fallback = False
        """Whether it was opened with a superseded certificate, which holds only until its successor is revoked."""
        self.took_into_use = False
        """Whether its certificate was proven by this connection for the first time."""
        self.was_onboarded = False
        """Whether it proved its first certificate of ours, which ended its onboarding."""
        self.is_awaited = False
        """Whether operations waited for it when it came."""
        self.is_ready = False
        """Whether the station may be handed what waits for it: it has booted, or goes on without booting."""
        self.has_booted = False
        """Whether it sent BootNotification here, rather than taking up an earlier session."""
        self.standing = BootStanding(version)
        self._has_requested = False
        self._presence_at = now
        self._events = WindowCounter(timedelta(minutes=1), _MAX_EVENTS)
        self._violations = WindowCounter(timedelta(minutes=1), _MAX_VIOLATIONS)

    def _make_link(self, socket: ServerConnection) -> RpcLink:
        services, embedding = self._services, self.embedding
        limits = services.config.limits
        session = RpcSession(
            self.version,
            role=Role.CSMS,
            limits=Limits(max_frame_bytes=limits.max_message_bytes),
            unchecked=embedding.unchecked if embedding is not None else (),
            message_ids=embedding.new_message_id if embedding is not None else random_message_id,
            long_answers={"Get15118EVCertificate": "exiResponse"} if services.config.provider is not None else {},
        )
        # Handlers of others may call the station before they return; ours never do.
        return (RpcLink if embedding is None else TaskedLink)(
            socket,
            session,
            on_call=self._on_call,
            on_violation=self._on_violation,
            clock=services.clock,
            log=_log,
            name=f"{self.station.id} ({self.peer})",
            trace=embedding.trace if embedding is not None else None,
        )

    async def call(
        self,
        action: str,
        payload: dict[str, Any],
        timeout: timedelta | None = None,
        *,
        unchecked: bool = False,
        consented: bool = False,
    ) -> dict[str, Any]:
        """Call the station; see `RpcLink.call`.

        Args:
            consented: it may change certificates or roots without TLS, as somebody has allowed.

        Raises:
            StateError: it would, and nobody has.
        """
        change = None if consented or self.allows_changes else find_change(self.version, action, payload)
        if change is not None:
            self.note_unsecured(change)
            raise refuse_call(self.station.id, change)
        patience = timeout or self._services.config.limits.call_timeout
        self.standing.calling(action, payload)
        return await self.link.call(action, payload, patience, unchecked=unchecked)

    @property
    def allows_changes(self) -> bool:
        """Whether certificates and roots may be changed over it: it has TLS, or the configuration allows it without."""
        return is_secured(self.profile) or self._services.unsecured.allows(self.station.id)

    async def may_be_certified(self) -> bool:
        """Say whether a certificate may be ordered and delivered over it; an open operation may allow that as well."""
        services = self._services
        return self.allows_changes or await services.offload.read(
            lambda: has_consent(services.inventory, self.station.id)
        )

    def note_unsecured(self, change: str) -> None:
        """Log and record that *change* was refused because the connection has no TLS."""
        cause = f"{change} was refused over a connection without TLS (profile {int(self.profile)})"
        self.note(Incident("unsecured-change", cause, CURE, "UnsecuredChangeRefused", variant=change))

    def presence(self, now: datetime, *, connected: bool = True) -> PresenceRecord:
        """Return the inventory row that says this station is (or was) connected here."""
        return PresenceRecord(
            station=self.station.id,
            connected=connected,
            owner=self._services.config.owner,
            connection=self.id,
            protocol=self.version.value,
            security_profile=int(self.profile),
            certificate=self.certificate.id if self.certificate is not None else None,
            peer=self.peer,
            connected_at=self.connected_at,
            last_seen_at=now,
        )

    def note(self, incident: Incident) -> bool:
        """Log and record something about this station; see `SecurityJournal.note`."""
        return self._services.journal.note(incident, station=self.station.id, peer=self.peer)

    def close_for(self, incident: Incident, reason: str) -> None:
        """Close with 1008 (policy violation): *incident* is for the operator, *reason* for the station."""
        self.note(incident)
        self.link.close_soon(_POLICY_VIOLATION, reason)

    def become_ready(self) -> None:
        """Hand the station what waits for it; once a connection, after it has shown that it is up.

        A station that boots sends BootNotification before anything else and nothing else before that is accepted; one
        that only lost its link sends no BootNotification, and perhaps nothing at all for a while.
        """
        if self.is_ready or self.link.is_closing:
            return
        self.is_ready = True
        self.renewal.reconnected(self)
        if self.restriction is not None:
            self.link.spawn(begin_renewal(self))
        elif self._services.config.provider is not None and self.version is not OcppVersion.V16:
            self.link.spawn(self._learn_length())

    async def _learn_length(self) -> None:
        """Ask before a vehicle does: while its request waits for an answer, the station may not answer ours."""
        with contextlib.suppress(CallRefused, CallUnanswered):
            told = await self.call("GetVariables", build_length_question())
            self._vehicles.told_characters = read_length_answer(told)

    # What the station sends

    async def _on_call(self, event: CallReceived) -> Reply:
        if self.restriction is not None:
            check_allowed(event, self.restriction)
        self.standing.check(event.action)
        reply = await self._handle(event)
        # A station that has other things to say need not send Heartbeats.
        if self._is_presence_old(_PRESENCE_REFRESH_BUSY):
            refresh = self._refresh_presence(self._services.clock(), _PRESENCE_REFRESH_BUSY)
            self._services.background.spawn(refresh, f"presence of {self.station.id}")
        if event.action != "BootNotification":
            self.become_ready()
        return reply

    async def _handle(self, event: CallReceived) -> Reply:
        now = self._services.clock()
        payload = cast("dict[str, Any]", event.payload)
        match event.action:
            case "BootNotification":
                self._check_boot(payload)
                self.has_booted = True
                boot = parse_boot_notification(self.version, payload)
                await record_boot(self._services, self.station.id, boot, now)
                return await self._boot(event, now)
            case "SignCertificate":
                self._has_requested = True
                return await self.renewal.sign_requested(payload, now, allowed=await self.may_be_certified())
            case "SecurityEventNotification":
                await self._security_event(payload, now)
                return Reply({}) if self.embedding is None else await self._ask_embedding(event, {})
            case "FirmwareStatusNotification" | "SignedFirmwareStatusNotification":
                await record_status(self._services, self.station.id, payload, now)
                return Reply({}) if self.embedding is None else await self._ask_embedding(event, {})
            case "LogStatusNotification":
                await self._log_status(payload, now)
                return Reply({}) if self.embedding is None else await self._ask_embedding(event, {})
            case "Heartbeat":
                await self._refresh_presence(now, _PRESENCE_REFRESH)
            case "Authorize" | "DataTransfer":
                reply = await self._vehicles.answer_first(event, now)
                if reply is not None:
                    return reply
        if self.embedding is None or not self.embedding.handles(event.action):
            reply = await self._vehicles.answer(event.action, payload, now)
            if reply is not None:
                return reply
        if self.embedding is not None:
            return await self._ask_embedding(event)
        answer = plain_answer(self.version, event.action, payload, now)
        if answer is None:
            raise _not_served(event.action)
        return Reply(answer)

    async def _ask_embedding(self, event: CallReceived, default: dict[str, Any] | None = None) -> Reply:
        if self.embedding is not None and self.embedding.handles(event.action):
            return await self.embedding.answer(event)
        if default is None:
            raise _not_served(event.action)
        return Reply(default)

    def _check_boot(self, payload: dict[str, Any]) -> None:
        """Hold the serial number against the certificate or the record, before anybody answers.

        Raises:
            OcppRefusal: the connection is being closed.

        Clause: B01.FR.11, B01.FR.12.
        """
        boot = parse_boot_notification(self.version, payload)
        reported = boot.serial_number
        if self.profile is SecurityProfile.TLS_CLIENT_CERTIFICATE:
            try:
                # The admission found that the certificate's CN is the registered serial number.
                check_boot_serial_number(
                    boot,
                    self.station.serial_number,
                    self.version,
                    require_16=self._services.config.require_serial_number_16,
                )
            except IdentityMismatch as exc:
                event = SecurityEvent.INVALID_CHARGING_STATION_CERTIFICATE
                self.close_for(
                    Incident("serial-number-mismatch", f"{exc.what} ({exc.why})", exc.fix, event),
                    "serial number is not the certificate's",
                )
                answer = CallErrorAnswer(RpcErrorCode.SECURITY_ERROR, "serial number is not the certificate's")
                raise OcppRefusal(exc.what, answer=answer, why=exc.why, fix=exc.fix) from exc
        elif reported is not None and reported != self.station.serial_number:
            cause = (
                f"BootNotification reports serial number {reported!r}, the record says {self.station.serial_number!r}"
            )
            self.note(
                Incident("serial-number-differs", cause, "correct the record, or its certificate will be refused")
            )

    async def _boot(self, event: CallReceived, now: datetime) -> Reply:
        if self.restriction is not None:
            return Reply(pending_answer(now), self._booted_in_pending)
        accepted = {
            "status": "Accepted",
            "currentTime": wire_time(now),
            "interval": int(self._services.config.heartbeat_interval.total_seconds()),
        }
        reply = Reply(accepted) if self.embedding is None else await self._ask_embedding(event)
        self.standing.answered(reply.payload.get("status"))

        async def then() -> None:
            # A station that was rejected must stay quiet, and is left alone (B03).
            if not self.standing.is_rejected:
                self.become_ready()
            if reply.then is not None:
                await reply.then()

        return Reply(reply.payload, then)

    async def _booted_in_pending(self) -> None:
        if not self.is_ready:
            self.become_ready()
        elif not self._has_requested:
            await begin_renewal(self)

    async def _security_event(self, payload: Mapping[str, Any], now: datetime) -> None:
        """Store the event; unknown types too (the list is open), and what its time says even if that is odd."""
        if self._events.reached(self.id, now):
            # Each event stays for good. Calls are answered one after the other, so waiting holds the sender up alone.
            self.note(Incident("too-many-security-events", "it reports security events without end"))
            await asyncio.sleep(1)
        self._events.add(self.id, now)
        kind = printable(str(payload["type"]))[:MAX_TYPE]
        standard = find_event(kind)
        tech_info = printable(str(payload.get("techInfo", "")))[:MAX_TECH_INFO]
        station = self.station.id
        critical = standard is not None and is_critical(self.version, standard)
        at = _parse_time(str(payload["timestamp"]), now)

        occurrence = Occurrence(station, "station", kind, critical, tech_info, at, now)

        def work(tx: Transaction) -> None:
            record_event(tx, occurrence, station_actor(station), "security-event.report")

        await self._services.offload.run(self._services.inventory.write, work)
        if self.embedding is not None:
            self.embedding.security_event_news(SecurityEventNews(kind, critical, at, tech_info))

    async def _log_status(self, payload: Mapping[str, Any], now: datetime) -> None:
        """Keep what the station reports about a requested log; what cannot be true is noted and changes nothing."""
        station, request_id = self.station.id, payload.get("requestId")
        actor, status = station_actor(station), str(payload["status"])
        why = await self._services.offload.run(
            self._services.inventory.write,
            lambda tx: note_status(tx, station, request_id, status, actor, now),
        )
        if why is not None:
            self.note(Incident("odd-log-status", f"LogStatusNotification: {why}", event=SecurityEvent.INVALID_MESSAGES))

    def _is_presence_old(self, age: timedelta) -> bool:
        return self._services.clock() - self._presence_at >= age

    async def _refresh_presence(self, now: datetime, age: timedelta) -> None:
        if not self._is_presence_old(age):
            return
        self._presence_at = now
        services, station, connection = self._services, self.station.id, self.id
        await services.offload.run(services.inventory.write, lambda tx: tx.touch_presence(station, connection, now=now))

    async def _on_violation(self, event: ProtocolViolation) -> None:
        now = self._services.clock()
        incident = Incident(
            f"invalid-message-{event.kind}", f"invalid message: {event.reason}", "see the station's firmware release",
            SecurityEvent.INVALID_MESSAGES,
        )  # fmt: skip
        self.note(incident)
        if self._violations.add(self.id, now) >= _MAX_VIOLATIONS:
            self.close_for(
                Incident("too-many-invalid-messages", "it goes on sending invalid messages"), "invalid messages"
            )


def _not_served(action: str) -> OcppRefusal:
    answer = CallErrorAnswer(RpcErrorCode.NOT_SUPPORTED, "not served here")
    return OcppRefusal(
        f"{action} is not served", answer=answer, fix="a CSMS of your own answers it with an @on handler"
    )


def _parse_time(text: str, fallback: datetime) -> datetime:
    """Return the event's time; a station's clock may be anything, and the schema lets any RFC 3339 text pass."""
    try:
        moment = datetime.fromisoformat(text)
        # The first and last day of the calendar have no UTC form in every zone.
        return moment.astimezone(UTC) if moment.tzinfo is not None else fallback
    except (ValueError, OverflowError):
        return fallback
