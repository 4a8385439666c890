"""A02/A03 on the charging station: CSRs with retries, checks of what arrives, change-over with fallback (sans-IO)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from chargepki.ocpp_security.certificate_checks import (
    CertificateRules,
    RefusedChain,
    build_csr,
    judge_chain,
    parse_chain,
)
from chargepki.ocpp_security.errors import StatusAnswer
from chargepki.ocpp_security.events import SecurityEvent
from chargepki.ocpp_security.pnc_transfer import Dialect
from chargepki.ocpp_security.sign_certificate import (
    CertificateProven,
    DiscardCertificate,
    DropRequests,
    InstallCertificate,
    InstalledCertificate,
    MakeKey,
    Payload,
    PendingRequest,
    RaiseEvent,
    Reconnect,
    SendRequest,
    StationEffect,
    StoreRequest,
    opens_link,
)
from chargepki.ocpp_security.versions import OcppVersion
from chargepki.ocpp_security.wire import (
    CertificateUse,
    build_sign_certificate,
    find_trigger_use,
    parse_certificate_signed,
    status_answer,
)
from chargepki.pki.errors import Conflict
from chargepki.pki.keys import PrivateKey, spki_der, spki_sha256

__all__ = ["StationCertificateConfig", "StationCertificateFlow"]

_LEAST_WAIT = timedelta(seconds=1)
_LONGEST_WAIT = timedelta(days=30)
_MAX_PENDING = 8
"""Requests per use whose keys are kept; the oldest goes first."""


@dataclass(frozen=True, slots=True)
class StationCertificateConfig:
    """What the station knows about itself, whom it trusts, and how it retries."""

    rules: CertificateRules
    uses: frozenset[CertificateUse] = frozenset({CertificateUse.CHARGING_STATION})
    renew_before: timedelta = timedelta(days=30)
    """A03.FR.02: renewal starts when the certificate expires within one month."""
    wait_minimum: timedelta | None = None
    """CertSigningWaitMinimum, an integer of SECONDS on the wire; at least 1 s is waited. Without it (and without
    `repeat_times`) nothing is sent again."""
    repeat_times: int | None = None
    """CertSigningRepeatTimes: the number of doublings, so one resend more than that."""
    root_hash: Callable[[], Mapping[str, str] | None] = lambda: None
    """2.1: hashRootCertificate of the V2G root that shall issue (A02.FR.27)."""
    dialect: Dialect = Dialect.OCA
    """1.6 only: of the DataTransfer that CSRs for V2G leaves travel in."""
    keep_old: timedelta = timedelta(days=30)
    """1.6 only: how long the old certificate stays as a fallback (1.6 A02.FR.10)."""


@dataclass(slots=True)
class _Use:
    """Retry state of one use."""

    waiting: PendingRequest | None = None
    """The newest request, while its certificate is waited for."""
    resend_at: datetime | None = None
    wait: timedelta = timedelta(0)
    resends: int = 0
    blocked: bool = False
    """An invalid certificate or a refusal came: nothing is asked for again until a trigger (A02.FR.20)."""
    asked: bool = False
    """`MakeKey` was returned and `start` not called yet."""


class StationCertificateFlow:
    """Requests, checks and changes the station's certificates; private keys stay with the caller.

    Whatever order messages and reports come in, a certificate is accepted only for a key pair that is waited for,
    and a working certificate is given up only after its successor has opened a connection.
    """

    def __init__(
        self,
        version: OcppVersion,
        config: StationCertificateConfig,
        *,
        pending: Iterable[PendingRequest] = (),
        installed: Iterable[InstalledCertificate] = (),
    ) -> None:
        """Take up the flow from what the station's store holds.

        Args:
            pending: requests whose keys are still in the store, of any use.
            installed: certificates in the store; of the link at most one that is proven and one that is not.
        """
        self.version = version
        self.config = config
        self._pending = {request.number: request for request in pending}
        self._installed = list(installed)
        self._uses = {use: _Use() for use in config.uses}
        self._last_number = max(self._pending, default=0)
        self._failed: set[str] = set()
        self._deferred: set[str] = set()
        self._is_16 = version is OcppVersion.V16

    # --- asking

    def triggered(self, action: str, payload: Payload, now: datetime) -> tuple[Payload, list[StationEffect]]:
        """Take a TriggerMessage or ExtendedTriggerMessage that asks for a CSR; it also ends every pause.

        Clause: A02.FR.02, A02.FR.19, A02.FR.20 (only a trigger starts again), A02.FR.22, A02.FR.23.
        """
        _require_aware(now)
        use = find_trigger_use(self.version, action, payload)
        state = self._uses.get(use) if use is not None else None
        if use is None or state is None:
            return {"status": "NotImplemented"}, []
        if self.config.rules.common_name(use) is None:
            told = StatusAnswer("Rejected", "MissingDevModelInfo", "ISO15118Ctrlr.SeccId is not set")
            return status_answer(self.version, told), []
        state.blocked = False
        state.resend_at = None
        state.asked = True
        return {"status": "Accepted"}, [MakeKey(use)]

    def renew(self, use: CertificateUse) -> list[StationEffect]:
        """Ask for a new certificate without being triggered: first enrolment, or an operator at the station (A03)."""
        state = self._uses[use]
        if state.blocked or state.asked:
            return []
        state.asked = True
        return [MakeKey(use)]

    def start(self, use: CertificateUse, private_key: PrivateKey, now: datetime) -> list[StationEffect]:
        """Send a CSR for a key pair that was made for this renewal and no other.

        Raises:
            Conflict: the key pair is in use or waited for already (A02.FR.02, a new one for every renewal).

        Clause: A02.FR.02, A02.FR.03, A02.FR.05, A02.FR.13, A02.FR.24.
        """
        _require_aware(now)
        state = self._uses[use]
        spki = spki_sha256(spki_der(private_key))
        if any(request.spki_sha256 == spki for request in self._pending.values()) or any(
            item.spki_sha256 == spki for item in self._installed
        ):
            raise Conflict(
                "this key pair has been used before",
                why="every renewal has a new one (A02.FR.02)",
                fix="generate a key pair",
            )
        self._last_number += 1
        csr = build_csr(private_key, self.config.rules.subject(use))
        request = PendingRequest(self._last_number, use, csr, spki, now)
        self._pending[request.number] = request
        state.asked = False
        state.waiting = request
        state.resends = 0
        state.wait = max(self.config.wait_minimum or timedelta(0), _LEAST_WAIT)
        state.resend_at = self._resend_time(state, now)
        effects: list[StationEffect] = [StoreRequest(request), self._send(request)]
        same_use = [known for known in self._pending.values() if known.use is use]
        if len(same_use) > _MAX_PENDING:
            effects.append(self._drop([min(same_use, key=lambda known: known.number)]))
        return effects

    def sign_answered(self, request: PendingRequest, status: str | None, now: datetime) -> list[StationEffect]:
        """Take the answer to a SignCertificate.

        Args:
            status: ``Accepted`` or ``Rejected``; a CALLERROR's code; ``None`` when no answer came. Without an answer
                the CSMS may have it all the same, so the request stays and the timer runs on.
        """
        _require_aware(now)
        state = self._uses.get(request.use)
        if state is None or state.waiting != request or request.number not in self._pending:
            return []
        if status == "Accepted":
            state.resend_at = self._resend_time(state, now)
            return []
        if status is None:
            return []
        # Refused: no rule asks for a retry (TC_A_15_CS), and a machine that tries again would only be refused again.
        # The key stays when an earlier send of this CSR may have been accepted.
        state.resend_at = None
        state.waiting = None
        state.blocked = True
        return [] if state.resends else [self._drop([request])]

    def due(self, now: datetime) -> list[StationEffect]:
        """Return what time alone makes necessary: resends, renewal before expiry, dropping what is no longer needed.

        Clause: A02.FR.17, A02.FR.18, A02.FR.19 (2.x; 1.6 never sends again by timer), A03.FR.02; 1.6 A02.FR.08,
        A02.FR.10.
        """
        _require_aware(now)
        effects: list[StationEffect] = []
        for use, state in self._uses.items():
            if state.resend_at is not None and now >= state.resend_at and state.waiting is not None:
                effects.append(self._send(state.waiting))
                state.resends += 1
                state.wait = min(state.wait * 2, _LONGEST_WAIT)
                state.resend_at = self._resend_time(state, now)
            elif self._expires_soon(use, now) and state.waiting is None:
                effects += self.renew(use)
        effects += self._due_on_link(now)
        return effects

    def next_due(self) -> datetime | None:
        """Return when the next resend is due, or ``None``; expiry is looked at whenever `due` is called."""
        return min((state.resend_at for state in self._uses.values() if state.resend_at is not None), default=None)

    # --- receiving

    def certificate_signed(self, payload: Payload, now: datetime) -> tuple[Payload, list[StationEffect]]:
        """Check a CertificateSigned request and return the answer and what to do; install before answering.

        Clause: A02.FR.06, A02.FR.07, A02.FR.08, A02.FR.16, A02.FR.20, A02.FR.26.
        """
        _require_aware(now)
        received = parse_certificate_signed(self.version, payload)
        request: PendingRequest | None = None
        try:
            parsed = parse_chain(received.chain, self.config.rules)
            if any(item.sha256 == parsed.sha256 for item in self._installed):
                # Our Accepted got lost, and the CSMS sends again what it was asked for and what we have.
                return {"status": "Accepted"}, []
            request = self._find_request(parsed.spki_sha256, received.request_id)
            self._check_type(request, received.use)
            judge_chain(parsed, request.use, self.config.rules, now, future_allowed=self._is_16)
        except RefusedChain as error:
            return self._refuse(error, request, received.use)
        certificate = InstalledCertificate(
            use=request.use,
            chain_der=parsed.chain_der,
            sha256=parsed.sha256,
            spki_sha256=parsed.spki_sha256,
            not_before=parsed.not_before,
            not_after=parsed.not_after,
            installed_at=now,
        )
        return {"status": "Accepted"}, self._install(certificate, now)

    # --- the connection

    def client_certificate(self, now: datetime) -> InstalledCertificate | None:
        """Return the certificate for the next connection of profile 3, or ``None`` when there is none.

        The newest one that is valid and has not failed is tried first; then the one that has worked (A02.FR.28).
        """
        _require_aware(now)
        link = [item for item in self._installed if opens_link(item.use) and item.not_before <= now + _LEAST_WAIT]
        # Unproven before proven, failed last; among equals the newest (1.6 A02.FR.09, 2.x before the errata).
        # Two of one second, and those of a CA younger than the CSMS's back-dating, begin at the same instant: of these
        # the one that came last, or the station would go back to what it has just replaced.
        link.sort(
            key=lambda item: (
                item.sha256 in self._failed,
                item.proven,
                -item.not_before.timestamp(),
                -item.installed_at.timestamp(),
            )
        )
        return link[0] if link else None

    def connected(self, sha256: str | None, now: datetime) -> list[StationEffect]:
        """Take the report that a connection was opened, with the certificate *sha256* (``None``: with a password).

        A new certificate that worked replaces the old one; a new one that failed is discarded once the old one has
        worked again. 1.6 keeps the old one for `StationCertificateConfig.keep_old`.

        Clause: A02.FR.10, A02.FR.28, A02.FR.29.
        """
        _require_aware(now)
        used = next((item for item in self._installed if item.sha256 == sha256 and opens_link(item.use)), None)
        if used is None:
            return []
        effects: list[StationEffect] = []
        if not used.proven:
            proven = replace(used, proven=True)
            self._installed[self._installed.index(used)] = proven
            effects.append(CertificateProven(proven))
            older = [item for item in self._link_others(proven) if item.installed_at <= proven.installed_at]
            effects += [self._discard(item) for item in older if not (self._is_16 and item.proven)]
        for item in self._link_others(used):
            if item.sha256 in self._failed:
                effects.append(self._discard(item))
                effects.append(
                    RaiseEvent(
                        SecurityEvent.DISCARDED_RENEWED_CLIENT_CERTIFICATE,
                        f"certificate {item.sha256[:16]} opened no connection; the old one is back in use",
                    )
                )
        self._failed.clear()
        return effects

    def connection_failed(self, sha256: str | None, now: datetime) -> None:
        """Take the report that *sha256* opened no connection to any entry of the priority list (one full round).

        The next round tries the other certificate, so that old and new alternate until one works (A02.FR.28 with
        B10.FR.07 and B10.FR.08).
        """
        _require_aware(now)
        if sha256 is None:
            return
        link = {item.sha256 for item in self._installed if opens_link(item.use)}
        if sha256 in link and link - self._failed - {sha256}:
            self._failed.add(sha256)
        else:
            self._failed.clear()

    @property
    def pending(self) -> tuple[PendingRequest, ...]:
        """Requests whose private keys are kept."""
        return tuple(self._pending.values())

    @property
    def installed(self) -> tuple[InstalledCertificate, ...]:
        """Certificates in the store."""
        return tuple(self._installed)

    def again(self, request: PendingRequest) -> SendRequest:
        """Return the same CSR once more, for a station that does not wait as it should."""
        return self._send(request)

    def forget(self, certificate: InstalledCertificate) -> DiscardCertificate:
        """Give up a certificate whose key is lost."""
        return self._discard(certificate)

    # --- parts

    def _send(self, request: PendingRequest) -> SendRequest:
        names_root = request.use in (CertificateUse.V2G, CertificateUse.V2G20)
        call = build_sign_certificate(
            self.version,
            request.use,
            request.csr_pem,
            request_id=request.number,
            root_hash=self.config.root_hash() if names_root else None,
            dialect=self.config.dialect,
        )
        return SendRequest(call.action, call.payload, request)

    def _resend_time(self, state: _Use, now: datetime) -> datetime | None:
        if self._is_16 or self.config.wait_minimum is None or self.config.repeat_times is None:
            return None
        # n counts doublings, so n + 1 resends (TC_A_23_CS); the appendix tables read it as n resends.
        return now + state.wait if state.resends <= self.config.repeat_times else None

    def _find_request(self, spki: str, request_id: int | None) -> PendingRequest:
        if request_id is not None and self.version is OcppVersion.V21 and request_id not in self._pending:
            raise RefusedChain(f"requestId {request_id} is unknown", why="A02.FR.26")
        found = next((request for request in self._pending.values() if request.spki_sha256 == spki), None)
        if found is None:
            if not self._pending:
                raise RefusedChain("no certificate was asked for", why="an unsolicited certificate is never installed")
            raise RefusedChain("the certificate is for another public key than the CSR's", why="A02.FR.02, A02.FR.07")
        if request_id is not None and self.version is OcppVersion.V21 and found.number != request_id:
            raise RefusedChain(f"the certificate is for request {found.number}, not {request_id}", why="A02.FR.25")
        return found

    def _check_type(self, request: PendingRequest, named: CertificateUse | None) -> None:
        # Left out, the type of the outstanding request counts (2.x certificateType; field practice).
        if named is not None and named is not request.use:
            raise RefusedChain(
                f"certificateType is {named.value}, asked for was {request.use.value}", why="A02.FR.13, A02.FR.14"
            )

    def _refuse(
        self, error: RefusedChain, request: PendingRequest | None, named: CertificateUse | None
    ) -> tuple[Payload, list[StationEffect]]:
        waiting = [use for use, state in self._uses.items() if state.waiting is not None]
        if request is not None:
            use: CertificateUse | None = request.use
        else:
            use = named if named in waiting else waiting[0] if len(waiting) == 1 else None
        if use is not None and use in self._uses:
            state = self._uses[use]
            state.blocked = True
            state.resend_at = None
        told = StatusAnswer("Rejected", error.reason_code, error.what)
        event = RaiseEvent(SecurityEvent.INVALID_CHARGING_STATION_CERTIFICATE, error.what)
        return status_answer(self.version, told), [event]

    def _install(self, certificate: InstalledCertificate, now: datetime) -> list[StationEffect]:
        state = self._uses.get(certificate.use)
        if state is not None:
            state.waiting = None
            state.resend_at = None
            state.blocked = False
        self._installed.append(certificate)
        effects: list[StationEffect] = [InstallCertificate(certificate)]
        effects.append(self._drop([request for request in self._pending.values() if request.use is certificate.use]))
        if opens_link(certificate.use):
            if certificate.not_before <= now + _LEAST_WAIT:
                effects.append(Reconnect("a new certificate is to be used (A02.FR.08)"))
            else:
                self._deferred.add(certificate.sha256)
        return effects

    def _due_on_link(self, now: datetime) -> list[StationEffect]:
        effects: list[StationEffect] = []
        for item in list(self._installed):
            if item.sha256 in self._deferred and item.not_before <= now:
                self._deferred.discard(item.sha256)
                effects.append(Reconnect("the new certificate has become valid (A02.FR.08)"))
            newer = [
                other
                for other in self._installed
                if other.use is item.use and other.proven and other.installed_at > item.installed_at
            ]
            kept_long = opens_link(item.use) and any(
                now - other.installed_at >= self.config.keep_old for other in newer
            )
            if kept_long or (not opens_link(item.use) and item.not_after < now):
                effects.append(self._discard(item))
        return effects

    def _expires_soon(self, use: CertificateUse, now: datetime) -> bool:
        items = [item for item in self._installed if item.use is use]
        if not items:
            return False
        newest = max(items, key=lambda item: item.not_after)
        # Bounded by a third of the lifetime: a certificate that lives less than a month is not renewed at once.
        ahead = min(self.config.renew_before, (newest.not_after - newest.not_before) / 3)
        return newest.not_after - now <= ahead

    def _link_others(self, used: InstalledCertificate) -> list[InstalledCertificate]:
        return [item for item in self._installed if opens_link(item.use) and item.sha256 != used.sha256]

    def _discard(self, item: InstalledCertificate) -> DiscardCertificate:
        self._installed = [other for other in self._installed if other.sha256 != item.sha256]
        self._failed.discard(item.sha256)
        self._deferred.discard(item.sha256)
        return DiscardCertificate(item)

    def _drop(self, requests: list[PendingRequest]) -> DropRequests:
        for request in requests:
            self._pending.pop(request.number, None)
        return DropRequests(tuple(requests))


def _require_aware(now: datetime) -> None:
    if now.tzinfo is None:
        raise TypeError("now must be timezone-aware")
