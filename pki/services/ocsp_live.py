"""Answers that are signed while the client waits: who signs for a CA, and a short way for requests of a known shape."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from chargepki.pki.authority.ocsp import OcspSigner, cert_status
from chargepki.pki.errors import ChargePkiError, UnavailableError
from chargepki.pki.inventory.ocsp_records import OcspSubject
from chargepki.pki.inventory.records import CaRecord
from chargepki.pki.keys import KeyAlgorithm
from chargepki.pki.ocsp import OcspRequest, ResponseTemplate, SingleAnswer
from chargepki.pki.services.http import Response
from chargepki.pki.services.ocsp_memory import CONTENT_TYPE, MAX_KEY_BYTES, AnswerMemory
from chargepki.pki.services.tally import Tally

__all__ = ["LIVE_HEADERS", "LiveAnswers", "Signers"]

_log = logging.getLogger(__name__)

Signers = Callable[[CaRecord], OcspSigner | None]
"""Returns the delegated signer of a CA, or ``None`` where this process cannot sign for it; may block."""

LIVE_HEADERS: Final = (("Content-Type", CONTENT_TYPE), ("Cache-Control", "no-store"))
_RELOAD_SECONDS: Final = 60.0
_UNKNOWN_VALIDITY: Final = timedelta(minutes=5)
"""A serial that is unknown now may be issued the next moment."""
_MAX_SHAPES: Final = 100_000
_MAX_NONCE_LENGTHS: Final = 8
_QUICK: Final = frozenset({KeyAlgorithm.SECP256R1, KeyAlgorithm.ED25519})
"""Keys that sign in less time than a thread takes to start with it, unless a token does."""
_AGAIN_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class _Known:
    """A request but for its nonce, and whom it asks about."""

    cert_id: bytes
    certificate: str
    ca: str
    size: int
    """Of the whole request, in octets."""


class LiveAnswers:
    """For one event loop.

    Args:
        run: runs what may block in a thread.
    """

    def __init__(
        self,
        signers: Signers | None,
        memory: AnswerMemory,
        tally: Tally,
        clock: Callable[[], datetime],
        run: Callable[[Callable[[], object]], Awaitable[object]],
    ) -> None:
        self._signers = signers
        self._memory = memory
        self._tally = tally
        self._clock = clock
        self._run = run
        self._live: dict[str, tuple[float, OcspSigner | None]] = {}
        self._shapes: dict[bytes, _Known] = {}
        self._nonce_lengths: tuple[int, ...] = ()
        self._second: tuple[OcspSigner, datetime, ResponseTemplate] | None = None

    def forget(self, certificate: str) -> bool:
        """Drop a signer whose certificate has changed; true if it was one."""
        ca = certificate.rpartition(":")[0]
        known = self._live.get(ca)
        if known is None or known[1] is None or known[1].certificate != certificate:
            return False
        del self._live[ca]
        return True

    def forget_all(self) -> None:
        """Drop everything."""
        self._shapes.clear()
        self._second = None
        self._live.clear()

    def sign_quickly(self, data: bytes) -> Response | None:
        """Answer a request that differs in its nonce alone from one that was answered live before.

        The nonce is the last thing in such a request, so equal octets before it and equal lengths mean that all of it
        is the same but the nonce.
        """
        for length in self._nonce_lengths if self._shapes else ():
            known = self._shapes.get(data[:-length])
            if known is None or len(data) != known.size:
                continue
            subject = self._memory.statuses.get(known.certificate)
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
            return Response(200, body, LIVE_HEADERS, "ocsp", status.word)
        return None

    def learn(self, data: bytes, parsed: OcspRequest, subject: OcspSubject | None, signer: OcspSigner) -> None:
        """Remember how a request is made whose nonce comes last, for `sign_quickly`."""
        nonce = parsed.nonce
        if nonce is None or len(parsed.cert_ids) != 1 or not data.endswith(nonce) or subject is None:
            return
        if len(data) > MAX_KEY_BYTES + len(nonce) or not subject.status:
            return
        if not _is_quick(signer):
            return
        if len(nonce) not in self._nonce_lengths and len(self._nonce_lengths) >= _MAX_NONCE_LENGTHS:
            return
        if len(self._shapes) >= _MAX_SHAPES:
            self._shapes.clear()
        self._nonce_lengths = tuple(sorted({*self._nonce_lengths, len(nonce)}))
        known = _Known(parsed.cert_ids[0].raw, subject.id, signer.ca.id, len(data))
        self._shapes[data[: -len(nonce)]] = known

    async def signer(self, ca: CaRecord) -> OcspSigner | None:
        """Return who signs for *ca* here; ``None`` when nobody does."""
        if self._signers is None:
            return None
        now = time.monotonic()
        known = self._live.get(ca.id)
        if known is not None and now < known[0] and (known[1] is None or self._clock() < known[1].not_after):
            return known[1]
        token = self._memory.generation
        find = self._signers
        try:
            found = await self._run(lambda: find(ca))
        except UnavailableError:
            raise
        except ChargePkiError as error:
            _log.warning("no live answers for %s: %s", ca.id, error)
            found = None
        signer = found if isinstance(found, OcspSigner) else None
        certificate = "" if signer is None else signer.certificate
        if self._memory.is_unchanged(certificate, token):
            # Soon again when there is none: the leader may just be making one.
            self._live[ca.id] = (now + (_RELOAD_SECONDS if signer is not None else _AGAIN_SECONDS), signer)
        return signer

    def suspend(self, signer: OcspSigner, error: ChargePkiError) -> None:
        """Do without a signer for a moment, because its key could not be used; others are answered meanwhile."""
        _log.warning("no live answers for %s: %s", signer.ca.id, error)
        self._live[signer.ca.id] = (time.monotonic() + _AGAIN_SECONDS, None)

    async def sign(self, signer: OcspSigner, parsed: OcspRequest, subjects: Sequence[OcspSubject | None]) -> Response:
        """Answer a request about *subjects*, in its order.

        Raises:
            SignerError: the key is in a token that cannot be used.
        """
        now = self._clock()
        answers = []
        for cert_id, subject in zip(parsed.cert_ids, subjects, strict=True):
            status = cert_status(subject)
            until = signer.until(now) if status.known else min(now + _UNKNOWN_VALIDITY, signer.until(now))
            answers.append(SingleAnswer(cert_id.raw, status, now, until))

        def work() -> bytes:
            return signer.sign(answers, produced_at=now, nonce=parsed.nonce)

        body = work() if _is_quick(signer) else await self._run(work)
        assert isinstance(body, bytes)
        for answer in answers:
            self._tally.count_ocsp(answer.status.word, "live")
        return Response(200, body, LIVE_HEADERS, "ocsp", answers[0].status.word)


def _is_quick(signer: OcspSigner) -> bool:
    # What a token takes is not known, and one that went away takes long to be found away.
    return signer.signer.algorithm in _QUICK and not signer.signer.uri.startswith("pkcs11:")
