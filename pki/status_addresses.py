"""Which addresses a certificate names for its revocation status."""

from __future__ import annotations

from collections.abc import Iterator

from cryptography import x509
from cryptography.x509.oid import AuthorityInformationAccessOID

__all__ = ["status_addresses"]


def status_addresses(der: bytes) -> tuple[list[str], list[str]]:
    """Return the responders and the revocation lists that a certificate (DER) names; nobody is asked."""
    extensions = x509.load_der_x509_certificate(der).extensions
    try:
        access = extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
        responders = [
            each.access_location.value
            for each in access
            if each.access_method == AuthorityInformationAccessOID.OCSP
            and isinstance(each.access_location, x509.UniformResourceIdentifier)
        ]
    except x509.ExtensionNotFound:
        responders = []
    try:
        points = extensions.get_extension_for_class(x509.CRLDistributionPoints).value
        return responders, list(_list_urls(points))
    except x509.ExtensionNotFound:
        return responders, []


def _list_urls(points: x509.CRLDistributionPoints) -> Iterator[str]:
    for point in points:
        for name in point.full_name or ():
            if isinstance(name, x509.UniformResourceIdentifier):
                yield name.value
