"""Steps of the station's certificate flow, for its tests: a flow, a request, what arrives, what comes of it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TypeVar

from cryptography.hazmat.primitives.asymmetric import ec

from chargepki.ocpp_security.certificate_checks import CertificateRules
from chargepki.ocpp_security.events import SecurityEvent
from chargepki.ocpp_security.schemas import Kind, check_payload
from chargepki.ocpp_security.sign_certificate import (
    InstallCertificate,
    InstalledCertificate,
    Payload,
    PendingRequest,
    RaiseEvent,
    SendRequest,
    StationEffect,
)
from chargepki.ocpp_security.sign_certificate_station import StationCertificateConfig, StationCertificateFlow
from chargepki.ocpp_security.versions import OcppVersion
from chargepki.ocpp_security.wire import CertificateUse, build_certificate_signed
from testkit.flows import NOW, Ca, new_key, operator

__all__ = [
    "RULES",
    "SECOND",
    "USE",
    "V16",
    "V21",
    "V201",
    "assert_refused",
    "begin",
    "enrol",
    "make_flow",
    "of",
    "signed",
]

V16, V201, V21 = OcppVersion
USE = CertificateUse.CHARGING_STATION
SECOND = timedelta(seconds=1)
E = TypeVar("E")

RULES = CertificateRules(
    serial_number="CS-0001",
    organization="Example CSO",
    operator_anchors=(operator().root_der,),
    v2g_anchors=(operator("V2G").root_der,),
    secc_id="SECC-1",
    v2g_organization="Example CSO",
    country="DE",
)


def make_flow(
    version: OcppVersion = V201,
    *,
    wait: int | None = 30,
    repeat: int | None = 3,
    uses: frozenset[CertificateUse] = frozenset({USE}),
    rules: CertificateRules = RULES,
    installed: tuple[InstalledCertificate, ...] = (),
) -> StationCertificateFlow:
    config = StationCertificateConfig(
        rules, uses, wait_minimum=timedelta(seconds=wait) if wait is not None else None, repeat_times=repeat
    )
    return StationCertificateFlow(version, config, installed=installed)


def of(kind: type[E], effects: list[StationEffect]) -> list[E]:
    return [effect for effect in effects if isinstance(effect, kind)]


def begin(
    flow: StationCertificateFlow, now: datetime = NOW, use: CertificateUse = USE, *, answer: str | None = "Accepted"
) -> tuple[ec.EllipticCurvePrivateKey, PendingRequest]:
    key = new_key()
    flow.renew(use)
    (sent,) = of(SendRequest, flow.start(use, key, now))
    check_payload(flow.version, sent.action, Kind.REQUEST, sent.payload, sending=True)
    flow.sign_answered(sent.request, answer, now)
    return key, sent.request


def signed(
    flow: StationCertificateFlow,
    leaf: bytes,
    *,
    ca: Ca | None = None,
    use: CertificateUse = USE,
    request_id: int | None = None,
    root: bool = False,
    now: datetime = NOW,
) -> tuple[Payload, list[StationEffect]]:
    chain = (ca or operator()).chain_pem(leaf, root=root)
    call = build_certificate_signed(flow.version, use, chain, request_id=request_id)
    answer, effects = flow.certificate_signed(call.payload, now)
    check_payload(flow.version, "CertificateSigned", Kind.RESPONSE, answer, sending=True)
    return answer, effects


def enrol(flow: StationCertificateFlow, now: datetime = NOW, **fields: object) -> InstalledCertificate:
    key, request = begin(flow, now)
    leaf = operator().issue(key.public_key(), **fields)  # type: ignore[arg-type]  # by name
    answer, effects = signed(flow, leaf, request_id=request.number, now=now)
    assert answer == {"status": "Accepted"}, answer
    (installed,) = of(InstallCertificate, effects)
    return installed.certificate


def assert_refused(flow: StationCertificateFlow, outcome: tuple[Payload, list[StationEffect]], words: str) -> None:
    answer, effects = outcome
    assert answer["status"] == "Rejected"
    (event,) = effects
    assert isinstance(event, RaiseEvent), effects
    assert event.event is SecurityEvent.INVALID_CHARGING_STATION_CERTIFICATE and words in event.tech_info
