"""Change the passphrase of the software keys: file by file, each whole under the old one or the new one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from chargepki.pki import files, keys, private_keys
from chargepki.pki.errors import SignerError, StateError
from chargepki.pki.keys import PrivateKey
from chargepki.pki.signer import KEYS_LOCK

__all__ = ["ChangedPassphrase", "change_passphrase", "check_key_files"]


@dataclass(frozen=True, slots=True)
class ChangedPassphrase:
    """What a change of the passphrase did."""

    changed: tuple[str, ...]
    """Key files that have the new passphrase now."""
    had_it: tuple[str, ...]
    """Those that had it already: an earlier run was interrupted."""


def change_passphrase(folder: Path, old: bytes, new: bytes, *, rehearse: bool = False) -> ChangedPassphrase:
    """Encrypt every key file of *folder* under *new*; what an interrupted run had done already is left as it is.

    Nothing is changed before each of them was opened. A file is replaced only by one that was opened with *new* and
    gave the same key. New keys wait meanwhile, and so does a backup.

    Args:
        rehearse: open all of them, and change none.

    Raises:
        SignerError: a file opens with neither; none was changed.
        StateError: there is no key file, or the two are the same.
        UnavailableError: a file cannot be written; the same call goes on.
    """
    if old == new:
        raise StateError(
            "the new passphrase is the old one", why="nothing would change", fix="choose another, and keep it elsewhere"
        )
    check_key_files(folder)
    with files.locked(folder.parent / KEYS_LOCK, mode=0o600):
        paths = sorted(folder.glob("*.key"))
        opened = {path: _open(path, old, new) for path in paths}
        had_it = tuple(path.name for path, key in opened.items() if key is None)
        changed = []
        for path, key in opened.items():
            if key is None:
                continue
            pem = private_keys.encrypt_private_key(key, new)
            if keys.spki_der(private_keys.decrypt_private_key(pem, new).public_key()) != keys.spki_der(
                key.public_key()
            ):
                raise SignerError(f"{path} could not be encrypted anew", why="it opens as another key")
            if not rehearse:
                files.write_durable(path, pem, mode=0o600)
            changed.append(path.name)
    return ChangedPassphrase(tuple(changed), had_it)


def check_key_files(folder: Path) -> None:
    """Refuse a *folder* without key files.

    Raises:
        StateError: there is none; keys in tokens have no passphrase.
    """
    if not any(folder.glob("*.key")):
        raise StateError(
            f"there is no key file in {folder}",
            why="keys in tokens have the PIN of their token, and no passphrase",
            fix="check --home; a PIN is changed with the token's own tool, for example pkcs11-tool --change-pin",
        )


def _open(path: Path, old: bytes, new: bytes) -> PrivateKey | None:
    """Return the key that *old* opens; ``None`` when *new* opens it already."""
    pem = files.read_private(path)
    try:
        return private_keys.decrypt_private_key(pem, old)
    except SignerError as exc:
        try:
            private_keys.decrypt_private_key(pem, new)
        except SignerError:
            raise SignerError(
                f"cannot open the key {path}",
                why=f"{exc.why or exc.what}; the new passphrase does not open it either. No key was changed",
                fix="give the present passphrase with --passphrase-file, or restore that file from the backup",
            ) from exc
        return None
