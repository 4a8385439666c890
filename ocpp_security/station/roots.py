"""The roots of the simulated station: a durable store for every use, and the answers to M03, M04 and M05."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from chargepki.ocpp_security import pnc_transfer
from chargepki.ocpp_security.errors import OcppRefusal, StatusAnswer
from chargepki.ocpp_security.sign_certificate import InstalledCertificate
from chargepki.ocpp_security.station.misbehaviour import HONEST, Conduct, Misbehaviour
from chargepki.ocpp_security.trust_store import (
    InstalledRoot,
    TrustPolicy,
    answer_listing,
    is_signed_by,
    plan_delete,
    plan_install,
)
from chargepki.ocpp_security.versions import OcppVersion
from chargepki.ocpp_security.wire import CertificateUse, RootUse, parse_root_use, status_answer
from chargepki.pki import files
from chargepki.pki.errors import ChargePkiError, InputError, UnavailableError
from chargepki.pki.pem import pem_blocks, to_pem

__all__ = ["StationRoots"]

_FILES: Final = {
    RootUse.CSMS: "trust.pem",
    RootUse.MANUFACTURER: "manufacturer.pem",
    RootUse.V2G: "roots-v2g.pem",
    RootUse.MO: "roots-mo.pem",
    RootUse.OEM: "roots-oem.pem",
}
_FALLBACK: Final = "fallback.pem"
_MAX_BYTES: Final = 1 << 20
_ACTIONS: Final = frozenset({"InstallCertificate", "DeleteCertificate", "GetInstalledCertificateIds"})


class StationRoots:
    """What the station trusts, in its folder; every change is on disk before the CSMS hears of it."""

    def __init__(
        self,
        folder: Path,
        version: OcppVersion,
        policy: TrustPolicy,
        *,
        own: Callable[[], Sequence[InstalledCertificate]],
        tell: Callable[[str], None],
        conduct: Conduct = HONEST,
    ) -> None:
        self._folder, self._version, self.policy, self._conduct = folder, version, policy, conduct
        self._own, self._tell = own, tell
        self.in_use: bytes | None = None
        """The CSMS root that verified the server of the present connection."""

    # The store

    def installed(self) -> tuple[InstalledRoot, ...]:
        """Return every root, the fallback one included."""
        found = [InstalledRoot(use, der) for use, name in _FILES.items() for der in self._read(name)]
        found += [InstalledRoot(RootUse.CSMS, der, is_fallback=True) for der in self._read(_FALLBACK)]
        return tuple(found)

    def of(self, *uses: RootUse) -> tuple[bytes, ...]:
        """Return the roots of these uses, in the order of their installation."""
        return tuple(der for use in uses for der in self._read(_FILES[use]))

    def csms(self, *, fallback: bool = False) -> tuple[bytes, ...]:
        """Return the CSMS roots to verify a server with, or the one to fall back to (M05.FR.14)."""
        return self._read(_FALLBACK if fallback else _FILES[RootUse.CSMS])

    def worked(self, chain: Sequence[bytes], *, fallback: bool) -> None:
        """Note which root verified the server; the new one ends the fallback (M05.FR.13)."""
        roots = self.csms(fallback=fallback)
        self.in_use = next((der for der in roots if any(is_signed_by(each, der) for each in chain)), None)
        if not fallback and self._read(_FALLBACK):
            self._write(_FALLBACK, ())
            self._tell("the new CSMS root has opened a connection: the old one is removed")

    def _read(self, name: str) -> tuple[bytes, ...]:
        path = self._folder / name
        if not path.exists():
            return ()
        data = files.read_limited(path, _MAX_BYTES, "roots")
        return tuple(block.der for block in pem_blocks(data, max_bytes=_MAX_BYTES) if block.label == "CERTIFICATE")

    def _write(self, name: str, certificates: Sequence[bytes]) -> None:
        path = self._folder / name
        if certificates:
            files.write_durable(path, "".join(to_pem("CERTIFICATE", der) for der in certificates).encode())
        elif path.exists():
            files.remove_durable(path)

    # Answers

    def handles(self, action: str) -> bool:
        """Say whether *action* is about roots."""
        return action in _ACTIONS

    def answer(self, action: str, payload: Mapping[str, Any], now: datetime, *, over_tls: bool) -> dict[str, Any]:
        """Do what the CSMS asks and return the payload of the answer."""
        return self._answer(self._version, action, payload, now, over_tls)

    def answer_transfer(self, payload: Mapping[str, Any], now: datetime, *, over_tls: bool) -> dict[str, Any]:
        """Answer a DataTransfer of 1.6: the same messages for V2G and MO roots, in the words of 2.0.1."""
        if self._version is not OcppVersion.V16 or payload.get("vendorId") != pnc_transfer.VENDOR:
            return {"status": "UnknownVendorId"}
        try:
            found = pnc_transfer.read_transfer(payload)
        except InputError:
            return {"status": "Rejected"}
        if found is None or found.message not in _ACTIONS:
            return {"status": "UnknownMessageId"}
        answer = self._answer(OcppVersion.V201, found.message, found.payload, now, over_tls)
        return pnc_transfer.wrap_answer(found, answer)

    def _answer(
        self, version: OcppVersion, action: str, payload: Mapping[str, Any], now: datetime, over_tls: bool
    ) -> dict[str, Any]:
        does = self._conduct.does
        if action == "InstallCertificate":
            if does(Misbehaviour.ROOT_FORGOTTEN):
                return {"status": "Accepted"}
            return self._install(version, payload, now, over_tls)
        if action == "DeleteCertificate":
            return {"status": "Accepted"} if does(Misbehaviour.DELETE_FORGOTTEN) else self._delete(payload, over_tls)
        asked = payload.get("certificateType")
        names = [asked] if isinstance(asked, str) else asked or []
        uses = [parse_root_use(version, name) for name in names]
        if not uses:
            # 1.6 has no call for all; a version never lists what it has no word for.
            uses = [use for use in RootUse if use is not RootUse.OEM or version is OcppVersion.V21]
        chains = self._chains() if RootUse.V2G_CHAIN in uses else ()
        answer = answer_listing(version, uses, self._findable(), self.policy, chains=chains)
        return self._misreported(version, answer)

    def _misreported(self, version: OcppVersion, answer: dict[str, Any]) -> dict[str, Any]:
        """Return a listing as stations with a mistake in it send it."""
        member = "certificateHashData" if version is OcppVersion.V16 else "certificateHashDataChain"
        if self._conduct.does(Misbehaviour.LIST_EMPTY) and answer["status"] == "NotFound":
            return {"status": "Accepted", member: []}
        if self._conduct.does(Misbehaviour.LIST_CHILDREN_REVERSED) and version is not OcppVersion.V16:
            for item in answer.get(member, []):
                item.get("childCertificateHashData", []).reverse()
        return answer

    def _findable(self) -> list[InstalledRoot]:
        """Return what can be listed and deleted: a station that takes anything loses what is no root."""
        every = self.installed()
        return [root for root in every if not self.policy.takes_anything or is_signed_by(root.der, root.der)]

    def _install(
        self, version: OcppVersion, payload: Mapping[str, Any], now: datetime, over_tls: bool
    ) -> dict[str, Any]:
        use = parse_root_use(version, str(payload["certificateType"]))
        try:
            plan = plan_install(use, str(payload["certificate"]), self.installed(), self.policy, now, over_tls=over_tls)
        except OcppRefusal as refusal:
            assert isinstance(refusal.answer, StatusAnswer)
            self._tell(f"refused a root for {use.value}: {refusal.what}")
            return status_answer(version, refusal.answer)
        name = _FILES[use]
        try:
            if plan.fallback is not None:
                # The old root first: a crash in between leaves it in both places, and the station connects.
                self._write(_FALLBACK, (plan.fallback,))
                self._write(name, (plan.root.der,))
            elif not plan.replaces:
                self._write(name, (*self._read(name), plan.root.der))
        except UnavailableError as error:
            self._tell(f"could not store a root for {use.value}: {error}")
            return {"status": "Failed"}
        self._tell(f"installed a root for {use.value}" + (", the old one as fallback" if plan.fallback else ""))
        return {"status": "Accepted"}

    def _delete(self, payload: Mapping[str, Any], over_tls: bool) -> dict[str, Any]:
        own = [(item.chain_der[0], self._issuer(item)) for item in self._own()]
        asked = payload["certificateHashData"]
        plan = plan_delete(asked, self._findable(), self.policy, own=own, in_use=self.in_use, over_tls=over_tls)
        if plan.status != "Accepted":
            self._tell(f"did not delete a root: {plan.why}")
            return {"status": plan.status}
        for root in plan.removes:
            name = _FALLBACK if root.is_fallback else _FILES[root.use]
            try:
                self._write(name, [der for der in self._read(name) if der != root.der])
            except ChargePkiError as error:
                self._tell(f"could not delete a root: {error}")
                return {"status": "Failed"}
            self._tell(f"deleted a root for {root.use.value}")
        return {"status": "Accepted"}

    def _issuer(self, item: InstalledCertificate) -> bytes | None:
        candidates = [*item.chain_der[1:], *(root.der for root in self.installed())]
        return next((der for der in candidates if is_signed_by(item.chain_der[0], der)), None)

    def v2g_root_to_name(self) -> bytes | None:
        """Return the V2G root for the next V2G certificate: one without a leaf under it, else the newest (2.1, M)."""
        roots = self.of(RootUse.V2G)
        used = [item.chain_der[-1] for item in self._own() if item.use is not CertificateUse.CHARGING_STATION]
        free = [root for root in roots if not any(is_signed_by(last, root) for last in used)]
        return (free or roots or (None,))[-1]

    def _chains(self) -> list[tuple[bytes, ...]]:
        """Return the V2G chains, each with the root above it, which is needed for the last hash."""
        found = []
        for item in self._own():
            if item.use is CertificateUse.CHARGING_STATION:
                continue
            root = next((each.der for each in self.installed() if is_signed_by(item.chain_der[-1], each.der)), None)
            if root is not None:
                found.append((*item.chain_der, root))
        return found
