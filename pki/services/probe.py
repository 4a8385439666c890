"""Fetch back over HTTP what is published, and validate it as a client would.

CAs have served 404 for lists after a migration, or no status for a CA certificate, for days, because nobody looked from
the outside. Each published artefact, every CA certificate and its OCSP status included, is looked at here.
"""

from __future__ import annotations

import http.client
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import urlsplit

from chargepki.pki import keys
from chargepki.pki.authority.ocsp import ocsp_cas
from chargepki.pki.certificate_view import view_certificate
from chargepki.pki.chain.certificate import PathCertificate
from chargepki.pki.chain.ocsp import NoStatus, OcspResponse, is_about, is_responder, read_ocsp_response, why_no_delegate
from chargepki.pki.crl_view import read_crl
from chargepki.pki.errors import ChargePkiError, InputError
from chargepki.pki.inventory import Inventory
from chargepki.pki.inventory.records import CaRecord, CaState, CertificateRecord
from chargepki.pki.ocsp import build_cert_id, build_single_request, issuer_hashes

__all__ = ["Probe", "check_ocsp_response"]

_log = logging.getLogger(__name__)

_TIMEOUT_SECONDS = 5.0
_MAX_BYTES = 64 << 20
_SKEW = timedelta(minutes=5)
_MOST_SHOWN = 20
_SETTLING = timedelta(minutes=1)
"""Between a change and what is signed about it lies a moment: no reason to wake anybody."""
_MOST_SKIPPED = 50


class Probe:
    """Blocking: run it in a thread. Each run looks at the status of another certificate of each CA.

    Args:
        base: URL below which the endpoints are, for example ``http://127.0.0.1:8080``.
    """

    def __init__(self, inventory: Inventory, base: str) -> None:
        self._inventory = inventory
        self._samples: dict[str, str] = {}
        parts = urlsplit(base)
        self._host, self._port = parts.hostname or "", parts.port
        self._is_tls, self._path = parts.scheme == "https", parts.path.rstrip("/")

    def run(self, now: datetime) -> tuple[str, ...]:
        """Return what is wrong; nothing when every artefact could be fetched and validated.

        Raises:
            UnavailableError: the inventory cannot be asked what is published.
        """
        problems: list[str] = []
        with _Fetcher(self._host, self._port, self._path, is_tls=self._is_tls) as fetcher:
            for ca in ocsp_cas(self._inventory, now):
                for what, check in self._checks(ca, now):
                    try:
                        check.run(fetcher, now)
                    except InputError as error:
                        problems.append(f"{what}: {error}")
                    except OSError as error:
                        # Nobody answers there, or the server is stopping: asking for the rest would take minutes.
                        return (*problems[:_MOST_SHOWN], f"{what}: {type(error).__name__}: {error}")
                    except http.client.HTTPException as error:
                        problems.append(f"{what}: {type(error).__name__}: {error}")
        more = len(problems) - _MOST_SHOWN
        return (*problems[:_MOST_SHOWN], *((f"and {more} more",) if more > 0 else ()))

    def _checks(self, ca: CaRecord, now: datetime) -> Iterator[tuple[str, _Check]]:
        assert ca.certificate_der is not None
        yield f"certificate of {ca.id}", _CertificateCheck(ca)
        yield from self._list_checks(ca, now)
        issuer = ca if ca.issuer is None else self._inventory.get_ca(ca.issuer)
        serial = f"{view_certificate(ca.certificate_der).serial:x}"
        own = self._inventory.find_certificate(f"{issuer.id}:{serial}")
        if own is not None:
            yield f"OCSP status of {ca.id}", _StatusCheck(issuer, own)
        sample = self._next_sample(ca, now)
        if sample is not None and sample.der is not None and (own is None or sample.id != own.id):
            yield f"OCSP status of {sample.id}", _StatusCheck(ca, sample)

    def _list_checks(self, ca: CaRecord, now: datetime) -> Iterator[tuple[str, _Check]]:
        states = self._inventory.list_states(ca.id)
        active = ca.state is CaState.ACTIVE
        # An active CA owes a full list, and one for each shard that certificates name; the others have what there is.
        if active or None in states:
            yield f"CRL {ca.id}.crl", _ListCheck(ca, f"/crl/{ca.id}.crl")
        for shard in self._inventory.list_crl_shards(ca.id):
            if shard.number in states or (active and now - shard.opened_at >= _SETTLING):
                path = f"{ca.id}/{shard.number}.crl"
                yield f"CRL {path}", _ListCheck(ca, f"/crl/{path}", point=shard.url)
        if ca.crl_delta_hours and (active or self._inventory.delta_state(ca.id) is not None):
            yield f"delta CRL of {ca.id}", _ListCheck(ca, f"/crl/{ca.id}-delta.crl", is_delta=True)

    def _next_sample(self, ca: CaRecord, now: datetime) -> CertificateRecord | None:
        """Return the certificate after that of the last run for which an answer is owed; after the last the first."""
        for after in dict.fromkeys((self._samples.get(ca.id), None)):
            for sample in self._inventory.list_certificates(ca=ca.id, limit=_MOST_SKIPPED, after=after):
                self._samples[ca.id] = sample.id
                changed = sample.revoked_at or sample.issued_at
                if changed is not None and now - changed >= _SETTLING and now <= sample.not_after:
                    return sample
        return None


class _Fetcher:
    """One connection for all fetches."""

    def __init__(self, host: str, port: int | None, path: str, *, is_tls: bool) -> None:
        kind = http.client.HTTPSConnection if is_tls else http.client.HTTPConnection
        self._connection = kind(host, port, timeout=_TIMEOUT_SECONDS)
        self._path = path

    def __enter__(self) -> _Fetcher:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def fetch(self, path: str, body: bytes | None = None, content_type: str = "") -> bytes:
        """Return the body of a 200.

        Raises:
            InputError: another status, or too much.
            OSError: no connection.
        """
        headers = {"Content-Type": content_type} if body is not None else {}
        try:
            self._connection.request("GET" if body is None else "POST", self._path + path, body, headers)
            response = self._connection.getresponse()
            content = response.read(_MAX_BYTES + 1)
        except (OSError, http.client.HTTPException):
            self._connection.close()
            raise
        if response.status != 200:
            raise InputError(f"HTTP {response.status}", why=content[:200].decode("latin-1").strip())
        if len(content) > _MAX_BYTES:
            raise InputError("the answer is too long")
        return content


class _Check:
    def run(self, fetcher: _Fetcher, now: datetime) -> None:
        raise TypeError("abstract")


@dataclass(frozen=True, slots=True)
class _CertificateCheck(_Check):
    ca: CaRecord

    def run(self, fetcher: _Fetcher, now: datetime) -> None:
        if fetcher.fetch(f"/ca/{self.ca.id}.cer") != self.ca.certificate_der:
            raise InputError("other bytes than the inventory holds")


@dataclass(frozen=True, slots=True)
class _ListCheck(_Check):
    ca: CaRecord
    path: str
    point: str | None = None
    """What the list must name as its distribution point; a client takes it for another one's otherwise."""
    is_delta: bool = False

    def run(self, fetcher: _Fetcher, now: datetime) -> None:
        # The entries may be a hundred thousand; the signature covers them.
        crl = read_crl(fetcher.fetch(self.path), skip_entries=True)
        end = crl.next_update.value if crl.next_update else None
        begin = crl.this_update.value
        if crl.issuer != self.ca.subject_der:
            raise InputError("another CA's list")
        if begin is None or end is None or now >= end or begin > now + _SKEW:
            raise InputError("the list is not valid now")
        if crl.distribution_point != self.point or (crl.delta_base is not None) is not self.is_delta:
            raise InputError("another list of this CA")
        if not keys.verify(_public_key(self.ca), crl.signature or b"", crl.tbs, crl.signature_algorithm):
            raise InputError("the signature is wrong")


@dataclass(frozen=True, slots=True)
class _StatusCheck(_Check):
    issuer: CaRecord
    certificate: CertificateRecord

    def run(self, fetcher: _Fetcher, now: datetime) -> None:
        assert self.issuer.certificate_der is not None and self.certificate.der is not None
        hashes = issuer_hashes("sha1", self.issuer.subject_der, view_certificate(self.issuer.certificate_der).key.der)
        request = build_single_request(build_cert_id("sha1", *hashes, int(self.certificate.serial, 16)))
        response = fetcher.fetch("/ocsp", request, "application/ocsp-request")
        check_ocsp_response(
            response, self.certificate.der, self.issuer.certificate_der, now,
            is_revoked=self.certificate.revoked_at is not None,
        )  # fmt: skip


def _public_key(ca: CaRecord) -> keys.PublicKey:
    assert ca.certificate_der is not None
    return keys.load_public_key(view_certificate(ca.certificate_der).key.der)


def check_ocsp_response(
    response_der: bytes, certificate_der: bytes, issuer_der: bytes, now: datetime, *, is_revoked: bool
) -> None:
    """Refuse a response that a client could not use: wrong status, subject, signer, signature or time.

    Raises:
        InputError: says what is wrong.

    Clause: RFC 6960 3.2, 4.2.2.2.
    """
    try:
        response = read_ocsp_response(response_der)
    except NoStatus as error:
        raise InputError(error.what) from error
    certificate, issuer = PathCertificate(certificate_der), PathCertificate(issuer_der)
    answer = next((each for each in response.answers if is_about(each, certificate, issuer)), None)
    if answer is None:
        raise InputError("the response is about another certificate")
    if answer.next_update is None or not answer.this_update - _SKEW <= now < answer.next_update:
        raise InputError("the response is not valid now")
    if answer.status != ("revoked" if is_revoked else "good"):
        raise InputError(f"the status is {answer.status}")
    signer = _signer(response, issuer, now)
    if not keys.verify(keys.load_public_key(signer.spki), response.signature, response.tbs, response.algorithm):
        raise InputError("the signature is wrong")


def _signer(response: OcspResponse, issuer: PathCertificate, now: datetime) -> PathCertificate:
    if is_responder(response, issuer):
        return issuer
    why = "no certificate of the signer is there"
    for der in response.certificates:
        delegate = PathCertificate(der)
        if not is_responder(response, delegate):
            continue
        key = keys.load_public_key(issuer.spki)
        if not keys.verify(key, delegate.signature, delegate.tbs, delegate.outer_algorithm):
            why = "the signer's certificate is not the CA's"
            continue
        why = why_no_delegate(delegate, now)
        if not why:
            return delegate
    raise InputError(f"nobody may have signed this: {why}")


def run_quietly(probe: Probe, now: datetime) -> tuple[str, ...]:
    """Return what is wrong, be it that the inventory cannot be asked; in words that anybody may read at `/readyz`."""
    try:
        return probe.run(now)
    except ChargePkiError as error:
        # Where the inventory is and which file cannot be read concerns nobody outside.
        _log.warning("the self-probe could not be made: %s", error)
        return ("the self-probe could not be made; the log tells why",)
