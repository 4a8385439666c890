"""The report on the inventory in ``serve``: one process makes it, the others hand it out."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from chargepki.cli.globals import GlobalState
from chargepki.cli.reporting import build_report, report_forms
from chargepki.pki.reporting.page import content_policy
from chargepki.pki.services.allocator import give_memory_back
from chargepki.pki.services.failures import SharedFailures
from chargepki.pki.services.http import Handler
from chargepki.pki.services.report_accounts import read_accounts
from chargepki.pki.services.report_shelf import ReportShelf
from chargepki.pki.services.reports import ReportPages, make_reports

__all__ = ["ServeReports"]


class ServeReports:
    """Make it before any process is forked: all of them share what it holds.

    Args:
        accounts: the file of `read_accounts`.

    Raises:
        ChargePkiError: the file cannot be read, or holds no account.
    """

    def __init__(self, state: GlobalState, accounts: Path) -> None:
        self._state = state
        self._accounts = partial(read_accounts, accounts.absolute())
        self._accounts()  # what is wrong with the file stops the start
        self._shelf = ReportShelf()
        self._failures = SharedFailures()

    def routes(self) -> Mapping[bytes, Handler]:
        """Return what serves reports in one process."""
        return ReportPages(
            self._shelf, self._accounts, policy=content_policy(), failures=self._failures
        ).routes()  # fmt: skip

    def run(self, parent: int) -> int:
        """Make reports in this process, until told to stop or *parent* is gone."""
        give_memory_back()
        # Whoever waits for an OCSP answer goes before whoever waits for a page.
        os.nice(10)
        make_reports(self._shelf, self._make, parent=parent)
        return 0

    def _make(self) -> Mapping[str, bytes]:
        # It only reads, on a connection of its own, with the settings of this start.
        reader = GlobalState()
        reader.flags, reader.quiet = self._state.flags, True
        try:
            return report_forms(build_report(reader, source="kept"))
        finally:
            reader.close()
