"""Contracts for vehicles out of our own PKI: `pki.provisioning` behind a station's Get15118EVCertificate."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from chargepki.ocpp_security.ev_certificate import ContractAnswer, ContractRequest, EvAction
from chargepki.ocpp_security.status import CertificateWord, StatusGateway, StatusSource
from chargepki.pki.errors import InputError
from chargepki.pki.exi import MessageSet
from chargepki.pki.hashdata import CertificateHashData
from chargepki.pki.provisioning import Channel, Examined, Provisioner, Question, RequestKind, Standing

__all__ = ["PkiContractProvider"]

_WORDS = {CertificateWord.GOOD: Standing.GOOD, CertificateWord.REVOKED: Standing.REVOKED}


class PkiContractProvider:
    """Our own service as a `ContractProvider`; close it when no more requests come.

    Args:
        threads: how many requests are worked on at a time.
    """

    def __init__(self, provisioner: Provisioner, *, threads: int = 4) -> None:
        self._provisioner = provisioner
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="chargepki-contracts")

    async def provide(self, request: ContractRequest, status: StatusGateway) -> ContractAnswer:
        """Judge the request, ask for the status of certificates of others, and answer; see `Provisioner`.

        Raises:
            ChargePkiError: why not.
        """
        loop = asyncio.get_running_loop()
        examined = await loop.run_in_executor(self._pool, self._provisioner.examine, request.exi)
        _check_action(request, examined)
        answers = await asyncio.gather(*(_ask(status, each) for each in examined.questions))
        standings = dict(zip(examined.questions, answers, strict=True))
        channel = Channel(
            characters=request.response_characters,
            carrier=request.carrier,
            station=request.station,
            maximum_contracts=request.maximum_contracts,
            prioritized=request.prioritized,
        )
        answer = await loop.run_in_executor(
            self._pool, lambda: self._provisioner.provision(examined, standings=standings, channel=channel)
        )
        is_2 = examined.request.message_set is MessageSet.ISO15118_2
        return ContractAnswer(answer.exi, None if is_2 else answer.remaining)

    def close(self) -> None:
        """Wait for what is under way, and end the threads."""
        self._pool.shutdown(wait=True)


def _check_action(request: ContractRequest, examined: Examined) -> None:
    """Refuse a request that is not what the station says it is.

    Raises:
        InputError: it is another one.
    """
    # In a session of -20 an update counts as an installation (M02).
    if request.action is None or examined.request.message_set is MessageSet.ISO15118_20:
        return
    asked = EvAction.UPDATE if examined.request.kind is RequestKind.UPDATE else EvAction.INSTALL
    if asked is not request.action:
        raise InputError(
            f"the station says {request.action.value}, the vehicle {asked.value}",
            why="M01.FR.01, M02.FR.01: the action tells which of the two requests it is",
            fix="see the station's firmware release",
        )


async def _ask(status: StatusGateway, question: Question) -> Standing:
    source = StatusSource.OCSP if question.responders else StatusSource.CRL
    urls = question.responders or question.lists
    wire = CertificateHashData.of(question.certificate, question.issuer).to_wire()
    result = await status.ask(wire, urls, source, issuer=question.issuer)
    return _WORDS.get(result.word, Standing.UNKNOWN)
