"""Typed writes of contracts, vehicles, and what was provisioned."""

from __future__ import annotations

from datetime import datetime
from typing import TypeVar

from chargepki.pki.errors import Conflict, NotFound, StateError
from chargepki.pki.inventory.codec import (
    CONTRACT,
    CONTRACT_OFFER,
    PROVISIONING,
    PROVISIONING_CERTIFICATE,
    ROLE_ROOT,
    VEHICLE_CERTIFICATE,
    RowKind,
)
from chargepki.pki.inventory.contract_records import (
    ContractOfferRecord,
    ContractRecord,
    ContractState,
    OfferState,
    ProvisioningCertificateRecord,
    ProvisioningRecord,
    ProvisioningState,
    RoleRootRecord,
    RoleRootState,
    VehicleCertificateRecord,
    VehicleState,
)
from chargepki.pki.inventory.writes import Writes

__all__ = ["ContractWrites"]

_Held = TypeVar("_Held", ProvisioningCertificateRecord, VehicleCertificateRecord)


class ContractWrites(Writes):
    """Mixin of `Transaction`."""

    __slots__ = ()

    def put_role_root(self, record: RoleRootRecord) -> RoleRootRecord:
        """Store a root, or trust a withdrawn one again; return what is on record.

        Raises:
            Conflict: it is trusted for another use.
        """
        try:
            before = self._stored(ROLE_ROOT, "root", id=record.id)
        except NotFound:
            self._add(ROLE_ROOT, record, "the root")
            return record
        if before["use"] != record.use and before["state"] == RoleRootState.TRUSTED.value:
            raise Conflict(
                f"the root {record.subject} is trusted for another use already",
                why="what a root is trusted for is a condition of validity (V2G2-925)",
                fix="withdraw it first",
            )
        changes = {
            name: getattr(record, name) for name in ("use", "source", "manufacturers", "state", "added_by", "added_at")
        }
        return self._change(ROLE_ROOT, before, changes if before["state"] != record.state.value else {})

    def withdraw_role_root(self, sha256: str) -> RoleRootRecord:
        """Believe a root no more; doing it again changes nothing.

        Raises:
            NotFound: there is none.
        """
        return self._change(ROLE_ROOT, self._stored(ROLE_ROOT, "root", id=sha256), {"state": RoleRootState.WITHDRAWN})

    def put_provisioning_certificate(self, record: ProvisioningCertificateRecord) -> ProvisioningCertificateRecord:
        """Store a provisioning certificate, or take a removed one in again; one that is there stays as it is."""
        return self._put_held(PROVISIONING_CERTIFICATE, record, "provisioning certificate")

    def remove_provisioning_certificate(self, sha256: str) -> ProvisioningCertificateRecord:
        """Provision nothing more to a certificate; doing it again changes nothing.

        Raises:
            NotFound: there is none.
        """
        before = self._stored(PROVISIONING_CERTIFICATE, "provisioning certificate", id=sha256)
        return self._change(PROVISIONING_CERTIFICATE, before, {"state": VehicleState.REMOVED})

    def put_vehicle_certificate(self, record: VehicleCertificateRecord) -> VehicleCertificateRecord:
        """Store a vehicle certificate, or take a removed one in again; one that is there stays as it is."""
        return self._put_held(VEHICLE_CERTIFICATE, record, "vehicle certificate")

    def remove_vehicle_certificate(self, sha256: str) -> VehicleCertificateRecord:
        """Hold a vehicle certificate for current no more; doing it again changes nothing.

        Raises:
            NotFound: there is none.
        """
        before = self._stored(VEHICLE_CERTIFICATE, "vehicle certificate", id=sha256)
        return self._change(VEHICLE_CERTIFICATE, before, {"state": VehicleState.REMOVED})

    def _put_held(self, kind: RowKind[_Held], record: _Held, what: str) -> _Held:
        try:
            before = self._stored(kind, what, id=record.id)
        except NotFound:
            self._add(kind, record, f"the {what}")
            return record
        changes = {name: getattr(record, name) for name in ("sub_cas", "state", "added_by", "added_at")}
        is_removed = before["state"] != VehicleState.ACTIVE.value
        return self._change(kind, before, changes if is_removed else {})

    def add_contract(self, record: ContractRecord) -> None:
        """Store a new contract.

        Raises:
            Conflict: there is one of these 14 characters, ended ones included.
        """
        known = self.find_contract(record.id)
        if known is not None:
            raise Conflict(
                f"the contract {known.emaid} exists already, and is {known.state.value}",
                why="an EMAID is never given twice",
                fix=f"see: chargepki contract show {known.emaid}",
            )
        self._add(CONTRACT, record, "the contract")

    def end_contract(self, account: str, *, reason: str, now: datetime) -> ContractRecord:
        """End a contract for good and return it; an ended one stays as it is.

        Raises:
            NotFound: there is none.
        """
        before = self._stored(CONTRACT, "contract", id=account)
        if before["state"] == ContractState.ENDED.value:
            return CONTRACT.decode([before[column] for column in CONTRACT.columns])
        return self._change(CONTRACT, before, {"state": ContractState.ENDED, "ended_at": now, "ended_reason": reason})

    def put_offer(self, record: ContractOfferRecord) -> None:
        """Offer a contract to a vehicle, again where it was before.

        Raises:
            StateError: the contract has ended.
        """
        self._check_active(record.contract)
        try:
            before = self._stored(CONTRACT_OFFER, "offer", contract=record.contract, vehicle=record.vehicle)
        except NotFound:
            self._add(CONTRACT_OFFER, record, "the offer")
            return
        changes = {name: getattr(record, name) for name in ("state", "priority", "offered_by", "offered_at")}
        self._change(CONTRACT_OFFER, before, changes)

    def withdraw_offer(self, contract: str, vehicle: str) -> ContractOfferRecord:
        """Give a contract to a vehicle no more; doing it again changes nothing.

        Raises:
            NotFound: it was never offered to it.
        """
        before = self._stored(CONTRACT_OFFER, "offer", contract=contract, vehicle=vehicle)
        return self._change(CONTRACT_OFFER, before, {"state": OfferState.WITHDRAWN})

    def begin_provisioning(self, record: ProvisioningRecord) -> None:
        """Record an answer before anything of it is made.

        Raises:
            StateError: the contract has ended.
        """
        self._check_active(record.contract)
        self._add(PROVISIONING, record, "the answer")

    def finish_provisioning(
        self, provisioning: str, *, certificate: str, response: bytes, round: int, now: datetime
    ) -> ProvisioningRecord:
        """Record the response of an answer that was begun.

        Raises:
            StateError: it was voided meanwhile, because it took too long.
        """
        before = self._stored(PROVISIONING, "answer", id=provisioning)
        if before["state"] != ProvisioningState.BEGUN.value:
            raise StateError(
                f"the answer {provisioning} was given up meanwhile",
                why="it took so long that another process held it for interrupted",
                fix="the vehicle asks again",
            )
        changes: dict[str, object] = {
            "state": ProvisioningState.ANSWERED,
            "certificate": certificate,
            "response": response,
            "round": round,
            "told_at": now,
        }
        return self._change(PROVISIONING, before, changes)

    def tell_provisioning(self, provisioning: str, *, round: int, now: datetime) -> ProvisioningRecord:
        """Record that a finished answer is given out again."""
        before = self._stored(PROVISIONING, "answer", id=provisioning)
        return self._change(PROVISIONING, before, {"round": round, "told_at": now})

    def void_provisioning(self, provisioning: str, certificate: str | None = None) -> ProvisioningRecord:
        """Give up an answer; *certificate* is what was made of it and is never given out."""
        before = self._stored(PROVISIONING, "answer", id=provisioning)
        changes: dict[str, object] = {"state": ProvisioningState.VOID}
        if certificate is not None:
            changes["certificate"] = certificate
        return self._change(PROVISIONING, before, changes)

    def _check_active(self, account: str) -> None:
        contract = self.get_contract(account)
        if contract.state is not ContractState.ACTIVE:
            raise StateError(
                f"the contract {contract.emaid} has ended",
                why=contract.ended_reason or "",
                fix="create another: chargepki contract create",
            )
