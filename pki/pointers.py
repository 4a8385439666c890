"""Where a certificate says that its revocation status and its issuer can be found."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from chargepki.pki.errors import InputError, PolicyRefusal
from chargepki.pki.profiles.base import Presence, Profile

__all__ = ["NO_POINTERS", "Pointers", "check_public_url", "choose_pointers"]

_URL: Final = re.compile(r"[\x21-\x7e]{1,512}\Z", re.ASCII)
_WRITTEN: Final = (Presence.REQUIRED, Presence.RECOMMENDED)


@dataclass(frozen=True, slots=True)
class Pointers:
    """The URLs of one certificate; ``None`` leaves the pointer out."""

    ocsp: str | None = None
    crl: str | None = None
    ca_issuers: str | None = None


NO_POINTERS: Final = Pointers()


def choose_pointers(profile: Profile, public_url: str | None, ca_id: str, *, crl_url: str | None = None) -> Pointers:
    """Return the pointers that *profile* wants in a certificate issued by *ca_id*.

    Required and recommended ones are written when there is a URL to write. `template.fit_pointers` then drops what the
    size limit leaves no room for.

    Args:
        public_url: base of our published URLs; ``None`` when none is configured.
        ca_id: the issuing CA with its generation, for example ``t-cso-sub@1``.
        crl_url: names a shard in place of the CA's full list.

    Raises:
        PolicyRefusal: the profile demands a pointer and there is no public URL.
        InputError: *public_url* cannot stand in a certificate.
    """
    wanted = profile.pointers
    if public_url is None:
        demanded = Presence.REQUIRED in (wanted.ocsp, wanted.crl, wanted.ca_issuers)
        if demanded or wanted.at_least_one:
            raise PolicyRefusal(
                f"{profile.id} needs a revocation pointer and no public URL is configured",
                why=wanted.clause,
                fix="pass --public-url http://HOST (35 characters at most are advised) or set CHARGEPKI_PUBLIC_URL",
            )
        return NO_POINTERS
    base = check_public_url(public_url)
    return Pointers(
        ocsp=f"{base}/ocsp" if wanted.ocsp in _WRITTEN else None,
        crl=(crl_url or f"{base}/crl/{ca_id}.crl") if wanted.crl in _WRITTEN else None,
        ca_issuers=f"{base}/ca/{ca_id}.cer" if wanted.ca_issuers in _WRITTEN else None,
    )


def check_public_url(url: str) -> str:
    """Return *url* without a trailing slash, fit to be the base of URLs in certificates.

    Raises:
        InputError: not http or https, no host, credentials, a query or fragment, or characters outside ASCII.

    Clause: RFC 5280 4.2.1.13, 4.2.2.1.
    """
    fix = "give something like http://pki.example.org"
    if not _URL.match(url):
        raise InputError("the public URL is empty, too long, or holds other characters than visible ASCII", fix=fix)
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as exc:
        raise InputError(f"{url!r} is not a URL", why=str(exc), fix=fix) from exc
    if parts.scheme not in ("http", "https") or not host or port == 0:
        raise InputError(f"{url!r} is not an http or https URL with a host", fix=fix)
    if "@" in parts.netloc or "?" in url or "#" in url:
        # Everyone who sees the certificate sees the URL.
        raise InputError("the public URL has credentials, a query or a fragment", why="RFC 5280 4.2.1.13", fix=fix)
    return url.rstrip("/")
