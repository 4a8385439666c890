"""What asks a CA that is not ours, as ``[est.ca.NAME]`` of ``chargepki.toml`` says."""

from __future__ import annotations

from pathlib import Path

from chargepki.pki import files
from chargepki.pki.authority.external import EnrolOutside
from chargepki.pki.config import CONFIG_FILE
from chargepki.pki.errors import InputError
from chargepki.pki.inventory.records import CaRecord
from chargepki.pki.services.est_client import EstClient, EstCredentials, Pending
from chargepki.pki.services.est_settings import load_est_settings

__all__ = ["client_of", "outside_ca"]


def client_of(name: str, home: Path) -> EstClient:
    """Return a client of the EST server that ``[est.ca.NAME]`` names.

    Raises:
        InputError: there is no such table, or what it says does not fit.
        UnavailableError: a file that it names cannot be read.
    """
    settings = load_est_settings(home / CONFIG_FILE).cas.get(name)
    if settings is None:
        raise InputError(
            f"{CONFIG_FILE} does not say how the CA {name} is reached", fix=f"write [est.ca.{name}] with its url"
        )
    password = None
    if settings.password_file is not None:
        password = files.read_limited(settings.password_file, 1024, "password file").removesuffix(b"\n")
    credentials = EstCredentials(settings.user, password, settings.certificate, settings.key)
    return EstClient(settings.url, trust_file=settings.trust, credentials=credentials, cacerts_url=settings.cacerts_url)


def outside_ca(ca: CaRecord, home: Path) -> EnrolOutside:
    """Return what asks *ca*; settings and files are read anew each time, so that a new password needs no restart."""
    client = client_of(ca.key_uri.removeprefix("est:"), home)

    def ask(csr_der: bytes) -> tuple[bytes, ...] | None:
        answer = client.enrol(csr_der)
        return None if isinstance(answer, Pending) else answer

    return ask
