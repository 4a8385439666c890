"""Answer GetCertificateStatus (M06) and GetCertificateChainStatus (M07) of a station."""

from __future__ import annotations

import base64
import logging
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from chargepki.ocpp_security import schemas
from chargepki.ocpp_security.errors import StatusAnswer
from chargepki.ocpp_security.schemas import Kind
from chargepki.ocpp_security.status import CertificateWord, StatusGateway, StatusSource
from chargepki.ocpp_security.versions import OcppVersion
from chargepki.ocpp_security.wire import status_answer
from chargepki.ocpp_security.wire_time import wire_time
from chargepki.pki.errors import printable

__all__ = ["answer_chain_status", "answer_status"]

_log = logging.getLogger("chargepki.csms")


async def answer_status(
    gateway: StatusGateway, version: OcppVersion, payload: Mapping[str, Any], station: str
) -> dict[str, Any]:
    """Return the answer to GetCertificateStatus: the responder's own bytes, verified, or Failed.

    Accepted says nothing about the certificate being good; the station reads that from the OCSP response.

    Clause: M06.FR.01 to FR.04, FR.08, FR.09.
    """
    question = payload["ocspRequestData"]
    result = await gateway.ask(question, [str(question["responderURL"])])
    if result.der is None:
        _log.warning("%s: no certificate status: %s", station, printable(result.why)[:300])
        return status_answer(version, StatusAnswer("Failed", "Unspecified", "no verified answer"))
    text = base64.b64encode(result.der).decode("ascii")
    limit = schemas.max_length(version, "GetCertificateStatus", Kind.RESPONSE, "ocspResult")
    if len(text) > limit:
        _log.warning("%s: the OCSP response has %d characters, OCPP allows %d", station, len(text), limit)
        return status_answer(version, StatusAnswer("Failed", "TooLargeElement", "the OCSP response is too long"))
    return {"status": "Accepted", "ocspResult": text}


async def answer_chain_status(
    gateway: StatusGateway, payload: Mapping[str, Any], station: str, now: datetime
) -> dict[str, Any]:
    """Return the answer to GetCertificateChainStatus, one entry for each certificate asked about.

    Clause: M07.FR.01 to FR.08; with Failed, nextUpdate is the time of the request.
    """
    told = []
    for item in payload["certificateStatusRequests"]:
        source = StatusSource(item["source"])
        result = await gateway.ask(item["certificateHashData"], [str(url) for url in item["urls"]], source)
        failed = result.word is CertificateWord.FAILED
        if failed:
            _log.warning("%s: no certificate status: %s", station, printable(result.why)[:300])
        told.append(
            {
                "certificateHashData": {
                    name: value for name, value in item["certificateHashData"].items() if name != "customData"
                },
                "source": source.value,
                "status": result.word.value,
                "nextUpdate": wire_time(now if failed else result.until),
            }
        )
    return {"certificateStatus": told}
