"""What lint rules look at: the tolerant view of a certificate, under the name that the linter uses."""

from __future__ import annotations

from chargepki.pki.certificate_view import CertificateView, DerProblem, ExtensionView, TimeView, view_certificate, view_tbs

__all__ = ["CertificateView", "DerProblem", "ExtensionView", "TimeView", "view_certificate", "view_tbs"]
