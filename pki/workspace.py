"""Open what a workspace folder holds: inventory, keys, log key, authority."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from enum import Enum
from functools import cached_property
from typing import TYPE_CHECKING

from chargepki.pki import files
from chargepki.pki.authority import Authority
from chargepki.pki.authority.generations import CrlGenerations
from chargepki.pki.config import CONFIG_FILE, Settings
from chargepki.pki.errors import SignerError, StateError, UnavailableError
from chargepki.pki.inventory import Inventory
from chargepki.pki.inventory.address import DatabaseAddress
from chargepki.pki.inventory.audit_key import AuditKey, next_key_path
from chargepki.pki.inventory.records import Actor, ActorKind
from chargepki.pki.inventory.sealing import SealingKey
from chargepki.pki.log_key import RotatedLogKey, end_change, make_in_token, rotate_log_key
from chargepki.pki.signer import KEYS_LOCK, KeyStores, SoftwareKeyStore

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from chargepki.pki.authority.external import EnrolOutside
    from chargepki.pki.authority.four_eyes import FourEyes
    from chargepki.pki.inventory.records import CaRecord
    from chargepki.pki.passphrase import ChangedPassphrase
    from chargepki.pki.policy_settings import PolicySettings
    from chargepki.pki.signer_pkcs11 import Pkcs11KeyStore
    from chargepki.pki.signer_token import TokenKeyStore

__all__ = ["Access", "Workspace", "os_actor"]


class Access(Enum):
    """What a command may do to a workspace."""

    READ = "read"
    """Nothing is created, migrated or written."""
    CHANGE = "change"
    """Only what is there already can be changed: a mistyped folder is refused, not created."""
    REHEARSE = "rehearse"
    """A dry run: what is there is judged and changed in transactions that are all undone."""
    CREATE = "create"
    """Folder, log key and inventory are made when they are missing."""


def os_actor() -> Actor:
    """Return the operating-system user as an unauthenticated actor: a local name is no proof.

    The kernel's user, not the one that ``LOGNAME`` or ``USER`` claims: whoever runs a command chooses those.
    """
    try:
        import pwd
    except ImportError:  # Windows
        import getpass

        name = getpass.getuser()
    else:
        try:
            name = pwd.getpwuid(os.getuid()).pw_name
        except KeyError:
            # A container may run under a number that no passwd file names.
            name = f"uid-{os.getuid()}"
    return Actor(name=name, kind=ActorKind.OS_USER, authenticated=False)


class Workspace:
    """The parts of one workspace, each opened when it is first asked for.

    Args:
        passphrase: returns the passphrase of the software keys; asked only when a key is made or opened.
        access: what may be done to it.
        token_pin: returns the PIN of the token of that label, where no file for it is configured.
        process: what a PostgreSQL server shows of us, beginning with ``chargepki``.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        passphrase: Callable[[], bytes],
        actor: Actor | None = None,
        access: Access = Access.CREATE,
        token_pin: Callable[[str], bytes] | None = None,
        process: str = "chargepki",
    ) -> None:
        _check_no_restore(settings)
        self._process = process
        self.settings = settings
        self.access = access
        self.actor = actor or os_actor()
        self._passphrase = passphrase
        self._token_pin = token_pin

    @cached_property
    def inventory(self) -> Inventory:
        """The inventory; created with the workspace when it does not exist yet and `access` says so.

        Raises:
            UnavailableError: there is none, and this command creates none.
        """
        if self.access is Access.READ:
            return Inventory.open(self.settings.database, log_key=None, create=False, process=self._process)
        if self.access in (Access.REHEARSE, Access.CHANGE) and not self.exists:
            raise _absent(self.settings)
        if self.access is Access.REHEARSE:
            from chargepki.pki.inventory.rehearsal import RehearsalInventory

            return RehearsalInventory.open(self.settings.database, log_key=self.audit_key, create=False)
        return Inventory.open(self.settings.database, log_key=self.audit_key, process=self._process)

    @cached_property
    def audit_key(self) -> AuditKey:
        """The key that signs the heads of the audit log; lives outside the database."""
        path = self.settings.home / "audit.key"
        if next_key_path(path).exists():
            self._end_change_of_log_key(path)
        if self.access in (Access.READ, Access.REHEARSE):
            return AuditKey.load(path, self.keystore)
        if not path.exists() and self._has_log() and not path.exists():  # asked again: somebody may just have made it
            raise SignerError(
                f"the log key {path} is missing",
                why="the inventory has a log whose head it signed; a new key would look as if somebody had swapped it",
                fix="restore it from the backup, or copy it from another machine that shares the inventory",
            )
        files.make_private_folder(self.settings.home)
        if self.settings.key_token is not None and not path.exists():
            return self._make_log_key(path)
        return AuditKey.load_or_create(path, self.keystore)

    def _make_log_key(self, path: Path) -> AuditKey:
        """Make the log key in the token."""
        # Two processes that begin at once must not both make one.
        with files.locked(self.settings.home / KEYS_LOCK, mode=0o600):
            if path.exists():
                return AuditKey.load(path, self.keystore)
            return make_in_token(self._token_keys, self.keystore, path)

    def _has_log(self) -> bool:
        """Whether the inventory has a log already: a new key beside it would look as if somebody had swapped it."""
        return self._id_of_log_key() is not None

    def _id_of_log_key(self) -> str | None:
        """Return the id of the key that signed the head of the log; ``None`` where there is no log."""
        try:
            existing = Inventory.open(self.settings.database, log_key=None, create=False)
        except UnavailableError:
            return None  # there is no inventory yet, or the next opening says what is wrong with it
        try:
            head = existing.audit_head()
            return None if head is None else head.key_id
        finally:
            existing.close()

    def rotate_log_key(self, *, now: datetime) -> RotatedLogKey:
        """Give the audit log a new key, made where keys are made now: in the token, or in a file.

        The old key signs in the log which one follows it. When this is interrupted, the same call goes on.

        Raises:
            SignerError: a token that has one of the keys cannot be used.
            StateError: there is no log that this workspace may continue.
            UnavailableError: a file or the database cannot be written.
        """
        path, maker = self.settings.home / "audit.key", None if self.settings.key_token is None else self._token_keys
        waits = next_key_path(path).exists()
        before = self.audit_key
        if waits and not next_key_path(path).exists():
            # An earlier run had written everything but the file.
            return RotatedLogKey(None, before, completed=True)
        dry = self.access is Access.REHEARSE
        done = rotate_log_key(self.inventory, path, maker, self.keystore, actor=self.actor, now=now, rehearse=dry)
        self.__dict__["audit_key"] = done.key
        return done

    def _end_change_of_log_key(self, path: Path) -> None:
        """Let the key that waits take its place, if the log names it; it stays where it is otherwise."""
        if self.access not in (Access.READ, Access.REHEARSE):
            with files.locked(self.settings.home / KEYS_LOCK, mode=0o600):
                end_change(path, self.keystore, self._id_of_log_key())

    @cached_property
    def sealing_key(self) -> SealingKey:
        """The key under which secret parameters of operations wait in the inventory."""
        if self.access is Access.REHEARSE:
            return SealingKey(secrets.token_bytes(32))
        files.make_private_folder(self.settings.home)
        return SealingKey.load_or_create(self.settings.home / "sealing.key")

    def find_sealing_key(self) -> SealingKey | None:
        """Return `sealing_key`; ``None`` where this access may not make it and nobody has."""
        if self.access is Access.READ and not (self.settings.home / "sealing.key").exists():
            return None
        return self.sealing_key

    @cached_property
    def keystore(self) -> KeyStores:
        """Where the CA keys are: in the workspace, or in a token that the configuration reaches."""
        if self.settings.key_token is None:
            return KeyStores(self._software_keys, {"pkcs11": self.tokens})
        return KeyStores(self._token_keys, {"pkcs11": self.tokens, "file": self._software_keys})

    @cached_property
    def tokens(self) -> Pkcs11KeyStore:
        """The tokens that the configured module reaches; nothing is loaded before a key is opened."""
        from chargepki.pki.signer_pkcs11 import Pkcs11KeyStore

        return Pkcs11KeyStore(self.settings.pkcs11_module, self._pin, pin_file=self.settings.pkcs11_pin_file)

    @cached_property
    def _token_keys(self) -> TokenKeyStore:
        from chargepki.pki.signer_token import TokenKeyStore

        assert self.settings.key_token is not None, "asked for where keys are made in a token"
        return TokenKeyStore(self.tokens, self.settings.key_token, self._software_keys)

    def _pin(self, token: str) -> bytes:
        if self._token_pin is not None:
            return self._token_pin(token)
        raise SignerError(
            f"there is no PIN for the token {token}",
            why="the URI of the key names no pin-source",
            fix="set CHARGEPKI_PKCS11_PIN_FILE, or write ?pin-source=/path/of/the/file behind the URI",
        )

    @cached_property
    def _software_keys(self) -> SoftwareKeyStore:
        return SoftwareKeyStore(self.settings.home / "keys", self._passphrase)

    def check_passphrase(self) -> None:
        """Ask for the passphrase and try it on an existing key, before anything is written that needs it later.

        Where keys are made in a token, log in to it: a wrong PIN is used once, and not by every process that follows.

        Raises:
            ChargePkiError: there is none, or it opens no key of this workspace; or the token cannot be used.
        """
        if self.settings.key_token is not None:
            self._token_keys.check()
        else:
            self._software_keys.check_passphrase()

    def check_tokens(self) -> None:
        """Sign with a key of each token that was used before.

        Raises:
            SignerError: one of them cannot be used any more.
        """
        if "tokens" in self.__dict__:
            self.tokens.check()

    def passphrase(self) -> bytes:
        """Ask for the passphrase of the software keys."""
        return self._passphrase()

    def check_key_files(self) -> None:
        """Refuse where there is no software key, before anybody is asked for a passphrase.

        Raises:
            StateError: there is none.
        """
        from chargepki.pki.passphrase import check_key_files

        check_key_files(self.settings.home / "keys")

    def change_passphrase(self, old: bytes, new: bytes, *, rehearse: bool) -> ChangedPassphrase:
        """Do as `passphrase.change_passphrase`, for the keys of this workspace."""
        from chargepki.pki.passphrase import change_passphrase

        return change_passphrase(self.settings.home / "keys", old, new, rehearse=rehearse)

    @cached_property
    def authority(self) -> Authority:
        """The authority over this inventory and these keys."""
        return Authority(
            self.inventory,
            self.keystore,
            actor=self.actor,
            public_url=self.settings.public_url,
            publish_folder=None if self.access is Access.REHEARSE else self.settings.publish_dir,
            external=self._ask_outside,
            policy=self.policy,
            crl_generations=CrlGenerations(self.settings.crl_generations),
            four_eyes=lambda: self.four_eyes,
        )

    @cached_property
    def four_eyes(self) -> FourEyes:
        """The four-eyes rule of ``[approvals]`` in the configuration file, and the approvals that were brought.

        Raises:
            InputError: the table is malformed.
        """
        from chargepki.pki.authority.approvals import load_approval_settings
        from chargepki.pki.authority.four_eyes import FourEyes

        settings = load_approval_settings(self.settings.home / CONFIG_FILE)
        return FourEyes(settings, is_rehearsal=self.access is Access.REHEARSE)

    @cached_property
    def policy(self) -> PolicySettings:
        """The request policy of ``[policy]`` in the configuration file.

        Raises:
            InputError: the table is malformed.
        """
        from chargepki.pki.policy_settings import load_policy_settings

        return load_policy_settings(self.settings.home / CONFIG_FILE)

    def _ask_outside(self, ca: CaRecord) -> EnrolOutside:
        from chargepki.pki.services.est_outside import outside_ca

        return outside_ca(ca, self.settings.home)

    @property
    def exists(self) -> bool:
        """Whether there is an inventory already (one on a server is asked when it is opened)."""
        path = DatabaseAddress.parse(self.settings.database).path
        return path is None or path.exists()

    def forget_inventory(self) -> None:
        """Close the inventory and open it anew when it is next asked for: connections must not cross a fork.

        Nor must sessions with tokens: they are closed, and opened again by whoever signs next.
        """
        self.close()
        for name in ("inventory", "authority"):
            self.__dict__.pop(name, None)
        if "tokens" in self.__dict__:
            self.tokens.let_go()

    def close(self) -> None:
        """Close the inventory if it was opened."""
        if "inventory" in self.__dict__:
            self.inventory.close()


def _check_no_restore(settings: Settings) -> None:
    """Refuse a workspace whose files are partly those from before a restore."""
    # Asked by every command, so the module that restores is not loaded for it.
    if os.path.exists(settings.home / "restore.json"):  # noqa: PTH110 - a permission that is missing means no here, too
        raise StateError(
            f"a restore of the workspace {settings.home} was interrupted",
            why="its files are partly the old ones, partly the new ones",
            fix="complete it: chargepki restore --resume",
        )


def _absent(settings: Settings) -> UnavailableError:
    return UnavailableError(
        f"there is no inventory at {DatabaseAddress.parse(settings.database).shown}",
        why="this command changes what is there, and creates nothing",
        fix="create a CA first (chargepki ca create), or name the right --database or --home",
    )
