"""The EST service as routes of the TLS listener."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from chargepki.pki.authority import utc_now
from chargepki.pki.files import read_limited
from chargepki.pki.inventory import Inventory
from chargepki.pki.keys import PrivateKey
from chargepki.pki.private_keys import load_private_key
from chargepki.pki.services.est import EstRequest, EstService
from chargepki.pki.services.http import Handler, Request, Response, plain

__all__ = ["est_routes", "est_trust", "read_server_key"]

_PREFIXES: Final = (b"/.well-known/", b"/cpo/", b"/mo/", b"/oem/", b"/cps/", b"/veh/")
_MAX_PEM_BYTES: Final = 1 << 20


def est_routes(service: EstService, *, clock: Callable[[], datetime] = utc_now) -> Mapping[bytes, Handler]:
    """Return the handler of *service* by path prefix; over plain HTTP it only says that EST needs TLS."""

    async def handle(request: Request) -> Response:
        if not request.is_tls:
            return plain(403, "EST runs over TLS only (RFC 7030 3.3)", endpoint="est")
        answer = await service.answer(
            EstRequest(
                method=request.method,
                path=request.path.decode("latin-1"),
                headers={name.decode("latin-1").lower(): value.decode("latin-1") for name, value in request.headers},
                body=request.body,
                client_certificate_der=request.client_certificate,
                peer=request.peer.rpartition(":")[0],
                at=clock(),
                monotonic=time.monotonic(),
                tls_unique=request.tls_unique,
            )
        )
        headers = (("Content-Type", answer.content_type), ("Cache-Control", "no-store"), *answer.headers.items())
        return Response(answer.status, answer.body, headers, endpoint="est")

    return dict.fromkeys(_PREFIXES, handle)


def est_trust(inventory: Inventory) -> bytes:
    """Return as PEM what client certificates may chain to: all CAs on record, and the certificates of accounts.

    Raises:
        UnavailableError: the inventory cannot be read.
    """
    found = [record.certificate_der for record in inventory.list_cas() if record.certificate_der]
    found += [
        account.certificate_der
        for account in inventory.list_est_accounts()
        if account.certificate_der and account.state == "active"
    ]
    return "".join(ssl.DER_cert_to_PEM_cert(each) for each in dict.fromkeys(found)).encode()


def read_server_key(certificate: Path, key: Path) -> tuple[PrivateKey, bytes]:
    """Return the TLS server's key and certificate (DER), which sign the keys that are made for clients.

    Raises:
        InputError: they cannot be decoded.
        UnavailableError: they cannot be read.
    """
    chain = x509.load_pem_x509_certificates(read_limited(certificate, _MAX_PEM_BYTES, "TLS certificate"))
    private = load_private_key(read_limited(key, _MAX_PEM_BYTES, "TLS key"))
    return private, chain[0].public_bytes(Encoding.DER)
