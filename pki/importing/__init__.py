"""Take over certificates that others issued: read whatever they left, and put what is new into the inventory."""

from __future__ import annotations

from chargepki.pki.importing.intake import Intake, Problem
from chargepki.pki.importing.run import Importer

__all__ = ["Importer", "Intake", "Problem"]
