"""Answer Authorize with a contract certificate: the token by whoever knows tokens, the certificate by the table."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from chargepki.ocpp_security.contract import TokenStatus, decide
from chargepki.ocpp_security.contract_check import ContractChecker
from chargepki.pki.errors import printable

__all__ = ["authorize", "concerns_contract"]

_log = logging.getLogger("chargepki.csms")


def concerns_contract(payload: Mapping[str, Any]) -> bool:
    """Say whether an Authorize request of 2.x brings certificates or their hash data."""
    return "certificate" in payload or "iso15118CertificateHashData" in payload


async def authorize(
    checker: ContractChecker, payload: Mapping[str, Any], station: str, told: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the answer of 2.x.

    Args:
        told: the answer of a CSMS that knows its tokens; its status is overruled where the certificate forbids it, and
            everything else in it is kept.

    Clause: C07.FR.04, FR.13 to FR.17.
    """
    answer = dict(told or {})
    info = dict(answer.get("idTokenInfo") or {})
    token = _token(str(info["status"])) if "status" in info else await checker.token(payload)
    verdict = decide(await checker.facts(payload, token))
    if not verdict.may_charge:
        _log.info("%s: contract %s: %s", station, printable(str(payload["idToken"]["idToken"]))[:40], verdict.reason)
    answer["idTokenInfo"] = {**info, "status": verdict.token.value}
    if verdict.certificate is not None:
        answer["certificateStatus"] = verdict.certificate.value
    return answer


def _token(status: str) -> TokenStatus:
    """Return what a handler says; what no version knows opens nothing."""
    try:
        return TokenStatus(status)
    except ValueError:
        return TokenStatus.INVALID
