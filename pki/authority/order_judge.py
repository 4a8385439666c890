"""What an order for a certificate asks for, and whether policy allows it; nothing is built or written."""

from __future__ import annotations

from dataclasses import dataclass

from cryptography import x509
from cryptography.x509.oid import NameOID

from chargepki.pki import names
from chargepki.pki.authority.orders import IssueOrder
from chargepki.pki.authority.request_record import check_accepted, stored_verdicts
from chargepki.pki.csr import CertificateRequest, parse_csr
from chargepki.pki.errors import InputError, PolicyRefusal, StateError
from chargepki.pki.inventory import Inventory
from chargepki.pki.inventory.records import StationRecord, StationState
from chargepki.pki.keys import algorithm_of, load_public_key
from chargepki.pki.policy import RequestVerdict, RuleVerdict, choose_dns_names, choose_subject, judge_request
from chargepki.pki.policy_record import judge_key_list
from chargepki.pki.policy_settings import PolicySettings
from chargepki.pki.profiles.base import Profile

__all__ = ["Asked", "judge_order", "station_for"]


@dataclass(frozen=True, slots=True)
class Asked:
    """What an order asks for, as far as policy allows it."""

    order: IssueOrder
    request: CertificateRequest | None
    spki: bytes
    verdict: RequestVerdict | None
    listed: tuple[RuleVerdict, ...]
    subject_der: bytes
    dns_names: tuple[str, ...]
    station: StationRecord | None

    def verdicts(self, digest: str) -> dict[str, object]:
        """Return what is recorded with the certificate; *digest* is that of all that decides its content."""
        return {
            "content": digest,
            "request": self.verdict.to_json() if self.verdict else None,
            "record": [*stored_verdicts(self.listed)],
            **({"delivery": dict(self.order.delivery)} if self.order.delivery else {}),
        }


def judge_order(order: IssueOrder, profile: Profile, inventory: Inventory, policy: PolicySettings) -> Asked:
    """Judge the key, the request and the names of *order*, and find the station that it is for.

    Args:
        profile: the profile of the order, adapted to its issuer.

    Raises:
        InputError: the request cannot be decoded.
        NotFound, StateError: the station that it names is not there.
        PolicyRefusal: the request, the key or the subject breaks policy.
    """
    request, spki = _subject_key(order)
    subject, verdict = _judge(request, profile, order, policy)
    listed = judge_key_list(spki, policy)
    check_accepted(listed)
    dns_names = choose_dns_names(profile, subject, order.dns_names)
    station = station_for(inventory, order.station, profile, subject)
    return Asked(order, request, spki, verdict, listed, names.name_der(subject), dns_names, station)


def _subject_key(order: IssueOrder) -> tuple[CertificateRequest | None, bytes]:
    if (order.csr is None) == (order.spki is None):
        raise InputError("an order needs either a CSR or a public key", fix="pass exactly one of csr and spki")
    if order.csr is not None:
        request = parse_csr(order.csr)
        return request, request.spki_der
    assert order.spki is not None
    return None, order.spki


def _judge(
    request: CertificateRequest | None, profile: Profile, order: IssueOrder, policy: PolicySettings
) -> tuple[x509.Name, RequestVerdict | None]:
    """Return the subject that the certificate gets, and the verdict on the request if there is one."""
    override = names.build_name(list(order.subject)) if order.subject else None
    if request is None:
        assert order.spki is not None
        algorithm = algorithm_of(load_public_key(order.spki))
        if algorithm not in profile.keys.algorithms:
            raise PolicyRefusal(
                f"key algorithm {algorithm.value} is not allowed in {profile.id}",
                why=profile.keys.clause,
                fix=f"use one of {', '.join(a.value for a in profile.keys.algorithms)}",
            )
        return choose_subject(profile, None, override=override, defaults=order.subject_defaults), None
    verdict = policy.apply(
        judge_request(request, profile, subject_defaults=order.subject_defaults, subject_override=override)
    )
    check_accepted(verdict.rules)
    assert verdict.subject is not None
    return verdict.subject, verdict


def station_for(inventory: Inventory, named: str | None, profile: Profile, subject: x509.Name) -> StationRecord | None:
    """Return the station the certificate belongs to: the one *named*, or the one whose serial number is the CN.

    Raises:
        NotFound: there is no station *named*.
        StateError: it was removed.
    """
    if named is not None:
        station = inventory.get_station(named)
        if station.state is not StationState.ACTIVE:
            raise StateError(f"station {station.id} was removed", fix=f"run: chargepki station add {station.id}")
        return station
    if profile.id != "ocpp/charging-station":
        return None
    common_names = subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if len(common_names) != 1:
        return None
    stations = [
        station
        for station in inventory.find_stations_by_serial_number(str(common_names[0].value))
        if station.state is StationState.ACTIVE
    ]
    # Two stations may have been registered with one serial number; then only an explicit station is believed.
    return stations[0] if len(stations) == 1 else None
