"""The simulated station's store: real keys and certificates in a folder on disk, changed durably and in a safe order.

    station.json            what the station knows: variables, requests, certificates, queued security events
    keys/SPKI.pem           private keys (PKCS#8, 0600), named by the SHA-256 of the public key
    certificates/SHA.pem    chains, leaf first, named by the SHA-256 of the leaf
    password                in use (0600); password.new is one that has not opened a connection yet
    trust.pem               the CSMS roots
    manufacturer.pem        the manufacturer roots
    security.log            every security event, one JSON object a line, the newest two thousand

A station protects its keys by the device (A00.FR.503, A02.FR.05); this one has file permissions alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson
from cryptography import x509

from chargepki.ocpp_security.sign_certificate import InstalledCertificate, PendingRequest
from chargepki.ocpp_security.wire import CertificateUse
from chargepki.pki import files
from chargepki.pki.errors import InputError, NotFound, StateError
from chargepki.pki.keys import PrivateKey, spki_der, spki_sha256
from chargepki.pki.pem import decode_der_or_pem, pem_blocks, to_pem
from chargepki.pki.private_keys import load_private_key, serialise_private_key

__all__ = ["QueuedEvent", "StationState", "StationStore"]

_SCHEMA_VERSION = 1
_MAX_BYTES = 1 << 20
_MAX_EVENTS = 200
_MAX_LOGGED = 2000


@dataclass(frozen=True, slots=True)
class QueuedEvent:
    """A security event that has not reached the CSMS yet."""

    type: str
    at: datetime
    tech_info: str


@dataclass(frozen=True, slots=True)
class StationState:
    """What station.json holds."""

    identity: str
    serial_number: str
    security_profile: int = 0
    """The highest profile that has opened a connection; 0 before the first."""
    variables: Mapping[str, str] = field(default_factory=dict)
    pending: tuple[PendingRequest, ...] = ()
    installed: tuple[InstalledCertificate, ...] = ()
    events: tuple[QueuedEvent, ...] = ()


class StationStore:
    """One station's folder. Every change is on disk before the method returns.

    What is new is written before the index names it, and what is old is removed after the index has forgotten it: a
    crash at any instant leaves a store that opens, at worst with a file that nothing names.
    """

    def __init__(self, folder: Path) -> None:
        """Open or create the store.

        Raises:
            StateError: the folder belongs to someone else.
            InputError: station.json cannot be read.
        """
        self.folder = files.make_private_folder(folder)
        self._keys = files.make_private_folder(folder / "keys")
        self._certificates = files.make_private_folder(folder / "certificates")
        self._index = folder / "station.json"
        self._state: StationState | None = self._load() if self._index.exists() else None

    # What the station is

    @property
    def state(self) -> StationState:
        """The state as stored.

        Raises:
            StateError: `begin` was never called on this store.
        """
        if self._state is None:
            raise StateError("the station's store is empty")
        return self._state

    def begin(self, identity: str, serial_number: str, variables: Mapping[str, str]) -> StationState:
        """Set up an empty store; one that is set up keeps its values.

        Raises:
            StateError: the store belongs to another station.
        """
        if self._state is None:
            self._save(StationState(identity, serial_number, variables=dict(variables)))
        elif self._state.identity != identity:
            raise StateError(
                f"this store belongs to station {self._state.identity!r}, not to {identity!r}",
                fix="give each station a folder of its own",
            )
        return self.state

    def set_variables(self, variables: Mapping[str, str]) -> None:
        """Keep the values of the device model."""
        if dict(self.state.variables) != dict(variables):
            self._save(replace(self.state, variables=dict(variables)))

    def set_profile(self, profile: int, *, lowered: bool = False) -> None:
        """Keep the highest security profile that has opened a connection; it is never lowered (A00.FR.005).

        Args:
            lowered: the station was brought to this one, as the errata allow (A05.FR.08).
        """
        if profile > self.state.security_profile or (lowered and profile != self.state.security_profile):
            self._save(replace(self.state, security_profile=profile))

    # Trust

    def set_trust(self, pem: bytes) -> None:
        """Replace the CSMS roots by those of a PEM file.

        Raises:
            InputError: there is no certificate in it.
        """
        roots = self._certificates_of(pem, "the trust file")
        for der in roots:
            try:
                x509.load_der_x509_certificate(der)
            except ValueError as exc:
                raise InputError("the trust file holds something that is no certificate", why=str(exc)) from exc
        files.write_durable(self.folder / "trust.pem", "".join(to_pem("CERTIFICATE", der) for der in roots).encode())

    def set_manufacturer_trust(self, pem: bytes) -> None:
        """Replace the manufacturer roots, which judge firmware, by those of a PEM file.

        Raises:
            InputError: there is no certificate in it.
        """
        roots = self._certificates_of(pem, "the manufacturer trust file")
        text = "".join(to_pem("CERTIFICATE", der) for der in roots)
        files.write_durable(self.folder / "manufacturer.pem", text.encode())

    def set_roots(self, use: str, pem: bytes) -> None:
        """Replace the roots of a use (``v2g``, ``mo``, ``oem``) by those of a PEM file.

        Raises:
            InputError: there is no certificate in it.
        """
        roots = self._certificates_of(pem, "the roots file")
        text = "".join(to_pem("CERTIFICATE", der) for der in roots)
        files.write_durable(self.folder / f"roots-{use}.pem", text.encode())

    def manufacturer_trust(self) -> tuple[bytes, ...]:
        """Return the manufacturer roots (DER); empty before `set_manufacturer_trust`: no firmware is accepted then."""
        path = self.folder / "manufacturer.pem"
        if not path.exists():
            return ()
        return self._certificates_of(files.read_limited(path, _MAX_BYTES, "trust file"), "the trust file")

    def trust(self) -> tuple[bytes, ...]:
        """Return the CSMS roots (DER); empty before `set_trust`."""
        path = self.folder / "trust.pem"
        if not path.exists():
            return ()
        return self._certificates_of(files.read_limited(path, _MAX_BYTES, "trust file"), "the trust file")

    # Passwords (octets as they stand in the Authorization header)

    def passwords(self) -> tuple[bytes, ...]:
        """Return the passwords to try, the newest first: one that has not worked yet, then the one that has."""
        paths = (self.folder / "password.new", self.folder / "password")
        return tuple(files.read_private(path) for path in paths if path.exists())

    def set_password(self, password: bytes) -> None:
        """Install the first password, as whoever commissions a station does."""
        files.write_durable(self.folder / "password", password, mode=0o600)

    def offer_password(self, password: bytes) -> None:
        """Keep a new password beside the old one until it has opened a connection (A01.FR.03 would lock us out)."""
        files.write_durable(self.folder / "password.new", password, mode=0o600)

    def password_worked(self, password: bytes) -> bool:
        """Give up the other password; return whether that ended a change."""
        new = self.folder / "password.new"
        if not new.exists():
            return False
        changed = files.read_private(new) == password
        if changed:
            files.write_durable(self.folder / "password", password, mode=0o600)
        _remove(new)
        return changed

    # Requests and certificates

    def add_request(self, request: PendingRequest, key: PrivateKey) -> None:
        """Keep a request and its private key."""
        self._write_key(key)
        others = tuple(item for item in self.state.pending if item.number != request.number)
        self._save(replace(self.state, pending=(*others, request)))

    def drop_requests(self, requests: Sequence[PendingRequest]) -> None:
        """Forget requests, and their private keys unless a certificate uses them."""
        numbers = {request.number for request in requests}
        kept = tuple(item for item in self.state.pending if item.number not in numbers)
        self._save(replace(self.state, pending=kept))
        self._remove_unused_keys(request.spki_sha256 for request in requests)

    def put_certificate(self, certificate: InstalledCertificate) -> None:
        """Install a certificate, or keep its changed marks; the key of its request must be here.

        Raises:
            NotFound: the private key is not in the store.
        """
        if not self._key_path(certificate.spki_sha256).exists():
            raise NotFound("the private key of this certificate is not in the store")
        path = self._certificates / f"{certificate.sha256}.pem"
        if not path.exists():
            files.write_durable(path, "".join(to_pem("CERTIFICATE", der) for der in certificate.chain_der).encode())
        others = tuple(item for item in self.state.installed if item.sha256 != certificate.sha256)
        self._save(replace(self.state, installed=(*others, certificate)))

    def discard_certificate(self, certificate: InstalledCertificate) -> None:
        """Remove a certificate and its private key."""
        kept = tuple(item for item in self.state.installed if item.sha256 != certificate.sha256)
        self._save(replace(self.state, installed=kept))
        _remove(self._certificates / f"{certificate.sha256}.pem")
        self._remove_unused_keys([certificate.spki_sha256])

    def private_key(self, spki_sha256_hex: str) -> PrivateKey:
        """Return the private key of a public key.

        Raises:
            SignerError: it is absent, or others can read it.
        """
        return load_private_key(files.read_private(self._key_path(spki_sha256_hex)))

    # Security events

    def queue_event(self, event: QueuedEvent) -> None:
        """Queue an event until the CSMS has it; of a repetition one is kept, of too many the newest are."""
        queue = self.state.events
        if queue and (queue[-1].type, queue[-1].tech_info) == (event.type, event.tech_info):
            return
        self._save(replace(self.state, events=(*queue, event)[-_MAX_EVENTS:]))

    def event_sent(self, event: QueuedEvent) -> None:
        """Take an event off the queue."""
        self._save(replace(self.state, events=tuple(item for item in self.state.events if item != event)))

    def log_event(self, event: QueuedEvent) -> None:
        """Append an event to the security log; of too many the newest are kept (A04.FR.04)."""
        line = orjson.dumps({"at": event.at.isoformat(), "type": event.type, "techInfo": event.tech_info}).decode()
        lines = [text for _, text in self.security_log()][-(_MAX_LOGGED - 1) :]
        data = "".join(f"{text}\n" for text in (*lines, line)).encode()
        files.write_durable(self.folder / "security.log", data, mode=0o600)

    def security_log(self) -> tuple[tuple[datetime, str], ...]:
        """Return the security log: the time and the text of each line, oldest first."""
        path = self.folder / "security.log"
        if not path.exists():
            return ()
        found = []
        for text in files.read_limited(path, _MAX_BYTES, "security log").decode().splitlines():
            # A line that somebody spoiled is no reason to lose the others.
            with contextlib.suppress(ValueError, KeyError, TypeError):
                found.append((datetime.fromisoformat(orjson.loads(text)["at"]), text))
        return tuple(found)

    # Parts

    def _key_path(self, spki: str) -> Path:
        return self._keys / f"{spki}.pem"

    def _write_key(self, key: PrivateKey) -> None:
        path = self._key_path(spki_sha256(spki_der(key.public_key())))
        if not path.exists():
            files.write_new(path, serialise_private_key(key), mode=0o600)

    def _remove_unused_keys(self, candidates: Iterable[str]) -> None:
        used = {item.spki_sha256 for item in self.state.pending} | {item.spki_sha256 for item in self.state.installed}
        for spki in set(candidates) - used:
            _remove(self._key_path(spki))

    @staticmethod
    def _certificates_of(pem: bytes, what: str) -> tuple[bytes, ...]:
        found = tuple(block.der for block in pem_blocks(pem, max_bytes=_MAX_BYTES) if block.label == "CERTIFICATE")
        return found or (decode_der_or_pem(pem, ("CERTIFICATE",), what, _MAX_BYTES),)

    def _save(self, state: StationState) -> None:
        files.write_durable(self._index, orjson.dumps(_to_json(state), option=orjson.OPT_INDENT_2), mode=0o600)
        self._state = state

    def _load(self) -> StationState:
        raw = files.read_limited(self._index, _MAX_BYTES, "station.json")
        try:
            document = orjson.loads(raw)
            if document["schema_version"] != _SCHEMA_VERSION:
                raise InputError(f"{self._index} is of another release (schema {document['schema_version']})")
            return self._from_json(document)
        except (ValueError, KeyError, TypeError) as exc:
            raise InputError(f"{self._index} cannot be read", why=type(exc).__name__, fix="use a new store") from exc

    def _from_json(self, document: dict[str, Any]) -> StationState:
        installed = []
        for item in document["installed"]:
            pem = files.read_limited(self._certificates / f"{item['sha256']}.pem", _MAX_BYTES, "certificate chain")
            times = {name: datetime.fromisoformat(item[name]) for name in ("not_before", "not_after", "installed_at")}
            installed.append(
                InstalledCertificate(
                    use=CertificateUse(item["use"]),
                    chain_der=self._certificates_of(pem, "a certificate chain"),
                    sha256=str(item["sha256"]),
                    spki_sha256=str(item["spki_sha256"]),
                    proven=bool(item["proven"]),
                    **times,
                )
            )
        pending = [
            PendingRequest(
                number=int(item["number"]),
                use=CertificateUse(item["use"]),
                csr_pem=str(item["csr"]),
                spki_sha256=str(item["spki_sha256"]),
                created_at=datetime.fromisoformat(item["created_at"]),
            )
            for item in document["pending"]
        ]
        return StationState(
            identity=str(document["identity"]),
            serial_number=str(document["serial_number"]),
            security_profile=int(document["security_profile"]),
            variables={str(key): str(value) for key, value in document["variables"].items()},
            pending=tuple(pending),
            installed=tuple(installed),
            events=tuple(
                QueuedEvent(str(item["type"]), datetime.fromisoformat(item["at"]), str(item["tech_info"]))
                for item in document["events"]
            ),
        )


def _to_json(state: StationState) -> dict[str, Any]:
    return {
        "schema": "chargepki.station-store",
        "schema_version": _SCHEMA_VERSION,
        "identity": state.identity,
        "serial_number": state.serial_number,
        "security_profile": state.security_profile,
        "variables": dict(state.variables),
        "pending": [
            {
                "number": item.number,
                "use": item.use.value,
                "csr": item.csr_pem,
                "spki_sha256": item.spki_sha256,
                "created_at": item.created_at.isoformat(),
            }
            for item in state.pending
        ],
        "installed": [
            {
                "use": item.use.value,
                "sha256": item.sha256,
                "spki_sha256": item.spki_sha256,
                "not_before": item.not_before.isoformat(),
                "not_after": item.not_after.isoformat(),
                "installed_at": item.installed_at.isoformat(),
                "proven": item.proven,
            }
            for item in state.installed
        ],
        "events": [
            {"type": item.type, "at": item.at.isoformat(), "tech_info": item.tech_info} for item in state.events
        ],
    }


def _remove(path: Path) -> None:
    # A file that stays behind is harmless: nothing names it any more.
    with contextlib.suppress(OSError):
        path.unlink()
