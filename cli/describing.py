"""Turn DER into the fields that a person or a script reads."""

from __future__ import annotations

import hashlib
from typing import Any

from chargepki.pki import names
from chargepki.pki.certificate_view import CertificateView, view_certificate, view_tbs
from chargepki.pki.crl import parse_crl
from chargepki.pki.der import to_pem
from chargepki.pki.lint import guess_profile
from chargepki.pki.oids import name_of

__all__ = ["describe_certificate", "describe_crl", "describe_tbs"]


def describe_certificate(der: bytes) -> dict[str, Any]:
    """Return the fields of a certificate, whoever issued it."""
    view = view_certificate(der)
    profile, reason = guess_profile(view)
    return {
        **_fields(view),
        "der_bytes": len(der),
        "sha256": hashlib.sha256(der).hexdigest(),
        "looks_like": f"{profile.id} ({reason})" if profile else reason,
        "certificate_pem": to_pem("CERTIFICATE", der),
    }


def describe_tbs(tbs: bytes, *, profile: str) -> dict[str, Any]:
    """Return the fields of to-be-signed bytes, and the bytes themselves as hex."""
    return {"profile": profile, **_fields(view_tbs(tbs)), "tbs_bytes": len(tbs), "tbs_hex": tbs.hex()}


def describe_crl(data: bytes) -> dict[str, Any]:
    """Return the fields of a CRL (DER or PEM) with every entry."""
    crl = parse_crl(data)
    return {
        "issuer": names.text(crl.issuer_der),
        "number": crl.number,
        "delta_to": crl.delta_base_number,
        "distribution_point": crl.distribution_point_url,
        "this_update": crl.this_update,
        "next_update": crl.next_update,
        "authority_key_identifier": crl.authority_key_id.hex() if crl.authority_key_id else None,
        "entry_count": len(crl.entries),
        "entries": [
            {
                "serial": f"{entry.serial:x}",
                "revoked_at": entry.revoked_at,
                "reason": entry.reason.value if entry.reason else None,
                "invalidity_date": entry.invalidity_date,
            }
            for entry in crl.entries
        ],
    }


def _fields(view: CertificateView) -> dict[str, Any]:
    return {
        "subject": names.text(view.subject),
        "issuer": names.text(view.issuer),
        "serial": f"{view.serial:x}",
        "not_before": view.not_before.value,
        "not_after": view.not_after.value,
        "extensions": [
            f"{name_of(extension.oid)}{' (critical)' if extension.critical else ''}" for extension in view.extensions
        ],
    }
