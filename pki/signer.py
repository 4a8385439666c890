"""Private keys behind a URI: software keys in encrypted files, handed out as cryptography key objects."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol, TypeAlias

from chargepki.pki import files, keys, private_keys
from chargepki.pki.errors import Conflict, InputError, SignerError, UnavailableError
from chargepki.pki.keys import KeyAlgorithm, PrivateKey, PublicKey

__all__ = ["KEYS_LOCK", "KeyOpener", "KeyStore", "KeyStores", "Passphrase", "Signer", "SoftwareKeyStore"]

Passphrase: TypeAlias = Callable[[], bytes]
"""Gives the passphrase when it is first needed; called at most once by each store."""

KEYS_LOCK: Final = "keys.lock"
"""Beside the folder of the keys; held by whoever needs all of them to have one passphrase."""
_LABEL: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,119}\Z", re.ASCII)
_SCHEME: Final = re.compile(r"([a-z][a-z0-9+.-]*):", re.ASCII)


@dataclass(frozen=True, slots=True)
class Signer:
    """A key that can sign; where it lives is its store's business."""

    uri: str
    private_key: PrivateKey = field(repr=False)
    """A cryptography key object, so that the library's own builders take it; a token's adapter is a subclass."""
    public_key: PublicKey = field(repr=False)
    algorithm: KeyAlgorithm
    spki_der: bytes = field(repr=False)

    @classmethod
    def of(cls, uri: str, private_key: PrivateKey) -> Signer:
        """Return the signer for a key object.

        Raises:
            InputError: its algorithm is not one of `KeyAlgorithm`.
        """
        public = private_key.public_key()
        return cls(uri, private_key, public, keys.algorithm_of(public), keys.spki_der(public))

    def sign(self, data: bytes) -> bytes:
        """Return the signature over *data* that `keys.signature_algorithm` names for this key."""
        return keys.sign(self.private_key, data)


class KeyOpener(Protocol):
    """A key store whose keys are made elsewhere, as in a token."""

    def open(self, uri: str) -> Signer:
        """Return the signer; SignerError when the key is absent or locked."""


class KeyStore(KeyOpener, Protocol):
    """A key store that makes keys as well."""

    def create(self, label: str, algorithm: KeyAlgorithm) -> str:
        """Make a key and return its URI; Conflict when the label is taken."""

    def exists(self, label: str) -> bool:
        """Return whether a key of that label is there."""

    def uri(self, label: str) -> str:
        """Return the URI that a key of that label has or would have."""


class SoftwareKeyStore:
    """Keys as ``LABEL.key`` files in one folder: PKCS #8 under PBES2 with scrypt, mode 0600, never overwritten.

    Opened keys are kept in memory, because opening one costs 0.1 s by design. Safe to use from several threads.
    """

    def __init__(self, folder: Path, passphrase: Passphrase) -> None:
        """Use *folder*, which is created (0700) with the first key."""
        self._folder = folder
        self._ask = passphrase
        self._passphrase: bytes | None = None
        self._proof: tuple[Path, int, int] | None = None
        """The key file that the passphrase has opened, as it was then: another process may change the passphrase."""
        self._opened: dict[str, Signer] = {}
        self._lock = threading.RLock()

    def __repr__(self) -> str:
        return f"SoftwareKeyStore({str(self._folder)!r})"

    def uri(self, label: str) -> str:
        """Return ``file:LABEL.key``.

        Raises:
            InputError: *label* has other characters than letters, digits, dot, underscore, hyphen and @, or over 120.
        """
        if not _LABEL.match(label):
            raise InputError(
                f"{label!r} cannot name a key", fix="use up to 120 letters, digits and the characters . _ - @"
            )
        return f"file:{label}.key"

    def exists(self, label: str) -> bool:
        """Return whether the key file of *label* is there."""
        return _present(self._path(self.uri(label)))

    def create(self, label: str, algorithm: KeyAlgorithm) -> str:
        """Make a key, store it durably, and return its URI.

        Raises:
            Conflict: the file exists already; it is unchanged.
            SignerError: the passphrase is empty, or is not the one that the folder's other keys have.
            UnavailableError: the file cannot be written.
        """
        return self._store(label, lambda: keys.generate_private_key(algorithm))

    def _store(self, label: str, obtain: Callable[[], PrivateKey]) -> str:
        uri = self.uri(label)
        path = self._path(uri)
        with self._lock:
            if path.exists():
                raise Conflict(
                    f"the key {path} exists already", why="a key is never overwritten", fix="use a new label"
                )
            files.make_private_folder(self._folder)
            # Or the passphrase might be changed after it was proven, and the new key alone keep the old one.
            with files.locked(self._folder.parent / KEYS_LOCK, mode=0o600):
                self._prove_passphrase()
                private_key = obtain()
                files.write_new(path, private_keys.encrypt_private_key(private_key, self._secret()), mode=0o600)
            self._remember(path)
            self._opened[uri] = Signer.of(uri, private_key)
        return uri

    def keep(self, label: str, private_key: PrivateKey) -> str:
        """Store a key that was made elsewhere, as `create` stores its own, and return its URI.

        Raises:
            as `create`; InputError: an algorithm that is none of `KeyAlgorithm`.
        """
        return self._store(label, lambda: private_key)

    def open(self, uri: str) -> Signer:
        """Return the signer of a URI that `create` returned.

        Raises:
            InputError: not a URI of this store.
            SignerError: no such key, wrong passphrase, damaged, or readable by others.
        """
        with self._lock:
            signer = self._opened.get(uri)
            if signer is None:
                path = self._path(uri)
                if not _present(path):
                    raise SignerError(
                        f"there is no key file {path}", fix="restore it from a backup, or check the workspace"
                    )
                signer = Signer.of(uri, self._decrypt(path))
                self._opened[uri] = signer
        return signer

    def check_passphrase(self) -> None:
        """Ask for the passphrase, and open an existing key with it when there is one.

        Raises:
            SignerError: it is empty, or not the one that the folder's other keys have.
        """
        with self._lock:
            self._secret()
            self._prove_passphrase()

    def _path(self, uri: str) -> Path:
        label = uri.removeprefix("file:").removesuffix(".key")
        if uri != f"file:{label}.key" or self.uri(label) != uri:
            raise InputError(f"{uri!r} is not the URI of a key file", fix="it has the form file:LABEL.key")
        return self._folder / f"{label}.key"

    def _secret(self) -> bytes:
        if self._passphrase is None:
            self._passphrase = self._ask()
        if not self._passphrase:
            raise SignerError("the passphrase is empty", fix="give the passphrase that protects the keys")
        return self._passphrase

    def _decrypt(self, path: Path) -> PrivateKey:
        pem = files.read_private(path)
        try:
            private_key = private_keys.decrypt_private_key(pem, self._secret())
        except SignerError as exc:
            raise SignerError(f"cannot open the key {path}", why=exc.why or exc.what, fix=exc.fix) from exc
        self._remember(path)
        return private_key

    def _remember(self, path: Path) -> None:
        self._proof = _as_it_is(path)

    def _prove_passphrase(self) -> None:
        """Open one existing key first: a mistyped passphrase would otherwise lock the new key away for good."""
        if self._proof is not None and self._proof == _as_it_is(self._proof[0]):
            return
        if existing := sorted(self._folder.glob("*.key")):
            self._decrypt(existing[0])


def _as_it_is(path: Path) -> tuple[Path, int, int] | None:
    """Return what changes when the file is written anew; ``None`` when it is gone."""
    try:
        status = path.stat()
    except OSError:
        return None
    return path, status.st_ino, status.st_mtime_ns


def _present(path: Path) -> bool:
    try:
        # A link that leads nowhere takes the name too: `create` would refuse to write there.
        return path.exists() or path.is_symlink()
    except OSError as exc:  # a folder we may not look into
        raise UnavailableError(f"cannot look for {path}", why=exc.strerror or type(exc).__name__) from exc


class KeyStores:
    """Several key stores behind one: new keys go to the default store, a URI's scheme tells which store has it."""

    def __init__(self, default: KeyStore, others: Mapping[str, KeyOpener] | None = None) -> None:
        """Make keys in *default*, which has the scheme ``file``; open those of *others* by their URI's scheme."""
        self._default = default
        self._stores: dict[str, KeyOpener] = {"file": default, **(others or {})}

    def __repr__(self) -> str:
        return f"KeyStores({sorted(self._stores)})"

    def create(self, label: str, algorithm: KeyAlgorithm) -> str:
        """Make a key in the default store and return its URI; Conflict when the label is taken."""
        return self._default.create(label, algorithm)

    def keep(self, label: str, private_key: PrivateKey) -> str:
        """Store a key that was made elsewhere in the default store, and return its URI.

        Raises:
            SignerError: the default store takes none.
        """
        if not isinstance(self._default, SoftwareKeyStore):
            raise SignerError("this key store takes no key that was made elsewhere")
        return self._default.keep(label, private_key)

    def exists(self, label: str) -> bool:
        """Return whether the default store has a key of that label."""
        return self._default.exists(label)

    def uri(self, label: str) -> str:
        """Return the URI that a key of that label has in the default store."""
        return self._default.uri(label)

    def open(self, uri: str) -> Signer:
        """Return the signer from the store that the URI's scheme names.

        Raises:
            InputError: no URI, or a scheme that nobody knows.
            SignerError: whatever the store says.
        """
        match = _SCHEME.match(uri)
        scheme = match[1] if match else ""
        store = self._stores.get(scheme)
        if store is not None:
            return store.open(uri)
        raise InputError(
            f"{uri[:80]!r} is not the URI of a key", fix=f"known schemes: {', '.join(sorted(self._stores))}"
        )
