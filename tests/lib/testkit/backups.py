"""A workspace to be backed up, whoever may open its backups, and how they are restored."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pyrage

from chargepki.pki.backup import Recipients, RestoreOrder, load_identities, make_backup, parse_recipients
from chargepki.pki.config import Settings
from chargepki.pki.inventory import AuditKey, Inventory
from testkit.authorities import ACTOR, NOW

__all__ = ["World", "settings_of"]


def settings_of(home: Path, database: str | None = None) -> Settings:
    """Return the settings of a workspace that nothing but a folder and perhaps a database was said of."""
    url = database or f"sqlite:///{home / 'inventory.db'}"
    return Settings(home, url, None, None, None, MappingProxyType({}))


class World:
    """One workspace, and a pair of age keys."""

    def __init__(self, folder: Path) -> None:
        identity = pyrage.x25519.Identity.generate()
        self.folder = folder
        self.recipients: Recipients = parse_recipients([str(identity.to_public())])
        (folder / "identity").write_text(f"# a test's own\n{identity}\n")
        (folder / "identity").chmod(0o600)
        self.identities: list[Any] = load_identities(str(folder / "identity"))

    def open(self, settings: Settings) -> Inventory:
        settings.home.mkdir(mode=0o700, exist_ok=True)
        return Inventory.open(settings.database, log_key=AuditKey.load_or_create(settings.home / "audit.key"))

    def back_up(
        self, settings: Settings, *, write: Callable[[bytes], object] = lambda data: None, days: int = 0
    ) -> Path:
        """Write a backup of what *settings* name, and return its file."""
        path = self.folder / f"{len(list(self.folder.glob('*.age')))}.age"
        with self.open(settings) as inventory, path.open("wb") as stream:

            def both(data: bytes) -> None:
                stream.write(data)
                write(data)

            now = NOW + timedelta(days=days)
            make_backup(inventory, settings, self.recipients, both, actor=ACTOR, now=now)
        return path

    def order(self, settings: Settings, **changes: Any) -> RestoreOrder:
        order = {"identities": self.identities, "actor": ACTOR, "now": NOW + timedelta(days=30), **changes}
        return RestoreOrder(settings=settings, **order)
