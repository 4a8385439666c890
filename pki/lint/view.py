"""What certificate rules look at: the tolerant views, under the names that the linter uses."""

from __future__ import annotations

from chargepki.pki.certificate_view import CertificateView, TimeView, view_certificate, view_tbs
from chargepki.pki.der_tree import DerProblem
from chargepki.pki.extension_view import ExtensionView

__all__ = ["CertificateView", "DerProblem", "ExtensionView", "TimeView", "view_certificate", "view_tbs"]
