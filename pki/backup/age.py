"""Encrypt to age recipients and decrypt with age identities, as streams of bounded memory (age-encryption.org/v1).

age authenticates every piece of 64 KiB and the end of the file, so a changed or truncated file is refused. It does not
say who made a file: whoever knows a recipient can make one. What is believed of a restored log is for a checkpoint.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import IO, Any, Final

from chargepki.pki import files
from chargepki.pki.errors import InputError, SignerError, UnavailableError, printable

__all__ = ["Decrypted", "Recipients", "encrypt", "load_identities", "parse_recipients"]

_MAX_LINES: Final = 1000
_CHUNK: Final = 1 << 16


class Recipients:
    """Public keys that a file is encrypted to; each of them alone opens it."""

    __slots__ = ("keys", "names")

    def __init__(self, names: Sequence[str], keys: Sequence[Any]) -> None:
        self.names = tuple(names)
        self.keys = tuple(keys)


def parse_recipients(lines: Sequence[str]) -> Recipients:
    """Read recipients: ``age1…`` of age-keygen, or a public key of ssh (ed25519 or rsa).

    Args:
        lines: one recipient each; blank ones and those that begin with ``#`` are passed over.

    Raises:
        InputError: there is none, or one that cannot be read.
    """
    import pyrage

    names: list[str] = []
    keys: list[Any] = []
    for text in (line.strip() for line in lines):
        if not text or text.startswith("#") or text in names:
            continue
        if "AGE-SECRET-KEY-" in text.upper():
            raise InputError(
                "a recipient is a secret key",
                why="whoever sees the command or the file could open every backup",
                fix="give the public half, age1…; age-keygen -y prints it",
            )
        if len(names) == _MAX_LINES:
            raise InputError(f"more than {_MAX_LINES} recipients")
        try:
            is_ssh = text.startswith("ssh-")
            keys.append(pyrage.ssh.Recipient.from_str(text) if is_ssh else pyrage.x25519.Recipient.from_str(text))
        except pyrage.RecipientError as exc:
            raise InputError(
                f"{printable(text[:60])!r} is no age recipient",
                why="known are age1… and public keys of ssh (ed25519, rsa)",
                fix="make a pair with: age-keygen -o identity.txt",
            ) from exc
        names.append(text)
    if not names:
        raise InputError("there is no recipient", fix="name at least one: --recipient age1…")
    return Recipients(names, keys)


def load_identities(path: str) -> list[Any]:
    """Read the identities in the file *path*: lines ``AGE-SECRET-KEY-1…``, or one private key of ssh.

    Raises:
        SignerError: others can read the file, or nothing in it is an identity.
    """
    import pyrage

    data = files.read_private(path)
    try:
        if data.lstrip().startswith(b"-----BEGIN"):
            return [pyrage.ssh.Identity.from_buffer(data)]
        found = [
            pyrage.x25519.Identity.from_str(line.strip())
            for line in data.decode("ascii").splitlines()
            if line.strip() and not line.lstrip().startswith("#")
        ]
    except (pyrage.IdentityError, UnicodeDecodeError) as exc:
        raise SignerError(
            f"{path} holds no age identity that can be used",
            why="it must hold lines AGE-SECRET-KEY-1…, or an ssh key without a passphrase",
            fix="decrypt a protected identity file first: age -d -o identity.txt identity.age",
        ) from exc
    if not found:
        raise SignerError(f"{path} holds no age identity", fix="name the file that age-keygen wrote")
    return found


class _Source:
    """A file object over an iterator; remembers what went wrong in it, which age would turn into a text."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._left = b""
        self.error: BaseException | None = None

    def read(self, size: int = -1) -> bytes:
        try:
            while not self._left:
                self._left = next(self._chunks)
        except StopIteration:
            return b""
        except BaseException as exc:
            self.error = exc
            raise
        size = len(self._left) if size < 0 else size
        piece, self._left = self._left[:size], self._left[size:]
        return piece


class _Sink:
    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write
        self.error: BaseException | None = None

    def write(self, data: bytes) -> int:
        try:
            self._write(bytes(data))
        except BaseException as exc:
            self.error = exc
            raise
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""


def encrypt(chunks: Iterator[bytes], write: Callable[[bytes], object], recipients: Recipients) -> None:
    """Encrypt what *chunks* give, piece by piece, and hand the file to *write*.

    Raises:
        whatever *chunks* or *write* raise.
    """
    import pyrage

    source, sink = _Source(chunks), _Sink(write)
    try:
        pyrage.encrypt_io(source, sink, recipients.keys)
    except (pyrage.EncryptError, OSError) as exc:
        if source.error is None and sink.error is None:
            raise UnavailableError("the backup cannot be encrypted", why=str(exc)[:200]) from exc
    # Also where nothing was raised: an error of the last write passes unseen through the library.
    if (error := source.error or sink.error) is not None:
        raise error


class Decrypted:
    """What is in an age file, to be read as a stream; its end is believed only once `finish` has returned.

    Example:
        with Decrypted(stream, identities) as plain:
            data = plain.read(100)
            plain.finish()
    """

    def __init__(self, stream: IO[bytes], identities: Sequence[Any]) -> None:
        self._error: BaseException | None = None
        reader, writer = os.pipe()
        self._plain = os.fdopen(reader, "rb", buffering=_CHUNK)
        # Decrypting pushes and reading an archive pulls: one of them needs a thread.
        self._thread = threading.Thread(target=self._run, args=(stream, writer, tuple(identities)), daemon=True)
        self._thread.start()

    def _run(self, stream: IO[bytes], writer: int, identities: Sequence[Any]) -> None:
        import pyrage

        def write(data: bytes) -> None:
            view = memoryview(data)
            while view:
                view = view[os.write(writer, view) :]

        source, sink = _Source(iter(lambda: stream.read(_CHUNK), b"")), _Sink(write)
        try:
            pyrage.decrypt_io(source, sink, identities)
        except (pyrage.DecryptError, OSError, ValueError) as exc:
            # The reader that has gone away has its own reason.
            self._error = None if sink.error is not None else exc
        finally:
            self._error = source.error or self._error
            os.close(writer)

    def read(self, size: int = -1) -> bytes:
        """Return the next *size* octets, fewer at the end, where `finish` tells whether it was one."""
        return self._plain.read(size)

    def finish(self) -> None:
        """Read what is left, and make sure that the file was whole and unchanged.

        Raises:
            SignerError: none of the identities opens it.
            InputError: it is no age file, was changed, or is cut short.
        """
        while self._plain.read(_CHUNK):
            pass
        self._thread.join()
        if self._error is None:
            return
        raise _explained(self._error) from self._error

    def __enter__(self) -> Decrypted:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._plain.close()
        self._thread.join()


def _explained(error: BaseException) -> Exception:
    text = str(error)
    if "No matching keys" in text:
        return SignerError(
            "none of the identities opens the backup",
            why="it is encrypted to other recipients",
            fix="name the identity file that belongs to one of its recipients: --identity FILE",
        )
    if isinstance(error, OSError) and error.errno is not None:
        return UnavailableError("cannot read the backup", why=error.strerror or type(error).__name__)
    return InputError(
        "the backup is no age file, was changed, or is cut short",
        why=text[:200],
        fix="get another copy of it, or an older backup",
    )
