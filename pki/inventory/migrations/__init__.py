"""Alembic migrations of the inventory, run by `chargepki.pki.inventory.migrate`."""
