"""Which EST operation and label a path names: RFC 7030's form, and the forms that charging back ends call.

Clause: RFC 7030 3.2.2; OPCP 1.0.0, EST operations (``/.well-known/est/{role}/simpleenroll/{version}``, also without the
prefix; ``/{role}/cacerts/{version}/{algorithm}/``; ``/.well-known/cpo/simpleenroll``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

__all__ = ["EstPath", "parse_path"]

_OPERATION: Final = r"(?P<operation>cacerts|csrattrs|simpleenroll|simplereenroll|serverkeygen|fullcmc)"
_ROLE: Final = r"(?P<role>cpo|mo|oem|cps|veh)"
_VERSION: Final = r"(?P<version>ISO15118-2|ISO15118-20)"
_ALGORITHM: Final = r"(?P<algorithm>secp256r1|secp521r1|ed448)"
_LABEL: Final = r"(?P<label>[A-Za-z0-9][A-Za-z0-9._-]{0,63})"
# The charging forms come first: a role may also be a label, but a label is never followed by a version.
_FORMS: Final = tuple(
    re.compile(form)
    for form in (
        rf"/(?:\.well-known/est/)?{_ROLE}/{_OPERATION}/{_VERSION}(?:/{_ALGORITHM})?/?",
        rf"/\.well-known/{_ROLE}/{_OPERATION}/?",
        rf"/\.well-known/est/{_OPERATION}/?",
        rf"/\.well-known/est/{_LABEL}/{_OPERATION}/?",
    )
)


@dataclass(frozen=True, slots=True)
class EstPath:
    """A path taken apart."""

    operation: str
    label: str | None = None
    role: str | None = None
    """``cpo``, ``mo``, ``oem``, ``cps`` or ``veh`` in a charging form."""
    version: str | None = None
    algorithm: str | None = None


def parse_path(path: str) -> EstPath | None:
    """Return what *path* (without query) asks for; ``None`` when it is no EST path.

    >>> parse_path("/.well-known/est/cso/simpleenroll")
    EstPath(operation='simpleenroll', label='cso', role=None, version=None, algorithm=None)
    >>> parse_path("/cpo/cacerts/ISO15118-2/secp256r1/").role
    'cpo'
    """
    if len(path) > 256:
        return None
    for form in _FORMS:
        found = form.fullmatch(path)
        if found is not None:
            return EstPath(**found.groupdict())
    return None
