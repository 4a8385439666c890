"""The EST server as a function from request to response; any HTTP shell that has the client certificate can carry it.

Clause: RFC 7030 (enrolment over secure transport) as RFC 8951 clarifies it.
"""

from __future__ import annotations

import asyncio
import base64
import fnmatch
import hashlib
import hmac
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Final, TypeVar

from cryptography import x509

from chargepki.pki import keys, names
from chargepki.pki.aio import Issuer
from chargepki.pki.authority import IssuedCertificate, IssueOrder
from chargepki.pki.authority.cross import cross_certificates_of
from chargepki.pki.certificate_view import view_certificate
from chargepki.pki.csr import CertificateRequest, check_possession
from chargepki.pki.errors import (
    ChargePkiError,
    InputError,
    PolicyRefusal,
    SignerError,
    StateError,
    UnavailableError,
)
from chargepki.pki.est import (
    CERTS_ONLY,
    CSR_ATTRIBUTES,
    MAX_BODY_BYTES,
    build_certs_only,
    build_csr_attributes,
    encode_body,
    find_session_link,
    read_request_body,
)
from chargepki.pki.inventory import Inventory
from chargepki.pki.inventory.records import CaRecord, CaState, CertificateState
from chargepki.pki.keys import KeyAlgorithm, PrivateKey
from chargepki.pki.profiles import get_profile
from chargepki.pki.services.accounts import AccountGuard, TooManyFailures, parse_basic
from chargepki.pki.services.est_approval import Waiting, ask_approval
from chargepki.pki.services.est_paths import EstPath, parse_path
from chargepki.pki.services.est_server_keys import make_server_key
from chargepki.pki.services.est_settings import EstLabel, EstSettings, ServerKeys
from chargepki.pki.services.failures import SharedFailures

__all__ = ["EstRequest", "EstResponse", "EstService"]

_T = TypeVar("_T")
_log = logging.getLogger("chargepki.est")
_ANSWER_SECONDS: Final = 20.0
"""How long a client waits for the queue before it is told to come back."""
_RETRY_SOON: Final = 5
_RETRY_APPROVAL: Final = 600
# RFC 8951 3.1 makes the header meaningless, but clients of RFC 7030 look for it.
_BASE64: Final = MappingProxyType({"Content-Transfer-Encoding": "base64"})


@dataclass(frozen=True, slots=True)
class EstRequest:
    """One HTTP request over TLS. Header names are lower case."""

    method: str
    path: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    client_certificate_der: bytes | None
    """What the TLS handshake verified; ``None`` without one."""
    peer: str
    """Address without port."""
    at: datetime
    """When it came, aware."""
    monotonic: float
    """The same on a clock that never jumps, in seconds."""
    tls_unique: bytes | None = field(default=None, repr=False)
    """What both ends of the TLS session know and nobody else (RFC 5929); ``None`` where that is not known."""


@dataclass(frozen=True, slots=True)
class EstResponse:
    """Status, headers and body."""

    status: int
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Caller:
    """Who asks: an account, or the certificate that is to be renewed."""

    name: str
    labels: tuple[str, ...] | None
    """``None`` for the holder of a certificate, who may renew that one and nothing else."""
    patterns: tuple[str, ...] = ()
    dns_names: tuple[str, ...] = ()
    """Of the certificate that is renewed: the new one has the same (RFC 7030 4.2.2)."""


class _Refused(Exception):
    """An answer that ends the request."""

    def __init__(self, response: EstResponse) -> None:
        self.response = response


class EstService:
    """Answers EST requests. Use it from one event loop.

    Args:
        issuer: `aio.Authority`, or `aio.QueueIssuer` where this process holds no CA key.
        server_key: key and certificate (DER) of the TLS server, which sign the keys that are made for clients;
            without them no key is sent encrypted, so none is made.
        answer_seconds: how long a client waits for the authority before it is told to come back (202).
        failures: wrong passwords, counted together with other processes that serve; ``None`` counts those of this one.
        observe: told operation and status of every answer, for metrics.
    """

    def __init__(
        self,
        inventory: Inventory,
        issuer: Issuer,
        settings: EstSettings,
        *,
        server_key: tuple[PrivateKey, bytes] | None = None,
        answer_seconds: float = _ANSWER_SECONDS,
        failures: SharedFailures | None = None,
        observe: Callable[[str, int], None] | None = None,
    ) -> None:
        self._inventory, self._issuer, self._settings = inventory, issuer, settings
        self._server_key = server_key
        self._answer_seconds = answer_seconds
        self._observe = observe
        self._guard = AccountGuard(failures)

    def close(self) -> None:
        """Release the threads; the issuer stays open."""
        self._guard.close()

    def claims(self, path: str) -> bool:
        """Whether *path* is one of ours."""
        return parse_path(path) is not None

    async def answer(self, request: EstRequest) -> EstResponse:
        """Answer one request; never raises for anything that a client sends, or that is down."""
        path = parse_path(request.path)
        operation = "unknown" if path is None else path.operation
        try:
            response = await self._answer(request, path)
        except _Refused as refused:
            response = refused.response
        except TooManyFailures as error:
            response = _text(429, error.what, {"Retry-After": "60"})
        except (InputError, PolicyRefusal) as error:
            response = _text(400, _told(error))
        except (UnavailableError, SignerError) as error:
            # Which database or key store it is concerns nobody outside.
            _log.error("EST %s from %s cannot be answered: %s", operation, request.peer, error)
            response = _text(503, "the authority cannot answer now", {"Retry-After": "30"})
        except StateError as error:
            _log.warning("EST %s from %s: %s", operation, request.peer, error)
            response = _text(503, "the authority cannot issue this now", {"Retry-After": "300"})
        if response.status >= 400 and response.status != 503:
            _log.info("EST %s from %s: %s %s", operation, request.peer, response.status, response.body.decode()[:200])
        if self._observe is not None:
            self._observe(operation, response.status)
        return response

    async def _answer(self, request: EstRequest, path: EstPath | None) -> EstResponse:
        if path is None:
            return _text(404, "this is no EST path")
        label = self._label(path)
        wanted = "GET" if path.operation in ("cacerts", "csrattrs") else "POST"
        if request.method != wanted and not (wanted == "GET" and request.method == "HEAD"):
            return _text(405, f"{path.operation} is a {wanted} request", {"Allow": wanted})
        if path.operation == "fullcmc":
            return _text(501, "full CMC is not offered; use simpleenroll")
        if path.operation == "cacerts":
            return await self._cacerts(request, label, path)
        if path.operation == "csrattrs":
            return self._csrattrs(label)
        return await self._enrol(request, label, path.operation)

    def _label(self, path: EstPath) -> EstLabel:
        if path.role is not None:
            found = self._settings.find_alias(path.role, path.version, path.algorithm)
        else:
            name = path.label or self._settings.default
            found = None if name is None else self._settings.find(name)
        if found is None:
            raise _Refused(_text(404, "there is no such EST label here"))
        return found

    async def _cacerts(self, request: EstRequest, label: EstLabel, path: EstPath) -> EstResponse:
        chain = await self._run(lambda: ca_certificates(self._inventory, label.ca, request.at))
        if path.algorithm is not None and path.algorithm != _algorithm_of(chain[0]):
            return _text(404, f"this CA has no chain of {path.algorithm[:20]}")
        return EstResponse(200, encode_body(build_certs_only(chain)), CERTS_ONLY, _BASE64)

    def _csrattrs(self, label: EstLabel) -> EstResponse:
        body = build_csr_attributes(get_profile(label.profile), self._key_algorithm(label))
        return EstResponse(200, encode_body(body), CSR_ATTRIBUTES, _BASE64)

    def _key_algorithm(self, label: EstLabel) -> KeyAlgorithm:
        return get_profile(label.profile).keys.default

    # -- enrolment ----------------------------------------------------------------------------------------------

    async def _enrol(self, request: EstRequest, label: EstLabel, operation: str) -> EstResponse:
        caller = await self._authenticate(request, label, operation)
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind not in ("application/pkcs10", "application/x-pkcs10", ""):
            return _text(415, "the content type is not application/pkcs10")
        if len(request.body) > MAX_BODY_BYTES:
            return _text(413, f"the body is larger than {MAX_BODY_BYTES} octets")
        csr = read_request_body(request.body)
        check_possession(csr)
        _check_session_link(csr, request)
        await self._authorise(caller, request, label, operation, csr)
        if label.approval and operation != "simplereenroll":
            waiting = await self._run(lambda: ask_approval(self._inventory, label, caller.name, csr, now=request.at))
            if waiting is Waiting.REJECTED:
                return _text(403, "this request was rejected")
            if waiting is Waiting.UNDECIDED:
                return _text(202, "this request waits for an approval", {"Retry-After": str(_RETRY_APPROVAL)})
        if operation == "serverkeygen":
            return await self._serverkeygen(request, label, caller, csr)
        issued = await self._issue(label, caller, csr)
        if issued is None:
            return _text(202, "the certificate is being made", {"Retry-After": str(_RETRY_SOON)})
        return EstResponse(200, encode_body(build_certs_only([issued.certificate_der])), CERTS_ONLY, _BASE64)

    async def _issue(self, label: EstLabel, caller: _Caller, csr: CertificateRequest) -> IssuedCertificate | None:
        order = IssueOrder(
            ca=label.ca,
            profile=label.profile,
            csr=csr.der,
            subject_defaults=label.subject_defaults,
            dns_names=caller.dns_names,
            requester=f"est:{caller.name}",
        )
        future = await self._issuer.submit(order)
        try:
            return await asyncio.wait_for(asyncio.shield(future), self._answer_seconds)
        except TimeoutError:
            # It stays queued; the repeat of the same request finds the same certificate.
            return None

    async def _serverkeygen(
        self, request: EstRequest, label: EstLabel, caller: _Caller, csr: CertificateRequest
    ) -> EstResponse:
        if label.server_keys is ServerKeys.OFF:
            return _text(501, "this label makes no keys for its clients; use simpleenroll")
        made = await self._run(lambda: make_server_key(label, csr))
        # The recipient is chosen before anything is issued: a key that cannot be sent must not be certified.
        seal = made.sealer(label, request.client_certificate_der, self._server_key)
        if isinstance(seal, str):
            return _text(403, seal)
        issued = await self._issue(label, caller, made.request)
        if issued is None:
            return _text(503, "the authority does not answer", {"Retry-After": "30"})
        content_type, body = seal(build_certs_only([issued.certificate_der]))
        return EstResponse(200, body, content_type)

    # -- who may --------------------------------------------------------------------------------------------------

    async def _authenticate(self, request: EstRequest, label: EstLabel, operation: str) -> _Caller:
        certificate = request.client_certificate_der
        if certificate is not None:
            sha256 = hashlib.sha256(certificate).hexdigest()
            account = await self._run(lambda: self._inventory.find_est_account_of_certificate(sha256))
            if account is not None and operation != "simplereenroll":
                return _Caller(account.id, tuple(account.labels["names"]), tuple(account.common_names["patterns"]))
            if operation == "simplereenroll":
                return await self._holder(request, label, certificate, sha256)
        if operation == "simplereenroll":
            # RFC 7030 3.3.2 and 4.2.2: who renews shows the certificate that is renewed.
            raise _Refused(_text(403, "show the certificate that is to be renewed in the TLS handshake"))
        return await self._by_password(request)

    async def _by_password(self, request: EstRequest) -> _Caller:
        challenge = {"WWW-Authenticate": 'Basic realm="est", charset="UTF-8"'}
        given = parse_basic(request.headers.get("authorization"))
        if given is None:
            raise _Refused(_text(401, "say who you are: HTTP Basic, or a TLS client certificate", challenge))
        name, password = given
        account = await self._run(lambda: self._inventory.find_est_account(name) if _is_name(name) else None)
        stored = None if account is None or account.state != "active" else account.password_hash
        right = await self._guard.verify(stored, password, account=name, peer=request.peer, now=request.monotonic)
        if not right or account is None:
            raise _Refused(_text(401, "unknown account, or wrong password", challenge))
        return _Caller(account.id, tuple(account.labels["names"]), tuple(account.common_names["patterns"]))

    async def _holder(self, request: EstRequest, label: EstLabel, certificate: bytes, sha256: str) -> _Caller:
        record = await self._run(lambda: self._inventory.find_certificate_by_sha256(sha256))
        refusal = None
        if record is None:
            refusal = "the client certificate was not issued here"
        elif record.state is not CertificateState.ISSUED:
            refusal = "the client certificate is revoked"
        elif not record.not_before <= request.at <= record.not_after:
            refusal = "the client certificate is not valid now; enrol anew"
        elif record.profile != label.profile or record.ca.partition("@")[0] != label.ca.partition("@")[0]:
            refusal = "the client certificate was not issued under this label"
        if refusal is not None or record is None:
            raise _Refused(_text(403, refusal or ""))
        return _Caller(record.id, None, dns_names=_dns_names(certificate))

    async def _authorise(
        self, caller: _Caller, request: EstRequest, label: EstLabel, operation: str, csr: CertificateRequest
    ) -> None:
        if caller.labels is None:
            record = await self._run(lambda: self._inventory.find_certificate(caller.name))
            if record is None or not names.same(record.subject_der, csr.subject_der):
                # RFC 7030 4.2.2: subject and alternative names are those of the certificate that is renewed.
                raise _Refused(_text(403, "the request's subject is not that of the certificate to be renewed"))
            return
        if label.name not in caller.labels:
            raise _Refused(_text(403, f"the account {caller.name} may not use the label {label.name}"))
        common_names = [value for key, value in csr.subject if key == "CN"]
        if len(common_names) != 1 or not any(_fits(common_names[0], pattern) for pattern in caller.patterns):
            raise _Refused(_text(403, f"the account {caller.name} may not enrol this common name"))

    async def _run(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(None, work)


def _check_session_link(csr: CertificateRequest, request: EstRequest) -> None:
    """Refuse a request that says it was signed in this TLS session, and was not.

    Raises:
        PolicyRefusal: it was made in another session, or is another kind of password.

    Clause: RFC 7030 3.5: a server may do without the link, but where a client sends one it has to be verified.
    """
    link = find_session_link(csr)
    if link is None:
        return
    own = None if request.tls_unique is None else base64.b64encode(request.tls_unique)
    if own is None or not hmac.compare_digest(link, own):
        raise PolicyRefusal(
            "the request's challengePassword is not the tls-unique value of this TLS session",
            why="RFC 7030 3.5: it ties a request to the session; make the request anew, or without challengePassword",
        )


def ca_certificates(inventory: Inventory, name: str, now: datetime) -> tuple[bytes, ...]:
    """Return the certificates of a CA and of all above it, DER, the CA first, then its root (RFC 7030 4.1.3).

    Where the root was rolled over, what RFC 7030 4.1.3 calls OldWithOld, OldWithNew and NewWithOld follow, of each
    earlier generation that is still valid: a client that holds one root finds the way to the other by them.

    Args:
        now: aware.

    Raises:
        StateError: one of them is not there yet.
    """
    found: list[bytes] = []
    record: CaRecord | None = inventory.get_ca(name)
    while record is not None:
        if record.certificate_der is None:
            raise StateError(f"CA {record.id} has no certificate yet", fix=f"run: chargepki ca create {record.name}")
        found.append(record.certificate_der)
        if record.issuer is None:
            found += _root_updates(inventory, record, now)
        record = inventory.get_ca(record.issuer) if record.issuer else None
    return tuple(dict.fromkeys(found))


def _root_updates(inventory: Inventory, root: CaRecord, now: datetime) -> Iterator[bytes]:
    """Yield the other generations of a root that are valid, and what they certified of each other (RFC 9810 4.4)."""
    others = [
        each
        for each in inventory.list_cas(name=root.name)
        if each.certificate_der is not None
        and each.state in (CaState.ACTIVE, CaState.RETIRED)
        and each.not_after is not None
        and now <= each.not_after
    ]
    generations = {each.id for each in others}
    for each in others:
        assert each.certificate_der is not None
        yield each.certificate_der
        for cross in cross_certificates_of(inventory, each, now):
            if cross.ca in generations and cross.der is not None:
                yield cross.der


def _algorithm_of(certificate_der: bytes) -> str:
    return keys.algorithm_of(keys.load_public_key(view_certificate(certificate_der).key.der)).value


def _dns_names(certificate_der: bytes) -> tuple[str, ...]:
    """Return the DNS names of a certificate of ours."""
    extensions = x509.load_der_x509_certificate(certificate_der).extensions
    try:
        names_of = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return tuple(names_of.get_values_for_type(x509.DNSName))


def _text(status: int, text: str, headers: Mapping[str, str] = MappingProxyType({})) -> EstResponse:
    return EstResponse(status, text.encode() + b"\n", headers=headers)


def _told(error: ChargePkiError) -> str:
    """What a client is told of its own mistake."""
    return "; ".join(part for part in (error.what, error.why) if part)[:500]


def _is_name(name: str) -> bool:
    return 0 < len(name) <= 64 and name.isprintable()


def _fits(common_name: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(common_name, pattern)
