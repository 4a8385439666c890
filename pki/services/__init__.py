"""The PKI's own endpoints over HTTP: handlers from request to response, and the shells that serve them.

`PkiSite.handle` answers one request and can be embedded in any server; `HttpServer` is ours.
"""

from __future__ import annotations

from chargepki.pki.services.http import Handler, Request, Response
from chargepki.pki.services.site import PkiSite

__all__ = ["Handler", "PkiSite", "Request", "Response"]
