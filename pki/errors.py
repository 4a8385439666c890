"""Every error raised on purpose: what happened, why, and the fix."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar, Final

if TYPE_CHECKING:
    from chargepki.pki.findings import Finding

__all__ = [
    "ChainError",
    "ChargePkiError",
    "Conflict",
    "FaultyConfiguration",
    "InputError",
    "IssuerOutlived",
    "NotFound",
    "PolicyRefusal",
    "ProfileViolation",
    "RevocationError",
    "SignerError",
    "StateError",
    "UnavailableError",
    "reading_configuration",
]


class ChargePkiError(Exception):
    """Base of every error raised on purpose: *what* happened, *why*, and the *fix*.

    None of the three texts may hold a secret, and none may hold a control character from the input:
    they are shown on terminals and written to logs.
    """

    code: ClassVar[str] = "error"
    """Stable identifier of the kind of error; shown by ``--json``."""

    def __init__(self, what: str, *, why: str = "", fix: str = "") -> None:
        self.what = printable(what)
        self.why = printable(why)
        self.fix = printable(fix)
        super().__init__(self.what)

    def __str__(self) -> str:
        parts = [self.what]
        if self.why:
            parts.append(f"why: {self.why}")
        if self.fix:
            parts.append(f"fix: {self.fix}")
        return "; ".join(parts)


class InputError(ChargePkiError):
    """Input that cannot be decoded: says where, and what was expected."""

    code = "input"


class FaultyConfiguration(InputError):
    """A setting that cannot be read: no verdict on what was asked about, also where the answer may be "no"."""


@contextmanager
def reading_configuration() -> Iterator[None]:
    """Tell input that cannot be decoded, while this runs, as a fault of the configuration.

    Raises:
        FaultyConfiguration: in place of an `InputError`.
    """
    try:
        yield
    except InputError as error:
        raise FaultyConfiguration(error.what, why=error.why, fix=error.fix) from error


class PolicyRefusal(ChargePkiError):
    """A well-formed request that policy forbids (for example a CSR that asks for CA:TRUE)."""

    code = "policy"


class ProfileViolation(PolicyRefusal):
    """An object that breaks its profile; carries the findings, each with its clause."""

    code = "profile"

    def __init__(self, what: str, *, why: str = "", fix: str = "", findings: Sequence[Finding] = ()) -> None:
        super().__init__(what, why=why, fix=fix)
        self.findings = tuple(findings)


class IssuerOutlived(PolicyRefusal):
    """A certificate that would be valid longer than its issuer (shell model, V2G20-1004)."""

    code = "issuer-outlived"


class ChainError(ChargePkiError):
    """A certificate that does not chain to an accepted anchor for its purpose."""

    code = "chain"


class RevocationError(ChargePkiError):
    """Revoked, unknown or stale: `status` says which; never one boolean."""

    code = "revocation"

    def __init__(self, what: str, *, status: str, why: str = "", fix: str = "") -> None:
        super().__init__(what, why=why, fix=fix)
        self.status = status


class StateError(ChargePkiError):
    """The request is sound but the present state does not allow it."""

    code = "state"


class ClockBehind(StateError):
    """This machine's clock says an instant at which the issuer was not there yet."""

    code = "clock-behind"


class NotFound(StateError):
    """Something named by the caller does not exist."""

    code = "not-found"


class Conflict(StateError):
    """Something named by the caller exists already, or was changed meanwhile by someone else."""

    code = "conflict"


class SignerError(ChargePkiError):
    """The private key is absent, locked, or not the key of this certificate."""

    code = "signer"


class UnavailableError(ChargePkiError):
    """A file, database, key store or network endpoint cannot be reached or written."""

    code = "unavailable"


def printable_number(value: int) -> str:
    """Return *value* in decimal, or its size when it is absurd: Python refuses to write numbers of thousands of digits.

    >>> printable_number(65537), printable_number(1 << 4096)
    ('65537', 'a number of 4097 bits')
    """
    return str(value) if value.bit_length() <= _MOST_BITS_SHOWN else f"a number of {value.bit_length()} bits"


_MOST_BITS_SHOWN: Final = 256


def printable(text: str) -> str:
    """Return *text* with control characters as escapes, so that input cannot steer a terminal or split a log line.

    >>> printable("a\\nb\\x1b[2J")
    'a\\\\nb\\\\x1b[2J'
    """
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "backslashreplace").decode("ascii")
        for char in text
    )
