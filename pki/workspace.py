"""Open what a workspace folder holds: inventory, keys, log key, authority."""

from __future__ import annotations

import getpass
import os
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

from chargepki.pki import files
from chargepki.pki.authority import Authority
from chargepki.pki.config import Settings
from chargepki.pki.inventory import Inventory
from chargepki.pki.inventory.audit import AuditKey
from chargepki.pki.inventory.records import Actor, ActorKind
from chargepki.pki.inventory.sealing import SealingKey
from chargepki.pki.signer import KeyStores, SoftwareKeyStore

__all__ = ["Workspace", "os_actor"]


def os_actor() -> Actor:
    """Return the operating-system user as an unauthenticated actor: a local name is no proof."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        # A container may run under a number that no passwd file names.
        name = f"uid-{os.getuid()}"
    return Actor(name=name, kind=ActorKind.OS_USER, authenticated=False)


class Workspace:
    """The parts of one workspace, each opened when it is first asked for.

    Args:
        passphrase: returns the passphrase of the software keys; asked only when a key is made or opened.
    """

    def __init__(self, settings: Settings, *, passphrase: Callable[[], bytes], actor: Actor | None = None) -> None:
        self.settings = settings
        self.actor = actor or os_actor()
        self._passphrase = passphrase

    @cached_property
    def inventory(self) -> Inventory:
        """The inventory; created with the workspace when it does not exist yet."""
        files.make_private_folder(self.settings.home)
        return Inventory.open(self.settings.database, log_key=self.audit_key)

    @cached_property
    def audit_key(self) -> AuditKey:
        """The key that signs the heads of the audit log; lives outside the database."""
        files.make_private_folder(self.settings.home)
        return AuditKey.load_or_create(self.settings.home / "audit.key")

    @cached_property
    def sealing_key(self) -> SealingKey:
        """The key under which secret parameters of operations wait in the inventory."""
        files.make_private_folder(self.settings.home)
        return SealingKey.load_or_create(self.settings.home / "sealing.key")

    @cached_property
    def keystore(self) -> KeyStores:
        """Where the CA keys are."""
        folder = self.settings.home / "keys"
        return KeyStores({"file": SoftwareKeyStore(folder, self._passphrase)})

    @cached_property
    def authority(self) -> Authority:
        """The authority over this inventory and these keys."""
        return Authority(
            self.inventory,
            self.keystore,
            actor=self.actor,
            public_url=self.settings.public_url,
            publish_folder=self.settings.publish_dir,
        )

    @property
    def exists(self) -> bool:
        """Whether the workspace folder was created already; reading commands say so instead of creating it."""
        return Path(self.settings.home).is_dir()

    def close(self) -> None:
        """Close the inventory if it was opened."""
        if "inventory" in self.__dict__:
            self.inventory.close()
