"""What a foreign station has on disk, and operations for it in the inventory."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509

from chargepki.ocpp_security.operation_store import OperationStore
from chargepki.ocpp_security.operations import OperationKind, PasswordSecret
from chargepki.ocpp_security.passwords import hash_password
from testkit.csms_rig import ACTOR, ORGANIZATION, PASSWORD, Rig
from testkit.ocpp_peers import Credential, build_station_csr

__all__ = ["StationFiles", "queue_operation", "serial_of"]


class StationFiles:
    """Trust, password, and new keys with their requests and chains."""

    def __init__(self, rig: Rig, folder: Path, identity: str) -> None:
        self.folder, self.identity = folder, identity
        self.trust = self.write("root.pem", rig.root_pem)
        self.password = self.write("password", PASSWORD.decode())

    def write(self, name: str, content: str) -> Path:
        """Write one file."""
        path = self.folder / name
        path.write_text(content)
        return path

    def new_key(self, name: str) -> dict[str, str | Path]:
        """Make a key and a request; return them as options of the Node station."""
        credential = Credential()
        return {
            "csr": self.write(f"{name}.csr", build_station_csr(credential.key, self.identity, ORGANIZATION)),
            "csr_key": self.write(f"{name}.key", credential.key_pem().decode()),
            "out": self.folder / f"{name}.pem",
        }


def queue_operation(
    rig: Rig, kind: OperationKind, station: str, parameters: Mapping[str, object], *, password: bytes | None = None
) -> str:
    """Queue an operation as the command line does; return its id."""
    now = datetime.now(UTC)
    secret = PasswordSecret(password, hash_password(password)) if password is not None else None
    store = OperationStore(rig.inventory, rig.sealing_key, owner="test", actor=ACTOR)
    return store.create(
        kind, station, parameters, operation_id=f"op-{secrets.token_hex(6)}", actor=ACTOR, now=now,
        deadline=now + timedelta(minutes=2), secret=secret,
    ).id  # fmt: skip


def serial_of(chain: str | Path) -> str:
    """Return the serial number of the leaf in a file, in hex."""
    leaf = x509.load_pem_x509_certificates(Path(chain).read_bytes())[0]
    return f"{leaf.serial_number:x}"
