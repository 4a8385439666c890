"""The report on an inventory: one model of bounded size, written as HTML, JSON or CSV."""

from __future__ import annotations

from chargepki.pki.reporting.collect import collect_report
from chargepki.pki.reporting.csv_form import report_csv
from chargepki.pki.reporting.json_form import report_json
from chargepki.pki.reporting.model import AuditPart, CheckSource, FindingsPart, Report, audit_part, findings_part
from chargepki.pki.reporting.page import report_html
from chargepki.pki.reporting.scope import Scope

__all__ = [
    "AuditPart",
    "CheckSource",
    "FindingsPart",
    "Report",
    "Scope",
    "audit_part",
    "collect_report",
    "findings_part",
    "report_csv",
    "report_html",
    "report_json",
]
