"""The simulated station asks for the status of a vehicle's chain, as ISO 15118-20 needs it (2.1, M07)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from chargepki.ocpp_security.station.misbehaviour import Conduct
from chargepki.ocpp_security.station.status_asking import Call, issued_pairs
from chargepki.pki.errors import InputError
from chargepki.pki.hashdata import CertificateHashData
from chargepki.pki.hashdata_defects import write_wrongly
from chargepki.pki.status_addresses import status_addresses

__all__ = ["VehicleChain"]

MAX_AGE: Final = timedelta(days=7)
_MOST: Final = 4
_MOST_URLS: Final = 5


class VehicleChain:
    """A vehicle's chain and what is known of it; asked for again only when it is due (M07.FR.09 to FR.11)."""

    def __init__(self, chain: Sequence[bytes], roots: Sequence[bytes], conduct: Conduct) -> None:
        """Set up.

        Args:
            chain: DER, leaf first.
            roots: OEM and V2G roots that the station has.
        """
        self._pairs = list(issued_pairs(chain, roots))[:_MOST]
        self._conduct = conduct
        self._known: dict[str, tuple[str, datetime]] = {}

    async def status(self, call: Call, now: datetime) -> str:
        """Return the worst word about the chain: Good, Revoked, Unknown or Failed.

        Raises:
            InputError: no issuer of it is known.
        """
        if not self._pairs:
            raise InputError("no root is installed that leads to this vehicle's certificate")
        wanted = [pair for pair in self._pairs if not self._is_known(pair, now)]
        if wanted:
            answer = await call(
                "GetCertificateChainStatus", {"certificateStatusRequests": list(map(self._ask, wanted))}
            )
            for pair in wanted:
                mine = CertificateHashData.of(*pair)
                for item in answer["certificateStatus"]:
                    if CertificateHashData.from_wire(item["certificateHashData"]) == mine:
                        until = min(datetime.fromisoformat(str(item["nextUpdate"])), now + MAX_AGE)
                        self._known[_name(pair)] = (str(item["status"]), until)
        words = {self._known.get(_name(pair), ("Failed", now))[0] for pair in self._pairs}
        return next((word for word in ("Revoked", "Failed", "Unknown") if word in words), "Good")

    def _is_known(self, pair: tuple[bytes, bytes], now: datetime) -> bool:
        return _name(pair) in self._known and now < self._known[_name(pair)][1]

    def _ask(self, pair: tuple[bytes, bytes]) -> dict[str, Any]:
        responders, lists = status_addresses(pair[0])
        urls = responders or lists
        if not urls:
            raise InputError("a certificate of the vehicle names neither responder nor revocation list")
        return {
            "source": "OCSP" if responders else "CRL",
            "urls": urls[:_MOST_URLS],
            "certificateHashData": write_wrongly(*pair, self._conduct.hash_defects),
        }


def _name(pair: tuple[bytes, bytes]) -> str:
    return hashlib.sha256(pair[0]).hexdigest()
