"""The library that talks to tokens, and what its errors mean to the operator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NoReturn

from chargepki.pki.errors import SignerError
from chargepki.pki.pkcs11_uri import TokenKeyUri

__all__ = ["LOST", "REASONS", "fail", "load_library"]

# After these it is worth one more try with a fresh module; nothing was signed.
LOST: Final = (
    "SessionHandleInvalid",
    "SessionClosed",
    "KeyHandleInvalid",
    "ObjectHandleInvalid",
    "OperationNotInitialized",
    "UserNotLoggedIn",
    "DeviceRemoved",
    "DeviceError",
    "TokenNotPresent",
    "GeneralError",
    "FunctionFailed",
)
REASONS: Final[Mapping[str, tuple[str, str]]] = {
    "NoSuchKey": ("the token has no private key of that name", "check object= and id=; p11tool --list-privkeys"),
    "MultipleObjectsReturned": (
        "several keys have that name",
        "add id= to the URI, or remove the other with the token's own tool",
    ),
    "PinIncorrect": ("the PIN is wrong", "correct it before the token locks itself; nothing was tried twice"),
    "PinInvalid": ("the PIN is wrong", "correct it before the token locks itself; nothing was tried twice"),
    "PinLenRange": ("the PIN is too short or too long", "correct it before the token locks itself"),
    "PinLocked": ("the token has locked itself after wrong PINs", "unlock it with its security officer's PIN"),
    "PinExpired": ("the PIN has expired", "set a new one with the token's own tool"),
    "UserPinNotInitialized": ("the token has no user PIN yet", "initialise it with the token's own tool"),
    "SessionCount": ("the token has no session left", "end other programs that use it, or use fewer processes"),
    "SessionReadOnly": ("the token cannot be written", "allow writing with the token's own tool"),
    "DeviceMemory": ("the token is full", "remove keys that nothing needs any more with the token's own tool"),
    "TokenWriteProtected": ("the token is write-protected", "allow writing with the token's own tool"),
    "MechanismInvalid": ("the token does not offer the signature algorithm", "use another key or token"),
}


def fail(wanted: TokenKeyUri, exc: BaseException, *, is_change: bool = False) -> NoReturn:
    """Raise what an error of the token's library means.

    Args:
        is_change: a key was to be made or removed. Not every token that has no room says so: SoftHSM on a full disk
            says that the function failed.

    Raises:
        SignerError: always.
    """
    what, unknown = "used", "check that the token is there, with its own tool"
    if is_change:
        what, unknown = "made or removed", "check that the token is there, may be written, and has room; then repeat"
    why, fix = REASONS.get(type(exc).__name__, ("", unknown))
    why = why or f"the token says {type(exc).__name__}{f': {exc}' if str(exc) else ''}"
    raise SignerError(f"the key {wanted.text} cannot be {what}", why=why, fix=fix) from exc


def load_library() -> Any:
    """Return python-pkcs11.

    Raises:
        SignerError: it is not installed.
    """
    try:
        import pkcs11
    except ImportError as exc:
        raise SignerError(
            "keys in tokens cannot be used: python-pkcs11 is not installed",
            why="it is needed for pkcs11: keys alone",
            fix="pip install 'chargepki[pkcs11]'",
        ) from exc
    return pkcs11
