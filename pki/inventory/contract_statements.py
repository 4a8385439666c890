"""The statements on contracts, vehicles and provisioning, beyond the ones that every audited table has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import Select, Table, bindparam
from sqlalchemy.sql.base import Executable

__all__ = ["contract_statements"]


def contract_statements(tables: Mapping[str, Table], record: Callable[[str], Select[Any]]) -> dict[str, Executable]:
    """Return them by name."""
    root, vehicle, client = (tables[name] for name in ("role_root", "provisioning_certificate", "vehicle_certificate"))
    contract, offer, given = (tables[name] for name in ("contract", "contract_offer", "provisioning"))
    return {
        "role_roots": record("role_root").order_by(root.c.use, root.c.id),
        "provisioning_certificates": record("provisioning_certificate")
        .where(vehicle.c.vehicle > bindparam("after"))
        .order_by(vehicle.c.vehicle, vehicle.c.added_at, vehicle.c.id),
        "provisioning_certificates_of": record("provisioning_certificate")
        .where(vehicle.c.vehicle == bindparam("vehicle"))
        .order_by(vehicle.c.added_at, vehicle.c.id),
        "vehicle_certificates": record("vehicle_certificate").order_by(client.c.evccid, client.c.added_at, client.c.id),
        "vehicle_certificates_of": record("vehicle_certificate")
        .where(client.c.evccid == bindparam("evccid"))
        .order_by(client.c.added_at, client.c.id),
        "contracts": record("contract").order_by(contract.c.id),
        "contract_offers_to": record("contract_offer")
        .where(offer.c.vehicle == bindparam("vehicle"))
        .order_by(offer.c.priority, offer.c.contract),
        "contract_offers_of": record("contract_offer")
        .where(offer.c.contract == bindparam("contract"))
        .order_by(offer.c.vehicle),
        "provisionings_of_request": record("provisioning")
        .where(given.c.request == bindparam("request"))
        .order_by(given.c.began_at, given.c.id),
        "provisionings_of_contract": record("provisioning")
        .where(given.c.contract == bindparam("contract"))
        .order_by(given.c.began_at, given.c.id),
        "provisionings_of_certificate": record("provisioning").where(given.c.certificate == bindparam("certificate")),
        "provisionings_begun": record("provisioning")
        .where(given.c.state == "begun", given.c.began_at < bindparam("before"))
        .order_by(given.c.began_at, given.c.id),
    }
