"""What the SecurityMixin classes of the three versions share: the `ocpp` package's ChargePoint over our own link."""

from __future__ import annotations

import inspect
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Mapping
from datetime import timedelta
from typing import Any, ClassVar, cast

from ocpp.charge_point import (
    ChargePoint,
    camel_to_snake_case,
    remove_nones,
    serialize_as_dict,
    snake_to_camel_case,
)
from ocpp.exceptions import OCPPError, UnknownCallErrorCodeError
from websockets.asyncio.server import ServerConnection
from websockets.protocol import State

from chargepki.ocpp_security.csms.admission import Admitted
from chargepki.ocpp_security.csms.connection import StationConnection
from chargepki.ocpp_security.csms.embedding import CertificateNews, SecurityEventNews
from chargepki.ocpp_security.csms.security import CsmsSecurity
from chargepki.ocpp_security.errors import CallErrorAnswer, OcppRefusal, RpcErrorCode, SchemaViolation
from chargepki.ocpp_security.gate import peer_name
from chargepki.ocpp_security.link import CallRefused, CallUnanswered, Reply
from chargepki.ocpp_security.redact import scrub, secret_values
from chargepki.ocpp_security.redacting import install_redaction
from chargepki.ocpp_security.rpc import CallReceived, Origin
from chargepki.ocpp_security.schemas import Kind
from chargepki.ocpp_security.spelling import plain_name, spell_members
from chargepki.ocpp_security.versions import OcppVersion, spell_error
from chargepki.pki.errors import InputError, StateError, printable

__all__ = ["SecurityMixinBase"]

_OURS = ("SignCertificate",)
"""Answered by the certificate flow alone: a second answer would leave a station waiting for a certificate."""
_ALWAYS_CHECKED = frozenset({"BootNotification", "SecurityEventNotification", "SignCertificate"})
_MAX_DESCRIPTION = 255


class SecurityMixinBase:
    """Put before the `ocpp` package's ChargePoint: ``class Station(SecurityMixin, ChargePoint)``.

    Your handlers, their names and arguments, and `call` stay as the package has them. What changes is below: frames
    and payloads are checked strictly, every CALL of the station is answered, no message or exception can end the
    connection, and no secret is logged or echoed. A handler may call the station and await the answer.

    SignCertificate is answered here, and its certificate is delivered even if this process dies in between. A
    BootNotification is held against the certificate before your handler sees it. Security events are stored, whether
    or not you have a handler for them.

    Two hooks are called if the class has them, each in a task of its own, even when the station has gone by then. What
    they are told is on record already:

        async def on_certificate_signed(self, news: CertificateNews) -> None: ...
        async def on_security_event(self, news: SecurityEventNews) -> None: ...

    Args:
        id: identity of the station; the authenticated one.
        connection: from `websockets`, admitted by the hooks of `CsmsSecurity`.
        security: what the connections of this process share; it must have been started.
        admitted: who comes in, where your server has authenticated the station by itself.

    Raises:
        InputError: *id* is not the station that was authenticated, or no common version was negotiated.
        StateError: the connection was not admitted, or there is no *security*.
        TypeError: the class handles SignCertificate itself, or has the mixin in the wrong place.
    """

    security_version: ClassVar[OcppVersion]

    # Of the package's ChargePoint.
    id: str
    logger: Any
    route_map: dict[str, dict[str, Any]]
    _call_result: Any
    _connection: ServerConnection
    _response_timeout: float
    _unique_id_generator: Callable[[], object]

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        order = cls.__mro__
        if ChargePoint not in order:
            return  # one of our own, or a mixin of the team's
        if order.index(ChargePoint) < order.index(SecurityMixinBase):
            raise TypeError(f"{cls.__name__}: put SecurityMixin before the ChargePoint, or it changes nothing")
        spoken = getattr(cls, "_ocpp_version", "")
        if cls.security_version.value != f"ocpp{spoken}":
            raise TypeError(f"{cls.__name__}: its ChargePoint speaks {spoken}, its mixin {cls.security_version.value}")

    def __init__(
        self,
        id: str,
        connection: ServerConnection,
        *arguments: Any,
        security: CsmsSecurity | None = None,
        admitted: Admitted | None = None,
        **options: Any,
    ) -> None:
        if security is None:
            raise _unserved(f"{type(self).__name__} was made without a CsmsSecurity", "pass security=...")
        cast(Any, super()).__init__(id, connection, *arguments, **options)
        install_redaction(self.logger)
        for action in _OURS:
            if action in self.route_map:
                raise TypeError(f"{type(self).__name__} has a handler for {action}, which the mixin answers: remove it")
        verdict = admitted if admitted is not None else security.admitted(connection)
        if verdict.station.id != id:
            raise InputError(
                f"the connection of {verdict.station.id} was given to a ChargePoint of {id!r}",
                fix="pass the authenticated identity: security.admitted(connection).station.id",
            )
        self.security = security
        self._next_ids: deque[str] = deque()
        self.station_connection = StationConnection(
            security.services,
            connection,
            verdict,
            self.security_version,
            peer_name(connection),
            security.config.clock(),
            embedding=self,
        )

    # In place of the package's own

    async def start(self) -> None:
        """Serve the connection until it closes.

        Raises:
            ConnectionClosed: always at the end, as the package does.
        """
        await self.security.run(self.station_connection)
        if self._connection.protocol.state is State.CLOSED:
            raise self._connection.protocol.close_exc

    async def route_message(self, raw_msg: str | bytes) -> None:
        """Take one frame of the station; `start` does so for every one that comes.

        Raises:
            StateError: `start` does not serve this connection.
        """
        self._check_served()
        self.trace("receive", raw_msg)
        await self.station_connection.link.feed(raw_msg)

    async def call(
        self,
        payload: Any,
        suppress: bool = True,
        unique_id: str | None = None,
        skip_schema_validation: bool = False,
    ) -> Any:
        """Call the station and return its answer as the package's dataclass.

        Args:
            payload: of the package's ``call`` module.
            suppress: return ``None`` when the station answers with a CALLERROR, as the package does by default; with
                false the error is raised. Pass false: ``None`` is easily taken for an answer.
            skip_schema_validation: for stations that are known to break the schema.

        Raises:
            StateError: the station was let in only to get a certificate, `start` does not serve its connection, or the
                call would change certificates or roots without TLS, which `CsmsConfig.allow_unsecured` does not allow.
            OCPPError: the payload or the answer breaks its schema, or the station answered with a CALLERROR.
            TimeoutError: no answer within the response timeout.
            ConnectionClosed: the connection ended first.
        """
        action = type(payload).__name__
        self._check_served()
        if self.station_connection.restriction is not None:
            raise StateError(
                f"{action} is not sent to {self.id}",
                why="it was let in to get a certificate and for nothing else (A00.FR.406, A00.FR.429)",
                fix="wait until it has come back with its certificate",
            )
        written = remove_nones(serialize_as_dict(payload))
        wire = spell_members(self.security_version, action, Kind.REQUEST, written, otherwise=_camel)
        if unique_id is not None:
            self._next_ids.append(unique_id)
        timeout = timedelta(seconds=self._response_timeout)
        try:
            answer = await self.station_connection.call(action, wire, timeout, unchecked=skip_schema_validation)
        except SchemaViolation as error:
            raise _library_error(spell_error(self.security_version, error.rpc_code), error.what) from error
        except CallRefused as error:
            self.logger.warning("%s: %s", self.id, error)
            if suppress and error.origin is Origin.PEER:
                return None
            raise _library_error(error.rpc_code, error.description) from error
        except CallUnanswered as error:
            if self._connection.protocol.state is State.CLOSED:
                raise self._connection.protocol.close_exc from error
            raise TimeoutError(f"{action} was not answered within {self._response_timeout} s") from error
        finally:
            # Taken as soon as the call is; left here only by a call that was refused before.
            if unique_id is not None and unique_id in self._next_ids:
                self._next_ids.remove(unique_id)
        return _build(getattr(self._call_result, action), camel_to_snake_case(answer))

    def _check_served(self) -> None:
        if not self.station_connection.is_served:
            raise _unserved(
                f"the connection of {self.id} is not served", "await start() of the mixin; do not replace it"
            )

    async def _send(self, message: str) -> None:
        self.trace("send", message)
        await self._connection.send(message)

    # Embedding: what our connection asks of the team's CSMS

    @property
    def unchecked(self) -> Collection[str]:
        """Actions whose handler was registered with ``skip_schema_validation``; those that concern us are checked."""
        skipped = {action for action, route in self.route_map.items() if route.get("_skip_schema_validation")}
        return skipped - _ALWAYS_CHECKED

    def handles(self, action: str) -> bool:
        """Say whether the class has an ``@on`` handler for *action*."""
        return "_on_action" in self.route_map.get(action, {})

    async def answer(self, call: CallReceived) -> Reply:
        """Ask the ``@on`` handler of the call's action, and let the ``@after`` handler follow the answer."""
        route = self.route_map[call.action]
        arguments = camel_to_snake_case(call.payload)
        try:
            result = await _run(route["_on_action"], arguments, call.message_id)
            payload = remove_nones(serialize_as_dict(result))
        except OCPPError as error:
            text = printable(scrub(error.description or "", secret_values(call.payload)))[:_MAX_DESCRIPTION]
            answer = CallErrorAnswer(_error_code(error.code), text)
            raise OcppRefusal(f"the handler of {call.action} refused it with {error.code}", answer=answer) from error
        except OcppRefusal:
            raise
        except Exception as error:  # the boundary to the team's code: a bug there costs one message
            self.logger.exception("%s: the handler of %s failed on %s", self.id, call.action, call.payload)
            refusal = CallErrorAnswer(RpcErrorCode.INTERNAL_ERROR)
            raise OcppRefusal(f"the handler of {call.action} failed", answer=refusal) from error
        wire = spell_members(self.security_version, call.action, Kind.RESPONSE, payload, otherwise=_camel)
        after = route.get("_after_action")
        if after is None:
            return Reply(wire)
        return Reply(wire, lambda: self._guarded(_run(after, arguments, call.message_id), f"@after {call.action}"))

    def new_message_id(self) -> str:
        """Return the id that `call` was told, else one of the package's generator."""
        return self._next_ids.popleft() if self._next_ids else str(self._unique_id_generator())

    def trace(self, direction: str, frame: str | bytes) -> None:
        """Log a frame as the package does, but without secrets."""
        if self.logger.isEnabledFor(logging.INFO):
            shown = self.station_connection.link.session.for_log(frame)
            self.logger.info("%s: %s message %s", self.id, direction, shown)

    def certificate_news(self, news: CertificateNews) -> None:
        """Pass *news* on to the hook ``on_certificate_signed``."""
        self._tell("on_certificate_signed", news)

    def security_event_news(self, news: SecurityEventNews) -> None:
        """Pass *news* on to the hook ``on_security_event``."""
        self._tell("on_security_event", news)

    def _tell(self, name: str, news: object) -> None:
        # Looked up, not inherited: a base of the team's may stand on either side of the mixin. A handler of the team's
        # may bear the name of a hook; it takes a message and not news.
        hook = getattr(self, name, None)
        if hook is not None and not (hasattr(hook, "_on_action") or hasattr(hook, "_after_action")):
            self.station_connection.link.spawn(self._guarded(hook(news), name))

    async def _guarded(self, work: Awaitable[object], what: str) -> None:
        try:
            await work
        except Exception:  # the team's code, in a task that nobody awaits
            self.logger.exception("%s: %s failed", self.id, what)


def _unserved(what: str, fix: str) -> StateError:
    why = "neither operations on the station nor the revocation of its certificate would reach this connection"
    return StateError(what, why=why, fix=fix)


async def _run(handler: Callable[..., Any], arguments: Mapping[str, Any], message_id: str) -> object:
    parameters = inspect.signature(handler).parameters
    # 2.1 has names whose snake case the package spells in two ways, prioritizedEMAIDs for one: take either.
    spelled = {plain_name(name): name for name in parameters}
    named = {
        name if name in parameters else spelled.get(plain_name(name), name): value for name, value in arguments.items()
    }
    if "call_unique_id" in parameters:
        named["call_unique_id"] = message_id
    result = handler(**named)
    return await result if inspect.isawaitable(result) else result


def _build(kind: Any, answer: Mapping[str, Any]) -> Any:
    fields = {plain_name(name): name for name in kind.__dataclass_fields__}
    return kind(**{fields.get(plain_name(name), name): value for name, value in answer.items()})


def _camel(name: str) -> str:
    return next(iter(cast("dict[str, Any]", snake_to_camel_case({name: None}))))


def _library_error(code: str, description: str) -> Exception:
    for kind in OCPPError.__subclasses__():
        if kind.code == code:
            return cast(Exception, kind(description=description))
    return cast(Exception, UnknownCallErrorCodeError(f"the error code {code!r} is not one of OCPP: {description}"))


_OLD_SPELLINGS = {
    "FormationViolation": RpcErrorCode.FORMAT_VIOLATION,
    "OccurenceConstraintViolation": RpcErrorCode.OCCURRENCE_CONSTRAINT_VIOLATION,
}


def _error_code(code: object) -> RpcErrorCode:
    try:
        return RpcErrorCode(str(code))
    except ValueError:
        return _OLD_SPELLINGS.get(str(code), RpcErrorCode.GENERIC_ERROR)
