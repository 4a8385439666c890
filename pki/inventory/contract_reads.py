"""Typed reads of contracts, vehicles, and what was provisioned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from chargepki.pki.errors import NotFound
from chargepki.pki.inventory.codec import (
    CONTRACT,
    CONTRACT_OFFER,
    PROVISIONING,
    PROVISIONING_CERTIFICATE,
    ROLE_ROOT,
    VEHICLE_CERTIFICATE,
    encode_time,
)
from chargepki.pki.inventory.contract_records import (
    ContractOfferRecord,
    ContractRecord,
    ProvisioningCertificateRecord,
    ProvisioningRecord,
    RoleRootRecord,
    VehicleCertificateRecord,
)

__all__ = ["ContractReads"]


class _Rows(Protocol):
    def _rows(self, statement: str, parameters: Mapping[str, object]) -> list[Sequence[Any]]: ...


class ContractReads:
    """Mixin of `Reads`."""

    __slots__ = ()

    def find_role_root(self: _Rows, sha256: str) -> RoleRootRecord | None:
        """Return a root by the SHA-256 of its DER (lower-case hex), or ``None``."""
        rows = self._rows("role_root_get", {"id": sha256})
        return ROLE_ROOT.decode(rows[0]) if rows else None

    def list_role_roots(self: _Rows) -> Iterator[RoleRootRecord]:
        """Return every root of somebody else, by use; withdrawn ones included."""
        yield from map(ROLE_ROOT.decode, self._rows("role_roots", {}))

    def find_provisioning_certificate(self: _Rows, sha256: str) -> ProvisioningCertificateRecord | None:
        """Return a provisioning certificate by the SHA-256 of its DER (lower-case hex), or ``None``."""
        rows = self._rows("provisioning_certificate_get", {"id": sha256})
        return PROVISIONING_CERTIFICATE.decode(rows[0]) if rows else None

    def list_provisioning_certificates(
        self: _Rows, vehicle: str | None = None
    ) -> tuple[ProvisioningCertificateRecord, ...]:
        """Return those of a vehicle by its PCID, or of all; by vehicle, oldest first, removed ones included."""
        if vehicle is None:
            rows = self._rows("provisioning_certificates", {"after": ""})
        else:
            rows = self._rows("provisioning_certificates_of", {"vehicle": vehicle})
        return tuple(map(PROVISIONING_CERTIFICATE.decode, rows))

    def find_vehicle_certificate(self: _Rows, sha256: str) -> VehicleCertificateRecord | None:
        """Return a vehicle certificate of ISO 15118-20 by the SHA-256 of its DER (lower-case hex), or ``None``."""
        rows = self._rows("vehicle_certificate_get", {"id": sha256})
        return VEHICLE_CERTIFICATE.decode(rows[0]) if rows else None

    def list_vehicle_certificates(self: _Rows, evccid: str | None = None) -> tuple[VehicleCertificateRecord, ...]:
        """Return those of a vehicle by its EVCCID, or of all; by vehicle, oldest first, removed ones included."""
        if evccid is None:
            rows = self._rows("vehicle_certificates", {})
        else:
            rows = self._rows("vehicle_certificates_of", {"evccid": evccid})
        return tuple(map(VEHICLE_CERTIFICATE.decode, rows))

    def find_contract(self: _Rows, account: str) -> ContractRecord | None:
        """Return a contract by the 14 characters that identify it, or ``None``."""
        rows = self._rows("contract_get", {"id": account})
        return CONTRACT.decode(rows[0]) if rows else None

    def get_contract(self: _Rows, account: str) -> ContractRecord:
        """Return a contract by the 14 characters that identify it.

        Raises:
            NotFound: there is none.
        """
        rows = self._rows("contract_get", {"id": account})
        if not rows:
            raise NotFound(f"there is no contract {account}", fix="list them with: chargepki contract list")
        return CONTRACT.decode(rows[0])

    def list_contracts(self: _Rows) -> Iterator[ContractRecord]:
        """Return every contract, by its EMAID."""
        yield from map(CONTRACT.decode, self._rows("contracts", {}))

    def list_offers_to(self: _Rows, vehicle: str) -> tuple[ContractOfferRecord, ...]:
        """Return the contracts for a vehicle, by priority; withdrawn offers included."""
        return tuple(map(CONTRACT_OFFER.decode, self._rows("contract_offers_to", {"vehicle": vehicle})))

    def list_offers_of(self: _Rows, contract: str) -> tuple[ContractOfferRecord, ...]:
        """Return the vehicles that a contract is for; withdrawn offers included."""
        return tuple(map(CONTRACT_OFFER.decode, self._rows("contract_offers_of", {"contract": contract})))

    def find_provisioning(self: _Rows, provisioning: str) -> ProvisioningRecord | None:
        """Return one answer, or ``None``."""
        rows = self._rows("provisioning_get", {"id": provisioning})
        return PROVISIONING.decode(rows[0]) if rows else None

    def list_answers_to(self: _Rows, request: str) -> tuple[ProvisioningRecord, ...]:
        """Return what was answered to a signed request, oldest first."""
        return tuple(map(PROVISIONING.decode, self._rows("provisionings_of_request", {"request": request})))

    def list_provisionings(self: _Rows, contract: str) -> tuple[ProvisioningRecord, ...]:
        """Return what was provisioned of a contract, oldest first."""
        return tuple(map(PROVISIONING.decode, self._rows("provisionings_of_contract", {"contract": contract})))

    def find_provisioning_of(self: _Rows, certificate: str) -> ProvisioningRecord | None:
        """Return by which answer a contract certificate (``CA:SERIAL``) left the house, or ``None``."""
        rows = self._rows("provisionings_of_certificate", {"certificate": certificate})
        return PROVISIONING.decode(rows[0]) if rows else None

    def list_interrupted_provisionings(self: _Rows, before: datetime) -> tuple[ProvisioningRecord, ...]:
        """Return answers that were begun before an instant and are not finished."""
        return tuple(map(PROVISIONING.decode, self._rows("provisionings_begun", {"before": encode_time(before)})))
