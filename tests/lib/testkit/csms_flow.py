"""A CSMS certificate flow for one station, its requests and what a CA would answer, for tests of the flow."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

from chargepki.ocpp_security.certificate_checks import build_csr
from chargepki.ocpp_security.schemas import Kind, check_payload
from chargepki.ocpp_security.sign_certificate import (
    Issue,
    IssuePlan,
    Payload,
    PendingDelivery,
    SendCall,
    SigningOrder,
)
from chargepki.ocpp_security.sign_certificate_csms import CsmsCertificateFlow
from chargepki.ocpp_security.versions import OcppVersion
from chargepki.ocpp_security.wire import CertificateUse
from chargepki.pki import names
from chargepki.pki.keys import PrivateKey
from testkit.flows import NOW, new_key, operator, station_record

__all__ = [
    "OWN",
    "PLANS",
    "USE",
    "V16",
    "V21",
    "V201",
    "accept",
    "csr",
    "deliver",
    "issue",
    "make_flow",
    "request",
    "waiting",
]

V16, V201, V21 = OcppVersion
USE = CertificateUse.CHARGING_STATION
PLANS = {
    USE: IssuePlan("t-cso-sub", "ocpp/charging-station"),
    CertificateUse.V2G: IssuePlan("t-cpo-sub2", "iso15118-2/secc", {"C": "DE"}),
}
OWN = "CN=CS-0001,O=Example CSO"


def csr(subject: str = OWN, key: PrivateKey | None = None) -> str:
    return build_csr(key or new_key(), names.parse_rdns(subject) if subject else names.build_name([]))


def make_flow(version: OcppVersion = V201, **options: object) -> CsmsCertificateFlow:
    return CsmsCertificateFlow(version, station_record(), PLANS, **options)  # type: ignore[arg-type]  # by name


def request(
    version: OcppVersion, text: str, use: CertificateUse | None = USE, request_id: int | None = None
) -> Payload:
    payload: Payload = {"csr": text}
    if version is not V16 and use is not None:
        payload["certificateType"] = use.value
    if version is V21 and request_id is not None:
        payload["requestId"] = request_id
    check_payload(version, "SignCertificate", Kind.REQUEST, payload, sending=True)
    return payload


def accept(flow: CsmsCertificateFlow, payload: Payload, now: datetime = NOW) -> SigningOrder:
    answer, effects = flow.sign_requested(payload, now)
    assert answer == {"status": "Accepted"}, effects
    (issue,) = [effect for effect in effects if isinstance(effect, Issue)]
    return issue.order


def issue(order: SigningOrder, key: Any = None, **fields: Any) -> tuple[bytes, ...]:
    return operator().chain(operator().issue(key or order.request.public_key, **fields), root=True)


def deliver(flow: CsmsCertificateFlow, order: SigningOrder, certificate_id: str = "c1") -> SendCall:
    (call,) = flow.issued(order, issue(order), NOW, certificate_id=certificate_id)
    assert isinstance(call, SendCall)
    check_payload(flow.version, call.action, Kind.REQUEST, call.payload, sending=True)
    return call


def waiting(order: SigningOrder, certificate_id: str = "c1", **changes: object) -> PendingDelivery:
    """What the inventory says of *order* while its certificate is on its way."""
    made = PendingDelivery(
        certificate_id, order.use, order.plan, order.request, issue(order), order.received_at,
        order.typed, order.request_id,
    )  # fmt: skip
    return replace(made, **changes)  # type: ignore[arg-type]  # by name
