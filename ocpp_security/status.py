"""The gateway behind GetCertificateStatus (M06) and GetCertificateChainStatus (M07): verified, cached, fresh answers.

A station asks by hash data. Our own CAs answer from the inventory, in this process; everybody else is asked at an
address that the operator has allowed. Nothing is passed on that was not verified under the issuer's certificate.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Protocol

from chargepki.ocpp_security.fetch import Fetcher
from chargepki.pki.authority.ocsp import OcspSigner, cert_status, is_answered_for
from chargepki.pki.certificate_view import view_certificate
from chargepki.pki.errors import ChargePkiError, InputError, NotFound, UnavailableError
from chargepki.pki.evidence import StatusEvidence, verify_crl_status, verify_ocsp_status
from chargepki.pki.hashdata import CertificateHashData
from chargepki.pki.inventory import Inventory
from chargepki.pki.inventory.contract_records import RoleRootState
from chargepki.pki.inventory.records import CaRecord
from chargepki.pki.ocsp import SingleAnswer, build_cert_id, build_single_request, issuer_hashes

if TYPE_CHECKING:
    from chargepki.ocpp_security.csms.offload import Offload

__all__ = ["CertificateWord", "OcspSigners", "StatusGateway", "StatusResult", "StatusSource"]

MAX_AGE: Final = timedelta(days=7)
"""How long an answer is kept at most (M06.FR.10), and how old one without nextUpdate may be."""
_FAILED_FOR: Final = timedelta(seconds=30)
"""How long a failure is remembered, so that a station that asks without end does not make us ask without end."""
_MAX_CACHED: Final = 10_000
_MAX_URLS: Final = 5


class CertificateWord(StrEnum):
    """What is known of a certificate; the values are those of M07."""

    GOOD = "Good"
    REVOKED = "Revoked"
    UNKNOWN = "Unknown"
    FAILED = "Failed"
    """No evidence that could be verified."""


class StatusSource(StrEnum):
    """Where the evidence comes from; the values are those of M07."""

    OCSP = "OCSP"
    CRL = "CRL"


@dataclass(frozen=True, slots=True)
class StatusResult:
    """An answer about one certificate."""

    word: CertificateWord
    until: datetime
    """When it is to be asked again: nextUpdate, at most a week from now; soon for a failure."""
    der: bytes | None = None
    """The OCSP response, verified; ``None`` for a failure and for a CRL."""
    why: str = ""
    """For the operator: why it failed."""


class OcspSigners(Protocol):
    """Signs answers about certificates of our own CAs, where this process holds the keys."""

    def signer(self, ca: CaRecord) -> OcspSigner:
        """Return who answers for *ca*."""
        ...


_Key = tuple[StatusSource, str, str, str, int]


class StatusGateway:
    """Answers for one event loop; shared by all connections of a process."""

    def __init__(
        self,
        inventory: Inventory,
        offload: Offload,
        fetcher: Fetcher,
        *,
        issuers: Sequence[bytes] = (),
        signers: OcspSigners | None = None,
        clock: Callable[[], datetime],
    ) -> None:
        """Set up.

        Args:
            issuers: DER of CA certificates of others, under which answers are verified; CAs of ours and roots on record
                are known anyway.
            signers: signs where no answer is prepared; without it only prepared answers of our CAs are given.
        """
        self._inventory, self._offload, self._fetcher = inventory, offload, fetcher
        self._issuers, self._signers, self._clock = tuple(issuers), signers, clock
        self._cache: OrderedDict[_Key, StatusResult] = OrderedDict()
        self._under_way: dict[_Key, asyncio.Task[StatusResult]] = {}

    async def ask(
        self,
        hash_data: Mapping[str, str],
        urls: Sequence[str],
        source: StatusSource = StatusSource.OCSP,
        *,
        issuer: bytes | None = None,
    ) -> StatusResult:
        """Return a verified answer, from the cache while it is fresh. Never raises for what a peer sent.

        A certificate of ours is looked up each time: its revocation shows at once.

        Args:
            issuer: the issuer's certificate (DER), where a validated path has shown it; else it is looked up.
        """
        now = self._clock()
        try:
            wanted = CertificateHashData.from_wire(hash_data)
        except InputError as error:
            return self._failed(str(error), now)
        normal = wanted.normalised()
        key = (source, wanted.hash_algorithm, normal.issuer_name_hash, normal.issuer_key_hash, wanted.serial)
        try:
            known, ca = await self._offload.run(self._find_issuer, wanted)
            if ca is not None:
                return await self._offload.run(self._own, ca, wanted, now)
        except ChargePkiError as error:
            return self._failed(str(error), now)
        cached = self._cache.get(key)
        if cached is not None and now < cached.until:
            self._cache.move_to_end(key)
            return cached
        # Many stations ask about the same sub-CA at the same time: one question answers them all.
        task = self._under_way.get(key)
        if task is None:
            task = asyncio.get_running_loop().create_task(
                self._fetch(key, wanted, known or issuer, tuple(urls), source)
            )
            self._under_way[key] = task
            task.add_done_callback(lambda _task: self._under_way.pop(key, None))
        return await asyncio.shield(task)

    async def stapling_set(
        self, chain: Sequence[tuple[bytes, bytes, str]], algorithm: str = "SHA256"
    ) -> tuple[StatusResult, ...]:
        """Return one answer for each certificate of a V2G chain, leaf first, for a TLS server to staple (M06.FR.07).

        Args:
            chain: certificate, its issuer's certificate (DER) and the URL of its responder.
        """
        questions = []
        for certificate, issuer, url in chain:
            wire = CertificateHashData.of(certificate, issuer, algorithm).to_wire()
            questions.append(self.ask(wire, [url]))
        return tuple(await asyncio.gather(*questions))

    # -- our own CAs ----------------------------------------------------------------------------------------------

    def _find_issuer(self, wanted: CertificateHashData) -> tuple[bytes | None, CaRecord | None]:
        """Return the issuer's certificate, and its record if it is a CA whose answers we give."""
        hash_name = wanted.hash_algorithm.lower()
        hashes = bytes.fromhex(wanted.issuer_name_hash), bytes.fromhex(wanted.issuer_key_hash)
        found = [
            ca
            for ca in self._inventory.list_cas()
            if ca.certificate_der is not None and _hashes(hash_name, ca.certificate_der) == hashes
        ]
        now = self._clock()
        ours = [ca for ca in found if is_answered_for(self._inventory, ca, now)]
        # Generations of a CA may share name and key.
        for ca in ours:
            if self._inventory.find_ocsp_subject(f"{ca.id}:{wanted.serial:x}") is not None:
                return ca.certificate_der, ca
        if found:
            return found[0].certificate_der, ours[0] if ours else None
        confirmed = (root.der for root in self._inventory.list_role_roots() if root.state is RoleRootState.TRUSTED)
        others = (*self._issuers, *confirmed, *(root.der for root in self._inventory.list_trust_roots()))
        return next((der for der in others if _hashes(hash_name, der) == hashes), None), None

    def _own(self, ca: CaRecord, wanted: CertificateHashData, now: datetime) -> StatusResult:
        hash_name = wanted.hash_algorithm.lower()
        subject = self._inventory.find_ocsp_subject(f"{ca.id}:{wanted.serial:x}")
        prepared = None
        if subject is not None and subject.status:
            prepared = self._inventory.find_ocsp_response(subject.id, hash_name)
            if prepared is not None and (prepared.status != subject.status or prepared.next_update <= now):
                prepared = None
        issuer = ca.certificate_der or b""
        if prepared is not None:
            der = prepared.der
        elif self._signers is not None:
            signer = self._signers.signer(ca)
            pair = issuer_hashes(hash_name, ca.subject_der, view_certificate(issuer).key.der)
            answer = SingleAnswer(
                build_cert_id(hash_name, *pair, wanted.serial), cert_status(subject), now, signer.until(now)
            )
            der = signer.sign([answer], produced_at=now)
        else:
            raise NotFound(
                f"there is no prepared OCSP answer about {ca.id}:{wanted.serial:x}",
                why="this process holds no key to sign one",
                fix="run `chargepki serve` or `chargepki ocsp presign` beside it, or csms serve with --issue-here",
            )
        return _result(verify_ocsp_status(der, issuer, wanted.serial, at=now, max_age=MAX_AGE), now, der)

    # -- others ---------------------------------------------------------------------------------------------------

    async def _fetch(
        self, key: _Key, wanted: CertificateHashData, issuer: bytes | None, urls: tuple[str, ...], source: StatusSource
    ) -> StatusResult:
        now = self._clock()
        result = await self._try(wanted, issuer, urls, source, now)
        known = self._cache.get(key)
        if result.word is CertificateWord.FAILED and known is not None and known.word is not CertificateWord.FAILED:
            # What cannot be verified replaces no good answer; that one has run out, so it is not given either.
            return result
        self._cache[key] = result
        self._cache.move_to_end(key)
        while len(self._cache) > _MAX_CACHED:
            self._cache.popitem(last=False)
        return result

    async def _try(
        self,
        wanted: CertificateHashData,
        issuer: bytes | None,
        urls: tuple[str, ...],
        source: StatusSource,
        now: datetime,
    ) -> StatusResult:
        if issuer is None:
            return self._failed("its issuer is not known here, so no answer could be verified", now)
        why, unknown = "no address was named", None
        # Old responders know certificates by SHA-1 alone (ocpp-security 5.3).
        hash_names = (wanted.hash_algorithm.lower(), "sha1") if source is StatusSource.OCSP else ("",)
        for url in urls[:_MAX_URLS]:
            for hash_name in hash_names:
                try:
                    evidence = await self._one(url, hash_name, issuer, wanted.serial, now)
                except UnavailableError as error:
                    why = str(error)
                    break  # it will not answer to another hash either
                except ChargePkiError as error:
                    why = str(error)
                    continue
                result = _result(evidence, now, evidence.der if source is StatusSource.OCSP else None)
                if result.word is not CertificateWord.UNKNOWN:
                    return result
                unknown = unknown or result
        return unknown or self._failed(why, now)

    async def _one(self, url: str, hash_name: str, issuer: bytes, serial: int, now: datetime) -> StatusEvidence:
        if not hash_name:
            crl = await self._fetcher.fetch(url, accept="application/pkix-crl")
            return await self._offload.run(verify_crl_status, crl, issuer, serial, at=now, max_age=MAX_AGE)
        cert_id = build_cert_id(hash_name, *_hashes(hash_name, issuer), serial)
        response = await self._fetcher.fetch(
            url,
            body=build_single_request(cert_id),
            content_type="application/ocsp-request",
            accept="application/ocsp-response",
        )
        return await self._offload.run(verify_ocsp_status, response, issuer, serial, at=now, max_age=MAX_AGE)

    def _failed(self, why: str, now: datetime) -> StatusResult:
        return StatusResult(CertificateWord.FAILED, now + _FAILED_FOR, why=why)


def _hashes(hash_name: str, issuer_der: bytes) -> tuple[bytes, bytes]:
    try:
        view = view_certificate(issuer_der)
        return issuer_hashes(hash_name, view.subject, view.key.der)
    except ChargePkiError:
        return b"", b""


def _result(evidence: StatusEvidence, now: datetime, der: bytes | None) -> StatusResult:
    word = {"good": CertificateWord.GOOD, "revoked": CertificateWord.REVOKED}.get(
        evidence.status, CertificateWord.UNKNOWN
    )
    until = min(evidence.next_update or now, now + MAX_AGE)
    return StatusResult(word, until, der)
