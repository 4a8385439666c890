"""What `campaign_world` has at the two ends of its network: stations with a store, connections, frames on their way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from chargepki.ocpp_security.certificate_checks import CertificateRules
from chargepki.ocpp_security.sign_certificate import (
    DiscardCertificate,
    DropRequests,
    InstallCertificate,
    InstalledCertificate,
    MakeKey,
    PendingRequest,
    SendRequest,
    SigningOrder,
    StationEffect,
)
from chargepki.ocpp_security.sign_certificate_station import StationCertificateConfig, StationCertificateFlow
from chargepki.ocpp_security.versions import OcppVersion
from chargepki.ocpp_security.wire import CertificateUse
from chargepki.pki.inventory.records import (
    AttemptRecord,
    CertificateRecord,
    OperationRecord,
    PresenceRecord,
    StationRecord,
)
from chargepki.pki.keys import KeyAlgorithm, PrivateKey, generate_private_key, spki_der, spki_sha256

__all__ = ["USE", "Link", "Message", "Outstanding", "Station"]

USE: Final = CertificateUse.CHARGING_STATION


@dataclass
class Message:
    """A frame on its way; `connection` is the one that it was sent over."""

    station: str
    connection: int
    to_station: bool
    action: str
    payload: dict[str, Any]
    answers: str | None = None
    """Of an answer: the CALL's id."""
    id: str = ""


@dataclass
class Outstanding:
    """A CALL of the CSMS whose answer is waited for."""

    connection: int
    operation: OperationRecord | None = None
    attempt: AttemptRecord | None = None
    order: SigningOrder | None = None


@dataclass
class Link:
    """A connection as the CSMS has it; `arrive` and `depart` take it for a `StationConnection`."""

    id: str
    number: int
    station: StationRecord
    version: OcppVersion
    certificate: CertificateRecord
    connected_at: datetime
    owner: str
    profile: int = 3
    restriction: None = None
    pending_password: bool = False
    is_fallback: bool = False
    took_into_use: bool = False
    was_onboarded: bool = False
    is_awaited: bool = False
    attempted: set[str] = field(default_factory=set)

    def presence(self, now: datetime, *, connected: bool = True) -> PresenceRecord:
        """Return the row that says that it is (or was) connected."""
        return PresenceRecord(
            self.station.id, connected, self.owner, self.id, self.version.value, self.profile, self.certificate.id,
            "127.0.0.1:1", self.connected_at, now,
        )  # fmt: skip


class Station:
    """A station with its durable store; `restart` forgets what is not in that."""

    def __init__(self, identity: str, version: OcppVersion, rules: CertificateRules) -> None:
        self.id, self.version, self._rules = identity, version, rules
        self.keys: dict[str, PrivateKey] = {}
        self.pending: dict[int, PendingRequest] = {}
        self.installed: dict[str, InstalledCertificate] = {}
        self.ever_installed: set[str] = set()
        self.restart()

    def restart(self) -> None:
        """Begin anew from the store."""
        config = StationCertificateConfig(
            self._rules, frozenset({USE}), wait_minimum=timedelta(seconds=30), repeat_times=2
        )
        pending, installed = tuple(self.pending.values()), tuple(self.installed.values())
        self.flow = StationCertificateFlow(self.version, config, pending=pending, installed=installed)

    def store(self, effects: Sequence[StationEffect]) -> list[SendRequest]:
        """Make *effects* durable and return what is to be sent."""
        sending = []
        for effect in effects:
            match effect:
                case InstallCertificate(certificate):
                    assert certificate.spki_sha256 in self.keys, f"{self.id} installs a certificate for a foreign key"
                case DropRequests(requests):
                    for request in requests:
                        self.pending.pop(request.number, None)
                case DiscardCertificate(certificate):
                    pass
                case SendRequest():
                    self.pending[effect.request.number] = effect.request
                    sending.append(effect)
                case _:
                    pass
        self.installed = {item.sha256: item for item in self.flow.installed}
        self.ever_installed.update(self.installed)
        self.pending = {item.number: item for item in self.flow.pending}
        return sending

    def make_keys(self, effects: Sequence[StationEffect], now: datetime) -> list[SendRequest]:
        """Answer `MakeKey` with a new key and its CSR."""
        sending = []
        for effect in effects:
            if isinstance(effect, MakeKey):
                key = generate_private_key(KeyAlgorithm.SECP256R1)
                self.keys[spki_sha256(spki_der(key))] = key
                sending += self.store(self.flow.start(effect.use, key, now))
        return sending
