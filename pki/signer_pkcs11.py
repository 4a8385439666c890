"""Keys in a token (PKCS #11): found by their URI, handed out as cryptography key objects; the token signs.

Needs the extra ``chargepki[pkcs11]``. The module (the token's driver) and the PIN come from the configuration, never
from an argument. One module is used by one thread at a time: it is initialised without the promise to take more.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

from chargepki.pki import files, keys
from chargepki.pki.errors import SignerError
from chargepki.pki.pkcs11_uri import TokenKeyUri, parse_pkcs11_uri
from chargepki.pki.signer import Signer
from chargepki.pki.token_keys import TokenObject, adapter, public_key
from chargepki.pki.token_library import LOST, REASONS, fail, load_library

__all__ = ["Pkcs11KeyStore"]

_T = TypeVar("_T")
PinSource = Callable[[str], bytes]
"""Gives the PIN of the token of that label, when its URI names no file; asked once for each token."""

_MAX_PIN_BYTES: Final = 256
_PAUSES: Final = (0.005, 0.01, 0.02, 0.04, 0.08)
"""Seconds between looks at a token that another program may just be writing."""
_UNSETTLED: Final = ("GeneralError", "FunctionFailed", "UserPinNotInitialized")
"""What SoftHSM answers, besides having no token, while another program logs in.

At each login it writes the file of its token anew: it empties it, gives up its lock, and only then writes (seen with
strace, 2.6.1). Whoever is initialised in between reads an empty file. No PIN was judged then, so none was spent.
"""


class _TokenAbsent(SignerError):
    """Worth another look: modules see only the tokens that were there, and whole, when they were initialised."""


class Pkcs11KeyStore:
    """The keys of all tokens that one module reaches."""

    def __init__(self, module: Path | None, pin: PinSource, *, pin_file: Path | None = None) -> None:
        """Set up; nothing is loaded before the first key is opened.

        Args:
            module: the driver, a shared library; ``None`` where none is configured.
            pin_file: holds the PIN of a token whose URI names no file; before *pin* is asked.
        """
        self._pin_file = pin_file
        self._module = module
        self._pin = pin
        self._lock = threading.RLock()
        self._opened: dict[str, Signer] = {}
        self._sessions: dict[bytes, TokenObject] = {}
        self._found: dict[TokenKeyUri, TokenObject] = {}
        """Keys of the sessions: to look for one costs more than to sign with it."""
        self._known: dict[TokenKeyUri, bytes] = {}
        """The public half of each key that was opened, which it must still have when it is found again."""
        self._typed: dict[bytes, bytes] = {}
        """PINs that somebody typed and that were right, for sessions that are opened again."""
        self._refused: set[bytes] = set()
        self._process = os.getpid()
        self._is_stale = False
        self._has_turn = False

    def __repr__(self) -> str:
        return f"Pkcs11KeyStore({str(self._module)!r})"

    def open(self, uri: str) -> Signer:
        """Return the signer of *uri*; it signs until the token is gone, and after a fork as well.

        Raises:
            InputError: no ``pkcs11:`` URI.
            PolicyRefusal: the URI carries a PIN, or names a module.
            SignerError: no module, no such token or key, wrong PIN, or a key that cannot sign here.
        """
        wanted = parse_pkcs11_uri(uri)
        with self._lock:
            signer = self._opened.get(uri)
            if signer is None:
                public = self.use(wanted, lambda key: public_key(key, uri))
                signer = Signer.of(uri, adapter(self, wanted, public))
                _prove(signer)
                self._known[wanted] = signer.spki_der
                self._opened[uri] = signer
        return signer

    def use(self, wanted: TokenKeyUri, work: Callable[[TokenObject], _T]) -> _T:
        """Do *work* with the key; a session that was lost is opened again, once.

        Raises:
            SignerError: the token or its key cannot be used, or it is another key than before.
        """
        return self._do(wanted, lambda: work(self._key(wanted)))

    def holds(self, wanted: TokenKeyUri) -> bool:
        """Return whether the token has the key.

        Raises:
            SignerError: the token cannot be used.
        """
        p11 = load_library()

        def look() -> bool:
            try:
                self._find(wanted)
            except p11.NoSuchKey:
                return False
            return True

        return self._do(wanted, look)

    def log_in(self, wanted: TokenKeyUri) -> None:
        """Open a session with the token, whichever key is named: what is wrong with its PIN is told now.

        Raises:
            SignerError: the token cannot be used.
        """

        def begin() -> None:
            self._begin_anew_if_need_be(wanted)
            self._session(wanted)

        self._do(wanted, begin)

    def change(self, wanted: TokenKeyUri, work: Callable[[TokenObject], None]) -> None:
        """Do *work* in a session that may write; it is not repeated, because it may have been done.

        Raises:
            SignerError: the token cannot be used, or has no room.
        """

        def in_session() -> TokenObject:
            self._begin_anew_if_need_be(wanted)
            # The login of one session holds for all of a process.
            return self._session(wanted).token.open(rw=True)

        session = self._do(wanted, in_session)
        try:
            self._do(wanted, lambda: work(session), again=False)
        finally:
            session.close()

    def check(self) -> None:
        """Sign with a key of each token of which one was opened: a token that was taken out is not noticed otherwise.

        Raises:
            SignerError: a token cannot be used any more.
        """
        with self._lock:
            opened = {}
            for uri, signer in self._opened.items():
                wanted = parse_pkcs11_uri(uri)
                opened[wanted.token, wanted.serial, wanted.manufacturer, wanted.model] = signer
        for signer in opened.values():
            signer.sign(secrets.token_bytes(32))

    def let_go(self) -> None:
        """Close every session before this process forks: no process inherits one (PKCS #11 v2.40, 6.6.1).

        A key that was opened opens a session anew when it is next used, in whichever process.
        """
        with self._lock:
            if self._sessions:
                self._forget()
                self._load().finalize()

    def _do(self, wanted: TokenKeyUri, work: Callable[[], _T], *, again: bool = True) -> _T:
        p11 = load_library()
        lost = tuple(getattr(p11, name) for name in LOST) if again else ()
        with self._lock:
            try:
                try:
                    return work()
                except lost:
                    self._restart(wanted)
                    return work()
            except (p11.PKCS11Error, RuntimeError, NotImplementedError, OSError, UnicodeDecodeError) as exc:
                # Not only what this key's session remembers: a token that was away is seen by a fresh module alone.
                self._is_stale = type(exc).__name__ not in REASONS
                fail(wanted, exc, is_change=not again)

    def _key(self, wanted: TokenKeyUri) -> TokenObject:
        self._begin_anew_if_need_be(wanted)
        key = self._found.get(wanted)
        if key is None:
            key = self._find(wanted)
            known = self._known.get(wanted)
            if known is not None and keys.spki_der(public_key(key, wanted.text)) != known:
                raise SignerError(
                    f"{wanted.text} is another key than before",
                    why="the token was changed, or another one with its name took its place; nothing was signed",
                    fix="plug in the right token, and start again",
                )
            self._found[wanted] = key
        return key

    def _find(self, wanted: TokenKeyUri) -> TokenObject:
        p11 = load_library()
        self._begin_anew_if_need_be(wanted)
        return self._session(wanted).get_key(object_class=p11.ObjectClass.PRIVATE_KEY, label=wanted.label, id=wanted.id)

    def _begin_anew_if_need_be(self, wanted: TokenKeyUri) -> None:
        if self._is_stale or self._process != os.getpid():
            # What a parent process opened is its own: in a child the module begins anew (PKCS #11 v2.40, 5.4).
            self._restart(wanted)

    def _load(self) -> Any:
        if self._module is None:
            raise SignerError(
                "no PKCS #11 module is configured",
                why="it is the driver through which a token is reached",
                fix="set CHARGEPKI_PKCS11_MODULE, or pkcs11_module in chargepki.toml, to its path",
            )
        if not self._module.is_file():
            raise SignerError(f"there is no PKCS #11 module {self._module}", fix="check CHARGEPKI_PKCS11_MODULE")
        return load_library().lib(str(self._module))

    def _forget(self) -> None:
        self._found.clear()
        self._sessions.clear()

    def _restart(self, wanted: TokenKeyUri) -> None:
        """Initialise the module again: tokens that were taken out or put in are seen only then."""
        with self._turn(wanted):
            self._forget()
            self._process = os.getpid()
            _reinitialise(self._load)
            self._is_stale = False

    @contextlib.contextmanager
    def _turn(self, wanted: TokenKeyUri) -> Iterator[None]:
        """Let the processes of this machine that log in with one PIN file do so one after the other.

        For tokens whose modules write at a login, and cannot be read meanwhile (see `_UNSETTLED`).
        """
        path = wanted.pin_file or self._pin_file
        if self._has_turn or path is None:
            yield
            return
        with files.turn(path):
            self._has_turn = True
            try:
                yield
            finally:
                self._has_turn = False

    def _session(self, wanted: TokenKeyUri) -> TokenObject:
        """Return the session with the token; a new one, where it has none yet.

        Raises:
            _TokenAbsent: it is not there, which is found out by several looks with a fresh module.
        """
        p11 = load_library()
        unsettled = (_TokenAbsent, *(getattr(p11, name) for name in _UNSETTLED))
        with self._turn(wanted):
            for pause in _PAUSES:
                try:
                    return self._look_for_session(wanted)
                except unsettled:
                    # Whoever writes is not one of those that take turns: another program.
                    time.sleep(pause)
                    self._restart(wanted)
            return self._look_for_session(wanted)

    def _look_for_session(self, wanted: TokenKeyUri) -> TokenObject:
        p11 = load_library()
        fits = [
            token
            for token in self._load().get_tokens(token_label=wanted.token)
            if wanted.serial in (None, token.serial.decode("utf-8", "replace").strip())
            and wanted.manufacturer in (None, token.manufacturer_id)
            and wanted.model in (None, token.model)
            and p11.TokenFlag.TOKEN_INITIALIZED in token.flags
        ]
        if len(fits) != 1:
            what = "no token" if not fits else f"{len(fits)} tokens"
            raise (SignerError if fits else _TokenAbsent)(
                f"{what} fits {wanted.text}",
                why="a key is taken from one token, which must be there",
                fix="check that it is plugged in and reachable; p11tool --list-tokens shows what there is"
                if not fits
                else "add serial= to the URI",
            )
        token = fits[0]
        name = bytes(token.serial) + token.label.encode()
        session = self._sessions.get(name)
        if session is None:
            session = self._log_in(token, name, wanted)
            self._sessions[name] = session
        return session

    def _log_in(self, token: TokenObject, name: bytes, wanted: TokenKeyUri) -> TokenObject:
        p11 = load_library()
        if name in self._refused:
            # A token locks itself after a few wrong PINs: one try is all that a process gets.
            raise SignerError(f"the token {token.label} refused the PIN before", fix="correct the PIN, and start again")
        pin_file = wanted.pin_file or self._pin_file
        if pin_file is not None:
            _check_tries(token)
            pin = _read_pin(pin_file)
        else:
            pin = self._typed.get(name) or self._pin(token.label)
        try:
            session = token.open(user_pin=pin.decode())
        except (p11.PinIncorrect, p11.PinInvalid, p11.PinLenRange):
            self._refused.add(name)
            raise
        except UnicodeDecodeError as exc:
            raise SignerError(f"the PIN of the token {token.label} is not UTF-8", fix="correct the PIN") from exc
        except p11.UserAlreadyLoggedIn:
            # A login holds for all sessions of a process; another one of this store's has done it.
            return token.open()
        if pin_file is None:
            self._typed[name] = pin
        return session


def _reinitialise(load: Callable[[], Any]) -> None:
    p11 = load_library()
    for pause in _PAUSES:
        try:
            load().reinitialize()
        except (p11.GeneralError, p11.FunctionFailed):
            time.sleep(pause)  # see `_UNSETTLED`
        else:
            return
    load().reinitialize()


def _check_tries(token: TokenObject) -> None:
    """Refuse to spend the last try: a service that is started again and again would lock the token."""
    if load_library().TokenFlag.USER_PIN_FINAL_TRY in token.flags:
        raise SignerError(
            f"the token {token.label} locks itself at the next wrong PIN",
            why="wrong ones were tried before, and the PIN in a file is not worth the last try",
            fix="log in once with the right PIN: pkcs11-tool --login --test; then correct the file",
        )


def _read_pin(path: Path) -> bytes:
    pin = files.read_private(path).removesuffix(b"\n").removesuffix(b"\r")
    if not pin or len(pin) > _MAX_PIN_BYTES:
        raise SignerError(f"{path} holds no PIN", fix="write the PIN into it, and nothing else")
    return pin


def _prove(signer: Signer) -> None:
    """Sign once and verify: a public key object that belongs to another key must not become a certificate."""
    message = secrets.token_bytes(32)
    algorithm = keys.signature_algorithm(signer.algorithm)
    if not keys.verify(signer.public_key, signer.sign(message), message, algorithm.der):
        raise SignerError(
            f"the public half that the token shows is not that of {signer.uri}",
            why="a signature made with the key does not verify",
            fix="give both halves an id of their own with the token's own tool",
        )
