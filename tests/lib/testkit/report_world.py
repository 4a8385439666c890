"""Inventories of any size for reports: rows straight into the tables, which read like those of real certificates."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from chargepki.pki.checking import CheckReport, Example, FindingGroup
from chargepki.pki.findings import Severity
from chargepki.pki.inventory import Inventory
from chargepki.pki.inventory.codec import CERTIFICATE
from chargepki.pki.inventory.filter_parser import parse_filter
from chargepki.pki.inventory.filters import And
from chargepki.pki.inventory.records import CertificateState
from chargepki.pki.inventory.traits import with_traits
from chargepki.pki.reporting import Report, Scope, audit_part, collect_report, findings_part
from testkit.estates import CERTIFICATES
from testkit.inventories import NOW
from testkit.loading import loading

__all__ = ["HOSTILE", "check_report", "fill_rows", "make_report"]

HOSTILE = "</style><script>alert(1)</script><img src=x onerror='go()'>\"'&\u202e\x00\x1b[2J]]>{{x}}"
_BATCH = 10_000
_PROFILES = ("ocpp/charging-station", "ocpp/charging-station", "iso15118-2/secc", "ocpp/csms")


def make_report(inventory: Inventory, scope: Scope | None = None, *, check: CheckReport | None = None) -> Report:
    """Return the report of *inventory*, with the findings of *check*."""
    scope = scope or Scope(NOW)
    wanted = And(()) if scope.where is None else parse_filter(scope.where, now=scope.at)
    return collect_report(
        *(inventory, scope, wanted),
        lambda text: parse_filter(text, now=scope.at),
        findings=findings_part(check or CheckReport(NOW, 1, 1, ()), scope),
        audit=audit_part(None, reason="There is no log key."),
        version="1",
    )


def check_report() -> CheckReport:
    """Return findings with texts of every length, some of them hostile."""
    examples = tuple([Example(f"s@1:{number:040x}", "valid for too long " * number) for number in range(9)])
    groups = (
        FindingGroup("e_hostile", Severity.ERROR, "RFC 5280 4.1", HOSTILE, 9, (Example(HOSTILE, HOSTILE),)),
        FindingGroup("w_long", Severity.WARNING, "clause " * 60, "cure " * 99, 1_234_567, examples),
        FindingGroup("n_word", Severity.NOTICE, "c", "x" * 900, 1, (Example("y" * 900, "z" * 900),)),
    )
    return CheckReport(NOW, 1_000_000, 999_999, groups)


def fill_rows(database: Path, count: int) -> None:
    """Add *count* certificates of a thousand vendors, some with hostile names, to an estate (`fill_estate`)."""
    base = next(row for row in CERTIFICATES if row.state is CertificateState.ISSUED and row.not_after > NOW)
    with loading(f"sqlite:///{database}") as session:
        for first in range(0, count, _BATCH):
            rows = []
            for number in range(first, min(count, first + _BATCH)):
                is_revoked = number % 20 == 7
                vendor = f"Vendor {number % 1000}" if number % 7 else HOSTILE.replace("\0", "") + "W" * 200
                record = replace(
                    base,
                    id=f"s@1:f{number:x}",
                    ca="s@1",
                    serial=f"f{number:x}",
                    profile=_PROFILES[number % 4],
                    state=CertificateState.REVOKED if is_revoked else CertificateState.ISSUED,
                    revoked_at=NOW - timedelta(minutes=number % 10_000) if is_revoked else None,
                    revocation_reason="superseded" if is_revoked else None,
                    subject=f"CN=CS-{number},O={vendor},C={'DFNI'[number % 4]}X",
                    spki_sha256=f"{number:064x}",
                    sha256=f"{number + 10**9:064x}",
                    request_key=f"many:{number}",
                    not_after=NOW + timedelta(hours=1 + number * 37 % 14_000),
                )
                rows.append(with_traits(CERTIFICATE.encode(record)))
            session.begin_write()
            session.run_many("certificate_insert", rows)
            session.commit()
