"""What is wrong with an EXI stream, or with a message that shall become one."""

from __future__ import annotations

from chargepki.pki.errors import InputError

__all__ = ["ExiError", "Problem"]


class ExiError(InputError):
    """A stream or a message that its schema does not allow.

    Attributes:
        bit_offset: where in the stream reading stopped, from its first bit; ``None`` when a message was to be written.
        path: the element or attribute at fault, from the outermost one inwards.
    """

    code = "exi"

    def __init__(
        self, what: str, *, why: str = "", fix: str = "", bit_offset: int | None = None, path: tuple[str, ...] = ()
    ) -> None:
        super().__init__(what, why=why, fix=fix)
        self.bit_offset = bit_offset
        self.path = path


class Problem(Exception):
    """The same inside the codec, while the path is still being collected."""

    def __init__(self, reason: str, bit_offset: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.bit_offset = bit_offset
        self._inwards: list[str] = []

    def inside(self, name: str) -> Problem:
        """Note that this happened inside *name*, and return the same problem, to be raised on."""
        self._inwards.append(name)
        return self

    def error(self, root: str) -> ExiError:
        """Return what is told to the caller about the message *root*."""
        path = (root, *reversed(self._inwards))
        where = "/".join(path) if self.bit_offset is None else f"{'/'.join(path)}, bit {self.bit_offset}"
        return ExiError(f"{where}: {self.reason}", bit_offset=self.bit_offset, path=path)
