"""Answer Get15118EVCertificate of a station: in time, and to the peer without a word about why not."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, Final

from chargepki.ocpp_security.ev_certificate import (
    ContractProvider,
    accepted_payload,
    failed_payload,
    read_request,
    response_characters,
)
from chargepki.ocpp_security.status import StatusGateway
from chargepki.ocpp_security.versions import OcppVersion
from chargepki.pki.errors import ChargePkiError, NotFound, printable

__all__ = ["answer_ev_certificate"]

_log = logging.getLogger("chargepki.csms")
_SECONDS: Final = 4.0
"""Vehicles wait 4.5 s for both requests, station and its link included (ISO 15118-2 timing, M01, M02)."""
_running: Final[set[asyncio.Task[Any]]] = set()


async def answer_ev_certificate(
    provider: ContractProvider,
    gateway: StatusGateway,
    version: OcppVersion,
    payload: Mapping[str, Any],
    station: str,
    *,
    configured_characters: int,
    told_characters: int | None = None,
) -> dict[str, Any]:
    """Return the answer as a payload of 2.x.

    One that takes too long is Failed; the work goes on, so that the vehicle's next attempt finds it done.

    Args:
        told_characters: how long an exiResponse the station says it takes.

    Clause: M01.FR.01, FR.04, FR.07; M02.FR.01.
    """
    characters = response_characters(version, configured_characters, told_characters)
    try:
        request = read_request(payload, station, version, characters)
        task = asyncio.get_running_loop().create_task(_provide(provider, request, gateway))
        _running.add(task)
        task.add_done_callback(_running.discard)
        # Not wait_for: that of Python 3.11 forgets a cancellation that meets the answer.
        async with asyncio.timeout(_SECONDS):
            answer = await asyncio.shield(task)
    except TimeoutError:
        _log.warning("%s: no contract within %.0f s; the vehicle's next attempt finds it", station, _SECONDS)
        return failed_payload("Timeout")
    except ChargePkiError as error:
        _log.warning("%s: no contract: %s", station, printable(str(error))[:600])
        reason = "NotFound" if isinstance(error, NotFound) else "Unspecified"
        return failed_payload("TooLargeElement" if error.code == "answer-too-long" else reason)
    if len(answer.exi) * 4 > characters * 3:
        _log.warning("%s: the provider's answer has %d bytes, too many for %s", station, len(answer.exi), version.value)
        return failed_payload("TooLargeElement")
    return accepted_payload(version, answer)


async def _provide(provider: ContractProvider, request: Any, gateway: StatusGateway) -> Any:
    try:
        return await provider.provide(request, gateway)
    except ChargePkiError:
        raise
    except Exception as error:  # the boundary to a provider of somebody else's: a bug there costs one answer
        _log.exception("%s: the provider of contracts failed", request.station)
        raise _ProviderFailed("the provider of contracts failed") from error


class _ProviderFailed(ChargePkiError):
    code = "provider"
