"""Take secrets out of what is shown."""

from __future__ import annotations

import re

__all__ = ["database_without_password"]

_PASSWORD = re.compile(r"(://[^/@:]*):[^/@]*@")
_QUERY_PASSWORD = re.compile(r"([?&](?:password|sslpassword)=)[^&]*", re.IGNORECASE)


def database_without_password(url: str) -> str:
    """Return *url* with its password replaced by stars.

    >>> database_without_password("postgresql+psycopg://me:secret@db/pki?password=x")
    'postgresql+psycopg://me:***@db/pki?password=***'
    """
    return _QUERY_PASSWORD.sub(r"\1***", _PASSWORD.sub(r"\1:***@", url))
