"""The simulated station asks for the status of its V2G certificates and keeps the answers to staple (M06)."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import orjson

from chargepki.ocpp_security import pnc_transfer
from chargepki.ocpp_security.pnc_transfer import Dialect
from chargepki.ocpp_security.station.misbehaviour import Conduct, Misbehaviour
from chargepki.ocpp_security.trust_store import is_signed_by
from chargepki.ocpp_security.versions import OcppVersion
from chargepki.pki import files
from chargepki.pki.errors import ChargePkiError, InputError
from chargepki.pki.evidence import verify_ocsp_status
from chargepki.pki.hashdata import hashed_parts
from chargepki.pki.hashdata_defects import write_wrongly
from chargepki.pki.status_addresses import status_addresses

__all__ = ["Call", "Pair", "Staples", "StatusOutcome", "issued_pairs", "question", "send_to_csms"]

MAX_AGE: Final = timedelta(days=7)
"""How long an answer is used at most (M06.FR.10)."""
_RETRY: Final = timedelta(hours=1)
"""After which a status that could not be had is asked for again."""
_MAX_BYTES: Final = 1 << 20

Call = Callable[[str, dict[str, Any]], Awaitable[dict[str, Any]]]
Pair = tuple[bytes, bytes]
"""A certificate and its issuer's, DER."""


class StatusOutcome(StrEnum):
    """What came of a question."""

    GOOD = "good"
    REVOKED = "revoked"
    UNKNOWN = "unknown"
    FAILED = "failed"
    """The CSMS has none, or what it sent does not verify; an older answer stays."""


@dataclass(frozen=True, slots=True)
class _Kept:
    until: datetime
    response: bytes


def issued_pairs(chain: Sequence[bytes], roots: Sequence[bytes]) -> Iterator[Pair]:
    """Yield each certificate of a chain (leaf first, no root) with its issuer, as far as issuers are known."""
    for at, certificate in enumerate(chain):
        candidates = [*chain[at + 1 :], *roots]
        issuer = next((each for each in candidates if is_signed_by(certificate, each)), None)
        if issuer is not None:
            yield certificate, issuer


def question(pair: Pair, conduct: Conduct) -> dict[str, str]:
    """Return OCSPRequestData about a certificate: its hash data and the responder that it names.

    Raises:
        InputError: it names no responder, which OCPP demands.
    """
    certificate, issuer = pair
    responders, _ = status_addresses(certificate)
    if not responders:
        raise InputError("the certificate names no OCSP responder", why="responderURL is mandatory (ocpp-security 5.2)")
    url = responders[0]
    if conduct.does(Misbehaviour.STATUS_PRIVATE_URL):
        url = "http://169.254.169.254/latest/meta-data/"
    elif conduct.does(Misbehaviour.STATUS_JOINED_URLS):
        url = "".join([*responders, *responders])
    return {**write_wrongly(certificate, issuer, conduct.hash_defects), "responderURL": url}


async def send_to_csms(
    version: OcppVersion, call: Call, action: str, payload: dict[str, Any], dialect: Dialect = Dialect.OCA
) -> dict[str, Any]:
    """Send a message of Plug & Charge; in 1.6 inside a DataTransfer, and return what is in the answer.

    Raises:
        InputError: the CSMS does not serve it, or the dialect has no place for it.
    """
    if version is not OcppVersion.V16:
        return await call(action, payload)
    answer = await call("DataTransfer", pnc_transfer.wrap(action, payload, dialect))
    inner = pnc_transfer.read_transfer_answer(action, answer)
    if inner is None:
        raise InputError(f"the CSMS does not serve {action} in a DataTransfer: {answer.get('status')}")
    return inner


class Staples:
    """OCSP answers for the station's own V2G chains, on disk; a stale one is none."""

    def __init__(self, folder: Path) -> None:
        """Take up what *folder* holds.

        Raises:
            InputError: the file cannot be read.
        """
        self._path = folder / "staples.json"
        self._kept: dict[str, _Kept] = {}
        self._failed: dict[str, datetime] = {}
        if self._path.exists():
            try:
                document = orjson.loads(files.read_limited(self._path, _MAX_BYTES, "staples.json"))
                for name, each in document["answers"].items():
                    until = datetime.fromisoformat(each["until"])
                    self._kept[name] = _Kept(until, base64.b64decode(each["response"], validate=True))
            except (ValueError, KeyError, TypeError, AttributeError) as exc:
                raise InputError(
                    f"{self._path} cannot be read", why=type(exc).__name__, fix="remove it: the station asks again"
                ) from exc

    def wanted(self, pairs: Sequence[Pair], now: datetime) -> list[Pair]:
        """Return the certificates whose status has to be asked for now (M06.FR.06, FR.07, FR.10)."""
        return [
            pair for pair in pairs if not self._is_fresh(pair[0], now) and self._failed.get(_name(pair[0]), now) <= now
        ]

    def take(self, pair: Pair, answer: dict[str, Any], now: datetime) -> StatusOutcome:
        """Judge the answer to GetCertificateStatus; a verified response is on disk when this returns.

        What does not verify never takes the place of what did (ocpp-security 5.3, rule 5).
        """
        certificate, issuer = pair
        try:
            if answer.get("status") != "Accepted":
                raise InputError(f"the CSMS has no status: {answer.get('status')}")
            response = base64.b64decode(str(answer.get("ocspResult", "")), validate=True)
            serial = hashed_parts(certificate)[0]
            evidence = verify_ocsp_status(response, issuer, serial, at=now, max_age=MAX_AGE)
        except (ChargePkiError, binascii.Error):
            self._failed[_name(certificate)] = now + _RETRY
            return StatusOutcome.FAILED
        until = min(evidence.next_update or now + MAX_AGE, now + MAX_AGE)
        self._failed.pop(_name(certificate), None)
        self._kept[_name(certificate)] = _Kept(until, response)
        self._save()
        return StatusOutcome(evidence.status)

    def staples(self, chain: Sequence[bytes], now: datetime) -> tuple[bytes | None, ...]:
        """Return what is stapled for a chain, one a certificate; ``None`` where there is no fresh answer."""
        return tuple(self._kept[_name(each)].response if self._is_fresh(each, now) else None for each in chain)

    def keep_only(self, certificates: Sequence[bytes]) -> None:
        """Forget the answers about certificates that the station has no more."""
        names = {_name(each) for each in certificates}
        if not set(self._kept) <= names:
            self._kept = {name: each for name, each in self._kept.items() if name in names}
            self._save()

    def _is_fresh(self, certificate: bytes, now: datetime) -> bool:
        kept = self._kept.get(_name(certificate))
        return kept is not None and now < kept.until

    def _save(self) -> None:
        answers = {
            name: {"until": each.until.isoformat(), "response": base64.b64encode(each.response).decode()}
            for name, each in self._kept.items()
        }
        document = {"schema": "chargepki.station-staples", "schema_version": 1, "answers": answers}
        files.write_durable(self._path, orjson.dumps(document), mode=0o600)


def _name(certificate: bytes) -> str:
    return hashlib.sha256(certificate).hexdigest()
