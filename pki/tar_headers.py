"""Headers of tar archives that others made, read without trusting the sizes in them."""

from __future__ import annotations

import tarfile
from typing import Final

__all__ = ["BoundedHeader"]

_MAX_HEADER: Final = 1 << 20
_EXTENDED: Final = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)


class BoundedHeader(tarfile.TarInfo):
    """Refuses extended headers that `tarfile` would read into memory whole; for its *tarinfo*."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> BoundedHeader:
        """Read a header.

        Raises:
            tarfile.ReadError: an extension (long name or link, pax) of more than 1 MiB.
        """
        found = super().frombuf(buf, encoding, errors)
        if found.type in _EXTENDED and found.size > _MAX_HEADER:
            raise tarfile.ReadError(f"a header of {found.size} bytes")
        return found
