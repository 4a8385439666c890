"""Somebody wants to charge at the simulated station: by contract certificate (C07) or by a token of their own (C08)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import orjson

from chargepki.ocpp_security.pnc_transfer import Dialect
from chargepki.ocpp_security.station.misbehaviour import Conduct, Misbehaviour
from chargepki.ocpp_security.station.status_asking import Call, issued_pairs, question, send_to_csms
from chargepki.ocpp_security.versions import OcppVersion
from chargepki.pki import files, names
from chargepki.pki.chain import PathRefusal, Purpose, order_chain, verify_chain
from chargepki.pki.errors import ChargePkiError, InputError
from chargepki.pki.hashdata import hashed_parts
from chargepki.pki.pem import pem_blocks, to_pem

__all__ = ["Authorizer", "Contract", "Decision", "DriverFacts", "Token"]

_MAX_BYTES: Final = 1 << 20
_MAX_HASHES: Final = 4


@dataclass(frozen=True, slots=True)
class Contract:
    """The contract certificate of a vehicle, for PaymentDetailsReq."""

    emaid: str
    chain: tuple[bytes, ...]
    """Leaf first, without the root."""

    @classmethod
    def parse(cls, pem: bytes, *, emaid: str | None = None) -> Contract:
        """Read a chain; without *emaid* the CN of its leaf is the eMAID.

        Raises:
            InputError: no certificate in it, or one without a CN.
        """
        found = [block.der for block in pem_blocks(pem, max_bytes=_MAX_BYTES) if block.label == "CERTIFICATE"]
        if not found:
            raise InputError("the contract's file holds no PEM certificate", fix="pass the chain in PEM, leaf first")
        chain = tuple(order_chain(found[0], found[1:]))
        told = emaid or names.get(hashed_parts(chain[0])[2], "CN")
        if not told:
            raise InputError("the contract certificate has no CN", fix="pass --emaid")
        return cls(told, chain)


@dataclass(frozen=True, slots=True)
class Token:
    """What a driver shows at the station (external identification)."""

    text: str
    kind: str = "ISO14443"


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether the vehicle may charge."""

    may_charge: bool
    why: str


@dataclass(frozen=True, slots=True)
class DriverFacts:
    """What the decision depends on beside the CSMS."""

    variable: Callable[[str], bool]
    """A boolean of the device model, by its name with the component in front."""
    roots: Callable[[], Sequence[bytes]]
    """Installed MO and V2G roots."""
    clock: Callable[[], datetime]


class Authorizer:
    """Decides about drivers, online and offline; the list and the cache of the station are on disk."""

    def __init__(
        self,
        folder: Path,
        version: OcppVersion,
        conduct: Conduct,
        facts: DriverFacts,
        dialect: Dialect = Dialect.OCA,
    ) -> None:
        """Take up what *folder* holds.

        Raises:
            InputError: the file cannot be read.
        """
        self._dialect = dialect
        self._path, self._version, self._conduct, self._facts = folder / "authorization.json", version, conduct, facts
        self.listed: dict[str, str] = {}
        self.cached: dict[str, str] = {}
        self.list_version = 0
        if self._path.exists():
            try:
                document = orjson.loads(files.read_limited(self._path, _MAX_BYTES, "authorization.json"))
                self.listed = {str(name): str(status) for name, status in document["listed"].items()}
                self.cached = {str(name): str(status) for name, status in document["cached"].items()}
                self.list_version = int(document["list_version"])
            except (ValueError, KeyError, TypeError, AttributeError) as exc:
                raise InputError(
                    f"{self._path} cannot be read", why=type(exc).__name__, fix="remove it: the station begins anew"
                ) from exc

    async def decide(self, who: Contract | Token, call: Call | None) -> Decision:
        """Decide about a driver; *call* is ``None`` while the station is offline.

        Clause: C07.FR.01, FR.02, FR.06 to FR.12; C08.FR.01.
        """
        if isinstance(who, Token):
            if call is None:
                return Decision(False, "the station is offline, and knows no such token")
            payload: dict[str, Any] = {"idToken": {"idToken": who.text, "type": who.kind}}
        else:
            if call is None:
                return self._offline(who)
            try:
                payload = self._request(who)
            except ChargePkiError as error:
                return Decision(False, error.what)
        if isinstance(who, Token) and self._version is OcppVersion.V16:
            answer = await call("Authorize", {"idTag": who.text[:20]})
            status = str(answer["idTagInfo"]["status"])
            return Decision(status == "Accepted", f"the CSMS says {status}")
        return self._conclude(who, await send_to_csms(self._version, call, "Authorize", payload, self._dialect))

    # Online

    def _request(self, contract: Contract) -> dict[str, Any]:
        """Return the Authorize request: hash data where the station can judge the chain, else the chain itself.

        Raises:
            ChargePkiError: the chain is bad, or can be judged by nobody.
        """
        payload: dict[str, Any] = {"idToken": {"idToken": contract.emaid, "type": "eMAID"}}
        pairs = list(issued_pairs(contract.chain, self._facts.roots()))
        does = self._conduct.does
        if self._is_judged_here(contract, pairs) or does(Misbehaviour.AUTHORIZE_BOTH):
            payload["iso15118CertificateHashData"] = [question(pair, self._conduct) for pair in pairs[:_MAX_HASHES]]
            if not does(Misbehaviour.AUTHORIZE_BOTH):
                return payload
        chain = contract.chain
        if does(Misbehaviour.AUTHORIZE_WITH_ROOT):
            chain = (*chain, *self._facts.roots()[:1])
        if does(Misbehaviour.AUTHORIZE_UNORDERED):
            chain = chain[::-1]
        payload["certificate"] = "".join(to_pem("CERTIFICATE", each) for each in chain)
        return payload

    def _is_judged_here(self, contract: Contract, pairs: Sequence[tuple[bytes, bytes]]) -> bool:
        """Say whether the station judges the chain itself (C07.FR.02), or leaves it to the CSMS (C07.FR.06).

        Raises:
            ChargePkiError: it is bad, or there is no root and the CSMS may not be asked.
        """
        if len(pairs) < len(contract.chain):
            if self._facts.variable("ISO15118Ctrlr.CentralContractValidationAllowed"):
                return False
            raise InputError("no root is installed for this contract, and CentralContractValidationAllowed is false")
        self._check(contract)
        return True

    def _check(self, contract: Contract) -> None:
        verify_chain(
            contract.chain[0],
            list(contract.chain[1:]),
            list(self._facts.roots()),
            purpose=Purpose.CONTRACT,
            at=self._facts.clock(),
        )

    def _conclude(self, who: Contract | Token, answer: Mapping[str, Any]) -> Decision:
        """Charging needs the token Accepted, and the certificate Accepted or not spoken of (ocpp-security 6)."""
        status, certificate = str(answer["idTokenInfo"]["status"]), answer.get("certificateStatus")
        if isinstance(who, Contract):
            self.cached[who.emaid] = status if certificate in (None, "Accepted") else "Invalid"
            self._save()
        said = status if certificate is None else f"{status}, certificate {certificate}"
        return Decision(status == "Accepted" and certificate in (None, "Accepted"), f"the CSMS says {said}")

    # Offline

    def _offline(self, contract: Contract) -> Decision:
        variable = self._facts.variable
        if not variable("ISO15118Ctrlr.ContractValidationOffline"):
            return Decision(False, "offline, and ContractValidationOffline is false (C07.FR.07)")
        try:
            self._check(contract)
        except PathRefusal as refusal:
            return Decision(False, f"offline, and the contract is not valid: {refusal.what}")
        except ChargePkiError as error:
            return Decision(False, f"offline, and the contract cannot be judged: {error.what}")
        if not variable("AuthCtrlr.LocalAuthorizeOffline"):
            return Decision(False, "offline, and LocalAuthorizeOffline is false")
        for where, known in (("list (C07.FR.10)", self.listed), ("cache (C07.FR.11)", self.cached)):
            status = known.get(contract.emaid)
            if status is not None:
                return Decision(status == "Accepted", f"offline, {status} in the {where}")
        allowed = variable("AuthCtrlr.OfflineTxForUnknownIdEnabled")
        return Decision(allowed, f"offline, and unknown drivers may {'' if allowed else 'not '}charge (C07.FR.12)")

    # What the CSMS sends

    def take_list(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        """Answer SendLocalList of 2.x: the whole list, or what changes in it; on disk when this returns."""
        full, number = payload["updateType"] == "Full", int(payload["versionNumber"])
        if not full and number <= self.list_version:
            return {"status": "VersionMismatch"}
        listed = {} if full else dict(self.listed)
        for item in payload.get("localAuthorizationList") or []:
            token = str(item["idToken"]["idToken"])
            info = item.get("idTokenInfo")
            if info is None:
                listed.pop(token, None)
            else:
                listed[token] = str(info["status"])
        self.listed, self.list_version = listed, number
        self._save()
        return {"status": "Accepted"}

    def _save(self) -> None:
        document = {
            "schema": "chargepki.station-authorization",
            "schema_version": 1,
            "listed": self.listed,
            "list_version": self.list_version,
            "cached": dict(list(self.cached.items())[-1000:]),
        }
        files.write_durable(self._path, orjson.dumps(document), mode=0o600)
