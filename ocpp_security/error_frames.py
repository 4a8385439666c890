"""The shape of CALLERROR and CALLRESULTERROR, and what of one may be shown (pure)."""

from __future__ import annotations

from chargepki.ocpp_security import redact
from chargepki.ocpp_security.errors import RpcErrorCode
from chargepki.pki.errors import printable

__all__ = ["MAX_DESCRIPTION", "error_texts", "is_error_shape"]

MAX_DESCRIPTION = 255


def is_error_shape(elements: list[object]) -> bool:
    """Say whether a CALLERROR or CALLRESULTERROR has the five elements that the standard gives it."""
    return (
        len(elements) == 5
        and isinstance(elements[2], str)
        and isinstance(elements[3], str)
        and len(elements[3]) <= MAX_DESCRIPTION
        and isinstance(elements[4], dict)
    )


def error_texts(elements: list[object], secrets: frozenset[str]) -> tuple[str, str]:
    """Return code and description of an error frame, printable and short, without the secrets of our call."""
    code = elements[2] if len(elements) > 2 else ""
    description = elements[3] if len(elements) > 3 else ""
    if not isinstance(code, str) or not code.isalnum():
        code = RpcErrorCode.GENERIC_ERROR.value
    text = redact.scrub(description, secrets) if isinstance(description, str) else ""
    return redact.scrub(code, secrets)[:50], printable(text)[:MAX_DESCRIPTION]
