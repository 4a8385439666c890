"""The OCSP responder: prepared answers from memory, the rest from the inventory, live ones where a key is at hand.

RFC 6960, RFC 5019 (lightweight profile, caching), RFC 9654 (nonce). Errors of the protocol travel in HTTP 200, as
RFC 6960 A.2 has it: they are answers.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import itertools
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, TypeAlias, TypeVar, TypeVarTuple, Unpack
from urllib.parse import unquote_to_bytes

from chargepki.pki.authority.ocsp import PRESIGNED_HASHES, RESPONDER_ACCEPTED, OcspSigner, ocsp_cas
from chargepki.pki.certificate_view import view_certificate
from chargepki.pki.der import DerError
from chargepki.pki.errors import ChargePkiError, SignerError, UnavailableError
from chargepki.pki.inventory import Inventory
from chargepki.pki.inventory.ocsp_records import OcspResponseRecord, OcspSubject
from chargepki.pki.inventory.records import AuditEntry, CaRecord
from chargepki.pki.ocsp import (
    HASH_OIDS,
    MAX_REQUEST_BYTES,
    CertId,
    OcspRequest,
    ResponseStatus,
    build_cert_id,
    error_response,
    issuer_hashes,
    parse_ocsp_request,
)
from chargepki.pki.services.http import Request, Response, if_none_match, refuse_method
from chargepki.pki.services.ocsp_live import LIVE_HEADERS, LiveAnswers, Signers
from chargepki.pki.services.ocsp_memory import DEFAULT_MEMORY_BYTES, AnswerMemory, PreparedAnswer
from chargepki.pki.services.tally import Tally

__all__ = ["OcspResponder", "Signers"]

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")
_log = logging.getLogger(__name__)

_PAGE: Final = 500
_REFILL: Final = 100
_MAX_UNDER_WAY: Final = 512
"""Requests that wait for the inventory at once; more are told to try later."""


@dataclass(frozen=True, slots=True)
class _Issuer:
    """One CA generation that is answered for."""

    ca: CaRecord
    hashes: dict[str, tuple[bytes, bytes]]


_Index: TypeAlias = dict[tuple[str, bytes, bytes], tuple[_Issuer, ...]]
"""By hash algorithm, hash of the name, hash of the key."""


class OcspResponder:
    """Answers OCSP requests; for one event loop.

    Args:
        signers: signs live; without it only prepared answers are given, and a nonce is passed over (RFC 9654 2.1
            leaves that to the responder).
        memory_bytes: what prepared answers may take in memory.
    """

    def __init__(
        self,
        inventory: Inventory,
        *,
        signers: Signers | None = None,
        tally: Tally | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC).replace(microsecond=0),
        memory_bytes: int = DEFAULT_MEMORY_BYTES,
    ) -> None:
        self._inventory = inventory
        self._tally = tally or Tally()
        self._clock = clock
        self._memory = AnswerMemory(lambda: self._clock(), max_bytes=memory_bytes)
        self._live = LiveAnswers(signers, self._memory, self._tally, lambda: self._clock(), self._run)
        self._issuers: _Index | None = None
        self._under_way = 0
        self._executor = ThreadPoolExecutor(max_workers=4, thread_name_prefix="chargepki-ocsp")
        self._errors = {status: _error(status) for status in ResponseStatus if status}

    # -- what changes ---------------------------------------------------------------------------------------------

    def apply(self, entries: Sequence[AuditEntry] | None) -> None:
        """Forget what these changes made untrue; everything with ``None``."""
        self._memory.generation += 1
        if entries is None:
            self._forget_all()
            return
        for entry in entries:
            if entry.action == RESPONDER_ACCEPTED:
                self._forget_all()
            for table, key, _ in entry.effects:
                if table == "certificate":
                    self._memory.forget(key)
                    if self._live.forget(key):
                        # A signer lost its status: what it has signed goes with it.
                        self._memory.forget_signed_by(key)
                elif table == "ca":
                    self._forget_all()

    def _forget_all(self) -> None:
        self._memory.forget_all()
        self._live.forget_all()
        self._issuers = None

    # -- answers --------------------------------------------------------------------------------------------------

    def find(self, request: Request, key: bytes, *, is_current: bool) -> Response | None:
        """Return the answer to a request like one that was answered before, if that takes next to no time.

        Args:
            key: the DER of a POST, or the target of a GET.
            is_current: as for `answer`.
        """
        prepared = self._memory.by_request.get(key)
        if prepared is None:
            # What is not known to be true now is not signed as if it were.
            return self._live.sign_quickly(key) if is_current and request.method == "POST" else None
        now = time.time()
        if prepared.response is None or now >= prepared.reload_at:
            del self._memory.by_request[key]
            return None
        self._tally.count_ocsp(prepared.word, "memory")
        return _conditional(request, prepared.response)

    async def answer(self, request: Request, *, is_current: bool) -> Response:
        """Answer any request to the responder.

        Args:
            is_current: whether the inventory was reached since the request came in; otherwise nothing is signed.
        """
        if request.method == "POST":
            key = data = request.body
        elif request.method in ("GET", "HEAD"):
            key, found = request.target, _decode_get(request.target)
            if found is None:
                return self._error(ResponseStatus.MALFORMED_REQUEST)
            data = found
        else:
            return refuse_method("GET, POST", "ocsp")
        if not 0 < len(data) <= MAX_REQUEST_BYTES:
            return self._error(ResponseStatus.MALFORMED_REQUEST)
        try:
            parsed = parse_ocsp_request(data)
        except DerError:
            return self._error(ResponseStatus.MALFORMED_REQUEST)
        if self._under_way >= _MAX_UNDER_WAY:
            return self._error(ResponseStatus.TRY_LATER)
        self._under_way += 1
        try:
            return await self._answer(request, key, parsed, is_current)
        except UnavailableError:
            return self._error(ResponseStatus.TRY_LATER)
        except ChargePkiError as error:
            _log.error("cannot answer: %s", error, extra={"request_id": request.id})
            return self._error(ResponseStatus.INTERNAL_ERROR)
        finally:
            self._under_way -= 1

    async def _answer(self, request: Request, key: bytes, parsed: OcspRequest, is_current: bool) -> Response:
        index = await self._index()
        resolved = [(each, self._issuers_of(index, each)) for each in parsed.cert_ids]
        known = [issuers for _, issuers in resolved if issuers]
        if not known or any(issuers is not known[0] and issuers != known[0] for issuers in known):
            # Nobody we answer for, or certificates of several CAs, none of whose signers may answer for the others
            # (RFC 6960 4.2.2.2): not capable of responding authoritatively (RFC 6960 2.3, RFC 5019 2.2.3).
            return self._error(ResponseStatus.UNAUTHORIZED)
        single = parsed.cert_ids[0] if len(parsed.cert_ids) == 1 else None
        subjects = [
            await self._subject(issuers, each.serial, is_current) if issuers else None for each, issuers in resolved
        ]
        wants_live = parsed.nonce is not None or single is None or not _is_usual(single)
        if wants_live and is_current:
            post = request.body if request.method == "POST" else None
            live = await self._sign_live(known[0], parsed, subjects, post=post)
            if live is not None:
                return live
        if single is not None:
            prepared = await self._prepared_for(single.hash_name, subjects[0], is_current)
            response = None if prepared is None else prepared.bounded()
            if prepared is not None and response is not None:
                self._tally.count_ocsp(prepared.word, "store")
                if wants_live:
                    return response  # without the nonce: the client decides whether that will do
                self._memory.remember(key, prepared)
                return _conditional(request, response)
        if not is_current:
            return self._error(ResponseStatus.TRY_LATER)
        live = await self._sign_live(known[0], parsed, subjects)
        if live is not None:
            return live
        if single is not None and subjects[0] is not None and subjects[0].status:
            return self._error(ResponseStatus.TRY_LATER)  # whoever leads has not signed it yet
        return self._error(ResponseStatus.UNAUTHORIZED)

    async def _index(self) -> _Index:
        if self._issuers is None:
            token = self._memory.generation
            found = await self._run(self._read_index)
            if self._memory.is_unforgotten(token):
                self._issuers = found
            return found
        return self._issuers

    def _read_index(self) -> _Index:
        index: _Index = {}
        for ca in ocsp_cas(self._inventory, self._clock()):
            if ca.certificate_der is None:
                continue
            spki = view_certificate(ca.certificate_der).key.der
            issuer = _Issuer(ca, {name: issuer_hashes(name, ca.subject_der, spki) for name in HASH_OIDS})
            for name, pair in issuer.hashes.items():
                # Generations that share name and key cannot be told apart by a CertID, so each is looked into.
                index[name, *pair] = (*index.get((name, *pair), ()), issuer)
        return index

    def _issuers_of(self, index: _Index, cert_id: CertId) -> tuple[_Issuer, ...]:
        found = index.get((cert_id.hash_name, cert_id.name_hash, cert_id.key_hash), ())
        now = self._clock()
        return tuple(issuer for issuer in found if issuer.ca.not_after is not None and now < issuer.ca.not_after)

    async def _subject(self, issuers: tuple[_Issuer, ...], serial: int, is_current: bool) -> OcspSubject | None:
        """Return what is recorded under this serial by any of *issuers*."""
        if serial <= 0:
            return None
        for issuer in issuers:
            certificate = f"{issuer.ca.id}:{serial:x}"
            subject = self._memory.statuses.get(certificate)
            if subject is None and not is_current:
                # Prepared answers are found by the certificate alone.
                subject = self._memory.subject(certificate)
            elif subject is None:
                token = self._memory.generation
                subject = await self._run(self._inventory.find_ocsp_subject, certificate)
                if subject is not None:
                    self._memory.keep_status(certificate, subject, token)
            if subject is not None:
                return subject
        return None

    async def _prepared_for(
        self, hash_name: str, subject: OcspSubject | None, is_current: bool
    ) -> PreparedAnswer | None:
        """Return the prepared answer about *subject*, from memory or from the inventory."""
        if subject is None or not subject.status or hash_name not in PRESIGNED_HASHES:
            return None
        known = self._memory.find(subject.id, hash_name)
        now = time.time()
        if known is not None and now < known.until and (now < known.reload_at or not is_current):
            return known
        if not is_current:
            return None
        token = self._memory.generation
        record = await self._run(self._inventory.find_ocsp_response, subject.id, hash_name)
        if record is None or record.status != subject.status or record.next_update <= self._clock():
            return None
        prepared = self._memory.prepare(record)
        self._memory.keep(prepared, token)
        return prepared

    async def _signer(self, issuers: tuple[_Issuer, ...], subjects: Sequence[OcspSubject | None]) -> OcspSigner | None:
        first = next((subject.ca for subject in subjects if subject is not None), issuers[0].ca.id)
        return await self._live.signer(next(issuer.ca for issuer in issuers if issuer.ca.id == first))

    async def _sign_live(
        self,
        issuers: tuple[_Issuer, ...],
        parsed: OcspRequest,
        subjects: Sequence[OcspSubject | None],
        *,
        post: bytes | None = None,
    ) -> Response | None:
        """Return an answer that is signed now; ``None`` where nobody can sign: no key here, or its token is away."""
        signer = await self._signer(issuers, subjects)
        if signer is None:
            return None
        try:
            response = await self._live.sign(signer, parsed, subjects)
        except SignerError as error:
            self._live.suspend(signer, error)
            return None
        if post is not None:
            self._live.learn(post, parsed, subjects[0], signer)
        return response

    def _error(self, status: ResponseStatus) -> Response:
        self._tally.count_ocsp(status.name.lower(), "error")
        return self._errors[status]

    async def _run(self, work: Callable[[Unpack[_Ts]], _T], *arguments: *_Ts) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work, *arguments)

    @property
    def memory_bytes(self) -> int:
        """About how much memory prepared answers take."""
        return self._memory.bytes

    # -- memory ---------------------------------------------------------------------------------------------------

    async def preload(self) -> int:
        """Take prepared answers into memory, as many as fit, for the time when the inventory is away."""
        taken = 0
        records = self._inventory.list_ocsp_responses()
        while True:
            token = self._memory.generation
            page = await self._run(lambda: list(itertools.islice(records, _PAGE)))
            taken += self._take_in(iter(page), token)
            if len(page) < _PAGE:
                return taken

    async def refill(self) -> int:
        """Take in the new answers about certificates that have changed: the inventory may be away the next moment.

        Raises:
            UnavailableError: it is away already.
        """
        await self._index()
        wanted = self._memory.take_wanted(_REFILL)
        token = self._memory.generation
        try:
            found = await self._run(self._read_responses, list(wanted)) if wanted else {}
        except UnavailableError:
            for certificate, tries in wanted.items():
                self._memory.want(certificate, tries)
            raise
        for certificate, tries in wanted.items():
            if not found.get(certificate):
                self._memory.want(certificate, tries + 1)  # whoever leads may not have signed it yet
        return self._take_in(itertools.chain.from_iterable(found.values()), token)

    def _read_responses(self, certificates: Sequence[str]) -> dict[str, list[OcspResponseRecord]]:
        read = self._inventory.find_ocsp_response
        return {
            each: [found for name in PRESIGNED_HASHES if (found := read(each, name)) is not None]
            for each in certificates
        }

    def _take_in(self, records: Iterator[OcspResponseRecord], token: int) -> int:
        taken = 0
        for record in self._memory.lacking(records):
            self._memory.keep(self._memory.prepare(record), token)
            taken += 1
        return taken

    def close(self) -> None:
        """Stop the threads."""
        self._executor.shutdown(wait=False, cancel_futures=True)


def _conditional(request: Request, response: Response) -> Response:
    return response if request.method == "POST" else if_none_match(request, response)


def _error(status: ResponseStatus) -> Response:
    headers: tuple[tuple[str, str], ...] = LIVE_HEADERS
    if status is ResponseStatus.TRY_LATER:
        headers = (*headers, ("Retry-After", "5"))
    return Response(200, error_response(status), headers, "ocsp", status.name.lower())


def _is_usual(cert_id: CertId) -> bool:
    """Whether prepared answers repeat exactly these octets (RFC 6960 4.2.1)."""
    name = cert_id.hash_name
    return name in PRESIGNED_HASHES and cert_id.raw == build_cert_id(
        name, cert_id.name_hash, cert_id.key_hash, cert_id.serial
    )


def _decode_get(target: bytes) -> bytes | None:
    """Return the request of ``/ocsp/{url-encoding of base64}`` (RFC 6960 A.1); ``None`` when it is none."""
    path = target.partition(b"?")[0]
    encoded = unquote_to_bytes(path[path.find(b"/ocsp/") + len(b"/ocsp/") :])
    try:
        # Some clients leave the padding out, and some proxies decode %2B to a blank.
        encoded = encoded.replace(b" ", b"+").rstrip(b"=")
        return base64.b64decode(encoded + b"=" * (-len(encoded) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None
