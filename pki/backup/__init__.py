"""Backups of a workspace, encrypted to age recipients, and restores that are verified before anything is replaced."""

from __future__ import annotations

from chargepki.pki.backup.age import Recipients, load_identities, parse_recipients
from chargepki.pki.backup.examining import Examined, examine
from chargepki.pki.backup.making import Backup, make_backup
from chargepki.pki.backup.replacing import carry_out, read_journal
from chargepki.pki.backup.restoring import Restored, RestoreOrder, restore
from chargepki.pki.backup.unpacking import BackupHeader, unpack

__all__ = [
    "Backup",
    "BackupHeader",
    "Examined",
    "Recipients",
    "RestoreOrder",
    "Restored",
    "carry_out",
    "examine",
    "load_identities",
    "make_backup",
    "parse_recipients",
    "read_journal",
    "restore",
    "unpack",
]
