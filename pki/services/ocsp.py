"""The OCSP responder: prepared answers from memory, the rest from the inventory, live ones where a key is at hand.

RFC 6960, RFC 5019 (lightweight profile, caching), RFC 9654 (nonce). Errors of the protocol travel in HTTP 200, as
RFC 6960 A.2 has it: they are answers.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import itertools
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, TypeVar, TypeVarTuple, Unpack
from urllib.parse import unquote_to_bytes

from chargepki.pki.authority.ocsp import PRESIGNED_HASHES, OcspSigner, cert_status, ocsp_cas
from chargepki.pki.certificate_view import view_certificate
from chargepki.pki.der import DerError
from chargepki.pki.errors import ChargePkiError, UnavailableError
from chargepki.pki.inventory import Inventory
from chargepki.pki.inventory.ocsp_records import OcspResponseRecord, OcspSubject
from chargepki.pki.inventory.records import AuditEntry, CaRecord, CertificateState
from chargepki.pki.keys import KeyAlgorithm
from chargepki.pki.ocsp import (
    HASH_OIDS,
    MAX_REQUEST_BYTES,
    CertId,
    OcspRequest,
    ResponseStatus,
    ResponseTemplate,
    SingleAnswer,
    build_cert_id,
    error_response,
    issuer_hashes,
    parse_ocsp_request,
)
from chargepki.pki.services.http import Request, Response, http_date, refuse_method
from chargepki.pki.services.tally import Tally

__all__ = ["OcspResponder", "Signers"]

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")
_log = logging.getLogger(__name__)

Signers = Callable[[CaRecord], OcspSigner | None]
"""Returns the delegated signer of a CA, or ``None`` where this process cannot sign for it; may block."""

_CONTENT_TYPE: Final = "application/ocsp-response"
_MAX_AGE: Final = 3600
"""Seconds that caches may keep a prepared answer: far less than it is valid, so that a revocation gets through."""
_RELOAD_SECONDS: Final = 60.0
_PAGE: Final = 500
_MAX_REQUESTS_REMEMBERED: Final = 100_000
_MAX_RESPONSE_MEMORY: Final = 128 << 20
_MAX_UNDER_WAY: Final = 512
"""Requests that wait for the inventory at once; more are told to try later."""
_UNKNOWN_VALIDITY: Final = timedelta(minutes=5)
"""A serial that is unknown now may be issued the next moment."""
_MAX_NONCE_LENGTHS: Final = 8
_QUICK: Final = frozenset({KeyAlgorithm.SECP256R1, KeyAlgorithm.ED25519})
"""Keys that sign in less time than a thread takes to start with it."""


@dataclass(slots=True, eq=False)
class _Prepared:
    """A prepared answer in memory; without a response it is dead, wherever it is still referred to."""

    response: Response | None
    key: tuple[str, str]
    """Certificate and hash."""
    signer: str
    word: str
    until: float
    """Its nextUpdate (POSIX seconds): never sent from then on."""
    reload_at: float
    size: int


@dataclass(frozen=True, slots=True)
class _Known:
    """A request but for its nonce, and whom it asks about."""

    cert_id: bytes
    certificate: str
    ca: str
    size: int
    """Of the whole request, in octets."""


@dataclass(frozen=True, slots=True)
class _Issuer:
    """One CA generation that is answered for."""

    ca: CaRecord
    hashes: dict[str, tuple[bytes, bytes]]


class OcspResponder:
    """Answers OCSP requests; for one event loop.

    Args:
        signers: signs live; without it only prepared answers are given, and a nonce is passed over (RFC 9654 2.1
            leaves that to the responder).
    """

    def __init__(
        self,
        inventory: Inventory,
        *,
        signers: Signers | None = None,
        tally: Tally | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC).replace(microsecond=0),
    ) -> None:
        self._inventory = inventory
        self._signers = signers
        self._tally = tally or Tally()
        self._clock = clock
        self._issuers: dict[tuple[str, bytes, bytes], tuple[_Issuer, ...]] | None = None
        self._by_request: dict[bytes, _Prepared] = {}
        self._prepared: dict[tuple[str, str], _Prepared] = {}
        self._memory = 0
        self._statuses: dict[str, OcspSubject | None] = {}
        self._live: dict[str, tuple[float, OcspSigner | None]] = {}
        # What was read before a change may arrive here after it: each reading is stamped, each change remembered.
        self._generation = 0
        self._forgotten = 0
        self._changed: dict[str, int] = {}
        self._templates: dict[bytes, _Known] = {}
        self._nonce_lengths: tuple[int, ...] = ()
        self._second: tuple[OcspSigner, datetime, ResponseTemplate] | None = None
        self._under_way = 0
        self._executor = ThreadPoolExecutor(max_workers=4, thread_name_prefix="chargepki-ocsp")
        self._errors = {status: _error(status) for status in ResponseStatus if status}

    # -- what changes ---------------------------------------------------------------------------------------------

    def apply(self, entries: Sequence[AuditEntry] | None) -> None:
        """Forget what these changes made untrue; everything with ``None``."""
        self._generation += 1
        if entries is None:
            self._forget_all()
            return
        for entry in entries:
            for table, key, _ in entry.effects:
                if table == "certificate":
                    self._forget(key)
                elif table == "ca":
                    self._forget_all()

    def _forget(self, certificate: str) -> None:
        if len(self._changed) >= _MAX_REQUESTS_REMEMBERED:
            self._changed.clear()
            self._forgotten = self._generation
        self._changed[certificate] = self._generation
        self._statuses.pop(certificate, None)
        for hash_name in PRESIGNED_HASHES:
            self._kill((certificate, hash_name))
        ca = certificate.rpartition(":")[0]
        signer = self._live.get(ca)
        if signer is not None and signer[1] is not None and signer[1].certificate == certificate:
            # A signer lost its status: what it has signed goes with it.
            del self._live[ca]
            for key in [key for key, each in self._prepared.items() if each.signer == certificate]:
                self._kill(key)

    def _kill(self, key: tuple[str, str]) -> None:
        dead = self._prepared.pop(key, None)
        if dead is not None:
            dead.response = None
            self._memory -= dead.size

    def _forget_all(self) -> None:
        for prepared in self._prepared.values():
            prepared.response = None
        self._prepared.clear()
        self._by_request.clear()
        self._templates.clear()
        self._second = None
        self._statuses.clear()
        self._live.clear()
        self._changed.clear()
        self._forgotten = self._generation
        self._memory = 0
        self._issuers = None

    # -- answers --------------------------------------------------------------------------------------------------

    def find(self, request: Request, key: bytes, *, is_current: bool) -> Response | None:
        """Return the answer to a request like one that was answered before, if that takes next to no time.

        Args:
            key: the DER of a POST, or the target of a GET.
            is_current: as for `answer`.
        """
        prepared = self._by_request.get(key)
        if prepared is None:
            # What is not known to be true now is not signed as if it were.
            return self._sign_quickly(key) if is_current and self._templates and request.method == "POST" else None
        now = time.time()
        if prepared.response is None or now >= prepared.reload_at:
            del self._by_request[key]
            return None
        self._tally.count_ocsp(prepared.word, "memory")
        return self._conditional(request, prepared.response)

    def _sign_quickly(self, data: bytes) -> Response | None:
        """Answer a request that differs in its nonce alone from one that was answered live before.

        The nonce is the last thing in such a request, so equal octets before it and equal lengths mean that all of it
        is the same but the nonce.
        """
        for length in self._nonce_lengths:
            known = self._templates.get(data[:-length])
            if known is None or len(data) != known.size:
                continue
            subject = self._statuses.get(known.certificate)
            live = self._live.get(known.ca)
            if subject is None or live is None or live[1] is None or live[0] <= time.monotonic():
                return None
            signer, now = live[1], self._clock()
            if self._second is None or self._second[:2] != (signer, now):
                if now >= signer.not_after:
                    return None
                self._second = (signer, now, signer.template(now))
            template = self._second[2]
            status = cert_status(subject)
            content = template.response_data(known.cert_id, status, data[-length:])
            self._tally.count_ocsp(status.word, "live")
            body = template.assemble(content, signer.signer.sign(content))
            return Response(200, body, _LIVE_HEADERS, "ocsp", status.word)
        return None

    def _learn(self, data: bytes, parsed: OcspRequest, subject: OcspSubject | None, signer: OcspSigner) -> None:
        """Remember how a request is made whose nonce comes last, for `_sign_quickly`."""
        nonce = parsed.nonce
        if nonce is None or len(parsed.cert_ids) != 1 or not data.endswith(nonce) or subject is None:
            return
        if not subject.status or signer.signer.algorithm not in _QUICK:
            return
        if len(nonce) not in self._nonce_lengths and len(self._nonce_lengths) >= _MAX_NONCE_LENGTHS:
            return
        if len(self._templates) >= _MAX_REQUESTS_REMEMBERED:
            self._templates.clear()
        self._nonce_lengths = tuple(sorted({*self._nonce_lengths, len(nonce)}))
        known = _Known(parsed.cert_ids[0].raw, subject.id, signer.ca.id, len(data))
        self._templates[data[: -len(nonce)]] = known

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
            signer = await self._signer(known[0], subjects)
            if signer is not None:
                if request.method == "POST":
                    self._learn(request.body, parsed, subjects[0], signer)
                return await self._sign(signer, parsed, subjects)
        if single is not None:
            prepared = await self._prepared_for(single.hash_name, subjects[0], is_current)
            if prepared is not None and prepared.response is not None:
                self._tally.count_ocsp(prepared.word, "store")
                if wants_live:
                    return prepared.response  # without the nonce: the client decides whether that will do
                self._remember(key, prepared)
                return self._conditional(request, prepared.response)
        if not is_current:
            return self._error(ResponseStatus.TRY_LATER)
        signer = await self._signer(known[0], subjects)
        if signer is not None:
            return await self._sign(signer, parsed, subjects)
        if single is not None and subjects[0] is not None and subjects[0].status:
            return self._error(ResponseStatus.TRY_LATER)  # whoever leads has not signed it yet
        return self._error(ResponseStatus.UNAUTHORIZED)

    async def _index(self) -> dict[tuple[str, bytes, bytes], tuple[_Issuer, ...]]:
        if self._issuers is None:
            token = self._generation
            found = await self._run(self._read_index)
            if self._forgotten <= token:
                self._issuers = found
            return found
        return self._issuers

    def _read_index(self) -> dict[tuple[str, bytes, bytes], tuple[_Issuer, ...]]:
        index: dict[tuple[str, bytes, bytes], tuple[_Issuer, ...]] = {}
        for ca in ocsp_cas(self._inventory, self._clock()):
            if ca.certificate_der is None:
                continue
            spki = view_certificate(ca.certificate_der).key.der
            issuer = _Issuer(ca, {name: issuer_hashes(name, ca.subject_der, spki) for name in HASH_OIDS})
            for name, pair in issuer.hashes.items():
                # Generations that share name and key cannot be told apart by a CertID, so each is looked into.
                index[name, *pair] = (*index.get((name, *pair), ()), issuer)
        return index

    def _issuers_of(
        self, index: dict[tuple[str, bytes, bytes], tuple[_Issuer, ...]], cert_id: CertId
    ) -> tuple[_Issuer, ...]:
        found = index.get((cert_id.hash_name, cert_id.name_hash, cert_id.key_hash), ())
        now = self._clock()
        return tuple(issuer for issuer in found if issuer.ca.not_after is not None and now < issuer.ca.not_after)

    async def _subject(self, issuers: tuple[_Issuer, ...], serial: int, is_current: bool) -> OcspSubject | None:
        """Return what is recorded under this serial by any of *issuers*."""
        if serial <= 0:
            return None
        for issuer in issuers:
            certificate = f"{issuer.ca.id}:{serial:x}"
            if certificate in self._statuses:
                subject = self._statuses[certificate]
            elif not is_current:
                # Prepared answers are found by the certificate alone.
                subject = self._from_memory(certificate)
            else:
                token = self._generation
                subject = await self._run(self._inventory.find_ocsp_subject, certificate)
                if subject is not None and self._is_unchanged(certificate, token):
                    if len(self._statuses) >= _MAX_REQUESTS_REMEMBERED:
                        self._statuses.clear()
                    self._statuses[certificate] = subject
            if subject is not None:
                return subject
        return None

    def _from_memory(self, certificate: str) -> OcspSubject | None:
        if not any((certificate, name) in self._prepared for name in PRESIGNED_HASHES):
            return None
        ca, _, serial = certificate.rpartition(":")
        return OcspSubject(certificate, ca, serial, CertificateState.ISSUED, None, None, self._clock())

    async def _prepared_for(self, hash_name: str, subject: OcspSubject | None, is_current: bool) -> _Prepared | None:
        """Return the prepared answer about *subject*, from memory or from the inventory."""
        if subject is None or not subject.status or hash_name not in PRESIGNED_HASHES:
            return None
        known = self._prepared.get((subject.id, hash_name))
        now = time.time()
        if known is not None and now < known.until and (now < known.reload_at or not is_current):
            return known
        if not is_current:
            return None
        token = self._generation
        record = await self._run(self._inventory.find_ocsp_response, subject.id, hash_name)
        if record is None or record.status != subject.status or record.next_update <= self._clock():
            return None
        prepared = self._prepare(record)
        if self._is_unchanged(record.certificate, token):
            self._keep(prepared)
        return prepared

    def _prepare(self, record: OcspResponseRecord) -> _Prepared:
        now, until = time.time(), record.next_update.timestamp()
        left = max(0, int(until - now))
        headers = (
            ("Content-Type", _CONTENT_TYPE),
            ("Cache-Control", f"max-age={min(_MAX_AGE, left)}, public, no-transform, must-revalidate"),
            ("Expires", http_date(record.next_update)),
            ("Last-Modified", http_date(record.this_update)),
            ("ETag", f'"{hashlib.sha256(record.der).hexdigest()}"'),
        )
        response = Response(200, record.der, headers, "ocsp", record.status.partition(" ")[0])
        # Before max-age would reach past nextUpdate, and when a successor should be there, the row is read again.
        reload_at = min(until - _MAX_AGE, max(record.refresh_at.timestamp(), now + _RELOAD_SECONDS))
        if reload_at <= now:
            reload_at = min(now + 1.0, until)
        size = len(record.der) + len(response.head) + 600
        key = (record.certificate, record.hash)
        return _Prepared(response, key, record.signer, response.outcome, until, reload_at, size)

    def _keep(self, prepared: _Prepared) -> None:
        self._kill(prepared.key)
        while self._memory + prepared.size > _MAX_RESPONSE_MEMORY and self._prepared:
            self._kill(next(iter(self._prepared)))
        self._prepared[prepared.key] = prepared
        self._memory += prepared.size

    def _remember(self, request_key: bytes, prepared: _Prepared) -> None:
        if self._prepared.get(prepared.key) is not prepared:
            return
        if len(self._by_request) >= _MAX_REQUESTS_REMEMBERED:
            self._by_request.clear()
        self._by_request[request_key] = prepared

    def _is_unchanged(self, certificate: str, token: int) -> bool:
        """Whether what was read of a certificate after *token* was taken is still true as far as is known."""
        return self._forgotten <= token and self._changed.get(certificate, 0) <= token

    async def _signer(self, issuers: tuple[_Issuer, ...], subjects: Sequence[OcspSubject | None]) -> OcspSigner | None:
        if self._signers is None:
            return None
        first = next((subject.ca for subject in subjects if subject is not None), issuers[0].ca.id)
        ca = next(issuer.ca for issuer in issuers if issuer.ca.id == first)
        now = time.monotonic()
        known = self._live.get(ca.id)
        if known is not None and now < known[0] and (known[1] is None or self._clock() < known[1].not_after):
            return known[1]
        token = self._generation
        try:
            signer = await self._run(self._signers, ca)
        except UnavailableError:
            raise
        except ChargePkiError as error:
            _log.warning("no live answers for %s: %s", ca.id, error)
            signer = None
        if self._forgotten <= token and (signer is None or self._is_unchanged(signer.certificate, token)):
            # Soon again when there is none: the leader may just be making one.
            self._live[ca.id] = (now + (_RELOAD_SECONDS if signer is not None else 1.0), signer)
        return signer

    async def _sign(self, signer: OcspSigner, parsed: OcspRequest, subjects: Sequence[OcspSubject | None]) -> Response:
        now = self._clock()
        answers = []
        for cert_id, subject in zip(parsed.cert_ids, subjects, strict=True):
            status = cert_status(subject)
            until = signer.until(now) if status.known else min(now + _UNKNOWN_VALIDITY, signer.until(now))
            answers.append(SingleAnswer(cert_id.raw, status, now, until))

        def sign() -> bytes:
            return signer.sign(answers, produced_at=now, nonce=parsed.nonce)

        body = sign() if signer.signer.algorithm in _QUICK else await self._run(sign)
        for answer in answers:
            self._tally.count_ocsp(answer.status.word, "live")
        return Response(200, body, _LIVE_HEADERS, "ocsp", answers[0].status.word)

    def _conditional(self, request: Request, response: Response) -> Response:
        """Return 304 to a client that has this answer already (RFC 9110 13.1.2)."""
        if request.method == "POST":
            return response
        wanted = request.header(b"if-none-match")
        if wanted is None:
            return response
        tag = dict(response.headers)["ETag"]
        if wanted.strip() == b"*" or tag.encode() in wanted:
            return Response(304, b"", response.headers[1:], "ocsp", response.outcome)
        return response

    def _error(self, status: ResponseStatus) -> Response:
        self._tally.count_ocsp(status.name.lower(), "error")
        return self._errors[status]

    async def _run(self, work: Callable[[Unpack[_Ts]], _T], *arguments: *_Ts) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work, *arguments)

    @property
    def memory_bytes(self) -> int:
        """About how much memory prepared answers take."""
        return self._memory

    # -- memory ---------------------------------------------------------------------------------------------------

    async def preload(self) -> int:
        """Take prepared answers into memory, as many as fit, for the time when the inventory is away."""
        taken = 0
        records = self._inventory.list_ocsp_responses()
        while True:
            token = self._generation
            page = await self._run(lambda: list(itertools.islice(records, _PAGE)))
            for record in page:
                key = (record.certificate, record.hash)
                fits = self._memory < _MAX_RESPONSE_MEMORY * 9 // 10
                if key in self._prepared or record.next_update <= self._clock() or not fits:
                    continue
                if self._is_unchanged(record.certificate, token):
                    self._keep(self._prepare(record))
                    taken += 1
            if len(page) < _PAGE:
                return taken

    def close(self) -> None:
        """Stop the threads."""
        self._executor.shutdown(wait=False, cancel_futures=True)


_LIVE_HEADERS: Final = (("Content-Type", _CONTENT_TYPE), ("Cache-Control", "no-store"))


def _error(status: ResponseStatus) -> Response:
    headers: tuple[tuple[str, str], ...] = _LIVE_HEADERS
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
