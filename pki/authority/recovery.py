"""Complete or void the reservations that an interrupted run left behind."""

from __future__ import annotations

from datetime import datetime

from chargepki.pki.authority.issuance import Issuer, check_stored, complete, finish
from chargepki.pki.authority.repeats import void
from chargepki.pki.errors import InputError, PolicyRefusal, StateError
from chargepki.pki.inventory import Inventory, Transaction
from chargepki.pki.inventory.records import Actor, CertificateRecord

__all__ = ["recover_reservations", "settle", "void_reservations"]


def recover_reservations(
    inventory: Inventory, issuer: Issuer, *, actor: Actor, now: datetime
) -> list[CertificateRecord]:
    """Settle every open reservation of *issuer* and return them in their new state.

    A reservation of a process that is still alive may be among them. That is harmless: the one that records first
    wins, and the other hands out what was recorded (see `finish`).
    """
    return [settle(inventory, record, issuer, actor=actor, now=now) for record in inventory.list_reserved(issuer.ca.id)]


def void_reservations(
    inventory: Inventory, ca_id: str, *, actor: Actor, now: datetime, reason: str
) -> list[CertificateRecord]:
    """Void every open reservation of a CA that may not issue any more; needs no key."""

    def work(tx: Transaction) -> list[CertificateRecord]:
        return [void(tx, record, actor=actor, now=now, reason=reason) for record in list(tx.list_reserved(ca_id))]

    return inventory.write(work)


def settle(
    inventory: Inventory, record: CertificateRecord, issuer: Issuer, *, actor: Actor, now: datetime
) -> CertificateRecord:
    """Complete *record* from its stored bytes; void it when its validity is over or they are not fit to be signed."""
    if record.not_after < now:
        return inventory.write(lambda tx: void(tx, record, actor=actor, now=now, reason="its validity is over"))
    try:
        check_stored(record, issuer)
    except (InputError, PolicyRefusal, StateError) as error:
        unfit = f"its stored bytes are not signed: {error.what}"
        return inventory.write(lambda tx: void(tx, record, actor=actor, now=now, reason=unfit))
    der = complete(record, issuer)
    return inventory.write(lambda tx: finish(tx, record, der, actor=actor, now=now))
