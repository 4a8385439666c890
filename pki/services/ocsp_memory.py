"""What the responder remembers: prepared answers and the status of certificates, each no older than the last change.

What was read before a change may arrive here after it. So each reading is stamped with the `generation` in which it
began, and each change is remembered: what is older than it is not kept.
"""

from __future__ import annotations

import hashlib
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from chargepki.pki.authority.ocsp import PRESIGNED_HASHES
from chargepki.pki.inventory.ocsp_records import OcspResponseRecord, OcspSubject
from chargepki.pki.inventory.records import CertificateState
from chargepki.pki.services.http import Response, http_date, with_max_age

__all__ = ["CONTENT_TYPE", "DEFAULT_MEMORY_BYTES", "MAX_KEY_BYTES", "AnswerMemory", "PreparedAnswer"]

CONTENT_TYPE: Final = "application/ocsp-response"
_MAX_AGE: Final = 3600
"""Seconds that caches may keep a prepared answer: far less than it is valid, so that a revocation gets through."""
_RELOAD_SECONDS: Final = 60.0
_MAX_REMEMBERED: Final = 100_000
DEFAULT_MEMORY_BYTES: Final = 128 << 20
MAX_KEY_BYTES: Final = 256
"""Requests are remembered by their octets up to this length. Ours have 80 to 130; a peer may pad them to kilobytes."""
_OBJECT_BYTES: Final = 1300
"""What an answer in memory takes besides its DER and its header, measured."""
_MAX_WANTED: Final = 5000
"""After more changes than these at once, the next preloading is the cheaper way back."""
_MAX_TRIES: Final = 20
"""Whoever leads signs within seconds; a certificate that has no answer by then is one that gets none."""


@dataclass(slots=True, eq=False)
class PreparedAnswer:
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

    def bounded(self) -> Response | None:
        """Return the response, such that no cache keeps it longer than it is valid."""
        left = self.until - time.time()
        if self.response is None or left >= _MAX_AGE:
            return self.response
        return with_max_age(self.response, max(0, int(left)))


class AnswerMemory:
    """For one event loop.

    Args:
        max_bytes: what prepared answers may take, about; when they take it, the oldest make room.
    """

    def __init__(self, clock: Callable[[], datetime], *, max_bytes: int = DEFAULT_MEMORY_BYTES) -> None:
        self._clock = clock
        self._max_bytes = max_bytes
        self.generation = 0
        self.by_request: dict[bytes, PreparedAnswer] = {}
        """By the DER of a POST or the target of a GET."""
        self.statuses: dict[str, OcspSubject] = {}
        self.bytes = 0
        """About how much memory prepared answers take."""
        self._prepared: dict[tuple[str, str], PreparedAnswer] = {}
        self._forgotten = 0
        self._changed: dict[str, int] = {}
        self._wanted: dict[str, int] = {}

    # -- changes ----------------------------------------------------------------------------------------------------

    def forget(self, certificate: str) -> None:
        """Drop what is known about a certificate that has changed in this generation."""
        if len(self._changed) >= _MAX_REMEMBERED:
            self._changed.clear()
            self._forgotten = self.generation
        self._changed[certificate] = self.generation
        self.statuses.pop(certificate, None)
        for hash_name in PRESIGNED_HASHES:
            self._kill((certificate, hash_name))
        self.want(certificate, 0)

    def forget_signed_by(self, signer: str) -> None:
        """Drop the answers that a signer has signed which lost its status."""
        for key in [key for key, each in self._prepared.items() if each.signer == signer]:
            self._kill(key)

    def forget_all(self) -> None:
        """Drop everything."""
        for prepared in self._prepared.values():
            prepared.response = None
        for known in (self._prepared, self.by_request, self.statuses, self._changed, self._wanted):
            known.clear()
        self._forgotten = self.generation
        self.bytes = 0

    def is_unchanged(self, certificate: str, token: int) -> bool:
        """Whether what was read of a certificate since generation *token* is still true as far as is known."""
        return self._forgotten <= token and self._changed.get(certificate, 0) <= token

    def is_unforgotten(self, token: int) -> bool:
        """Whether not everything was dropped since generation *token*."""
        return self._forgotten <= token

    def _kill(self, key: tuple[str, str]) -> None:
        dead = self._prepared.pop(key, None)
        if dead is not None:
            dead.response = None
            self.bytes -= dead.size

    # -- contents ---------------------------------------------------------------------------------------------------

    def find(self, certificate: str, hash_name: str) -> PreparedAnswer | None:
        """Return the prepared answer about a certificate, however old."""
        return self._prepared.get((certificate, hash_name))

    def keep(self, prepared: PreparedAnswer, token: int) -> None:
        """Take in an answer that was read since generation *token*, if nothing has changed; the oldest make room."""
        if not self.is_unchanged(prepared.key[0], token):
            return
        self._kill(prepared.key)
        while self.bytes + prepared.size > self._max_bytes and self._prepared:
            self._kill(next(iter(self._prepared)))
        self._prepared[prepared.key] = prepared
        self.bytes += prepared.size

    def keep_status(self, certificate: str, subject: OcspSubject, token: int) -> None:
        """Take in a status that was read since generation *token*, if nothing has changed."""
        if self.is_unchanged(certificate, token):
            if len(self.statuses) >= _MAX_REMEMBERED:
                self.statuses.clear()
            self.statuses[certificate] = subject

    def remember(self, request_key: bytes, prepared: PreparedAnswer) -> None:
        """Find *prepared* by the octets of its request from now on."""
        if self._prepared.get(prepared.key) is not prepared or len(request_key) > MAX_KEY_BYTES:
            return
        if len(self.by_request) >= _MAX_REMEMBERED:
            self.by_request.clear()
        self.by_request[request_key] = prepared

    def subject(self, certificate: str) -> OcspSubject | None:
        """Return a stand-in for a certificate that a prepared answer is there for: the answer tells its status."""
        if not any((certificate, name) in self._prepared for name in PRESIGNED_HASHES):
            return None
        ca, _, serial = certificate.rpartition(":")
        return OcspSubject(certificate, ca, serial, CertificateState.ISSUED, None, None, self._clock())

    def take_wanted(self, limit: int) -> dict[str, int]:
        """Return certificates that changed and whose new answers were not read yet, with how often that was tried."""
        found = dict(itertools.islice(self._wanted.items(), limit))
        for certificate in found:
            del self._wanted[certificate]
        return found

    def want(self, certificate: str, tries: int) -> None:
        """Ask for the answers of a certificate, unless that was tried too often or too many are asked for."""
        if tries < _MAX_TRIES and len(self._wanted) < _MAX_WANTED:
            self._wanted[certificate] = tries

    def lacking(self, records: Iterator[OcspResponseRecord]) -> Iterator[OcspResponseRecord]:
        """Yield those records that are not in memory and still fit."""
        for record in records:
            known = (record.certificate, record.hash) in self._prepared
            if not known and record.next_update > self._clock() and self.bytes < self._max_bytes * 9 // 10:
                yield record

    @staticmethod
    def prepare(record: OcspResponseRecord) -> PreparedAnswer:
        """Return the HTTP response of a stored answer, with the caching headers of RFC 5019 5 and 6."""
        now, until = time.time(), record.next_update.timestamp()
        left = max(0, int(until - now))
        headers = (
            ("Content-Type", CONTENT_TYPE),
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
        size = len(record.der) + len(response.head) + _OBJECT_BYTES
        key = (record.certificate, record.hash)
        return PreparedAnswer(response, key, record.signer, response.outcome, until, reload_at, size)
