"""The policy's rules on host names, asked of the bytes that will be signed and not of what was requested."""

from __future__ import annotations

from typing import Final

from chargepki.pki import der, oids
from chargepki.pki.certificate_view import view_tbs
from chargepki.pki.errors import ProfileViolation
from chargepki.pki.profiles.base import Presence, Profile
from chargepki.pki.profiles.syntax import check_dns_name

__all__ = ["check_final_names"]

_SUBJECT_ALTERNATIVE_NAME: Final = der.oid(oids.SUBJECT_ALTERNATIVE_NAME)
_DNS_NAME: Final = 2


def check_final_names(tbs: bytes, profile: Profile) -> None:
    """Refuse to-be-signed bytes whose subjectAltName holds what the request policy would not have granted.

    The linter judges certificates of others too, where a wildcard is no error; of ours it is one.

    Raises:
        ProfileViolation: the profile has none, or a name is no dNSName, a wildcard, an address or no host name.
    """
    # Nearly all certificates have none, and looking for its identifier costs nothing next to reading them.
    if _SUBJECT_ALTERNATIVE_NAME not in tbs:
        return
    view = view_tbs(tbs)
    if view.extension(oids.SUBJECT_ALTERNATIVE_NAME) is None:
        return
    fault, clause = f"{profile.id} has no subjectAltName", profile.clause
    if profile.dns_names is not Presence.FORBIDDEN:
        fault = ""
        for name in view.known.subject_names or ():
            found = check_dns_name(name.text) if name.tag == _DNS_NAME else None
            if found is not None or name.tag != _DNS_NAME:
                fault = found.what if found is not None else f"{name.text[:80]!r} is no dNSName"
                clause = found.clause if found is not None else profile.clause
                break
    if fault:
        raise ProfileViolation(
            f"the certificate would break its profile {profile.id}: {fault}",
            why=f"{clause}; nothing was signed",
            fix="leave the name out of the order",
        )
