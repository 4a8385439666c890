"""Rules for every test: no skip passes unseen, campaigns run only when asked for, no bare package is ever imported."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from _pytest.assertion import rewrite
from xdist.scheduler.loadscope import LoadScopeScheduling
from xdist.workermanage import WorkerController

from testkit.effort import CAMPAIGN
from tools.conformance import ids_shown_by

IN_CI = os.environ.get("CI", "").lower() in {"1", "true", "yes"}
BARE_PACKAGES = ("pki", "ocpp_security", "cli")

# Files whose tests share something dear (all profiles issued and judged, a wheel, a workspace) or a port: each runs in
# one process, in turn. Every other test goes to whichever process is free.
RUN_TOGETHER = frozenset(
    {
        "tests/cli/test_firmware.py",
        "tests/interop/test_exi_judge.py",
        "tests/interop/test_foreign_tools.py",
        "tests/interop/test_profiles_foreign.py",
        "tests/test_docs.py",
        "tests/test_packaging.py",
    }
)


def pytest_configure(config: pytest.Config) -> None:
    """Say how properties look for examples, and prepare the modules; who only hands the tests out needs neither."""
    worker = getattr(config, "workerinput", None)
    if worker is None and getattr(config.option, "numprocesses", None):
        return
    import hypothesis

    # An ordinary run tries the same examples each time: what it finds came with the change. Campaigns look for more.
    settings = hypothesis.settings
    settings.register_profile("default", deadline=None, print_blob=True, derandomize=True, database=None)
    settings.register_profile("campaign", deadline=None, print_blob=True, max_examples=5000)
    settings.load_profile("campaign" if CAMPAIGN else "default")
    _rewrite_a_share(config, worker)
    from testkit.quick import be_quick

    be_quick()


def _rewrite_a_share(config: pytest.Config, worker: dict[str, Any] | None) -> None:
    """Let each process of a whole run prepare its share of the modules, or each would rewrite the assertions of all.

    They meet in the cache that pytest keeps anyway; what another has not got to yet is rewritten when it is imported.
    """
    if worker is None or sys.dont_write_bytecode or [Path(name).name for name in config.args] != ["tests"]:
        return
    files = sorted(Path(__file__).parent.rglob("test_*.py"))
    for file in files[int(worker["workerid"].removeprefix("gw")) :: worker["workercount"]]:
        cached = rewrite.get_cache_dir(file) / f"{file.stem}{rewrite.PYC_TAIL}"
        with contextlib.suppress(SyntaxError, OSError):  # which are reported when it is collected
            if rewrite._read_pyc(file, cached) is None:
                source_hash, code = rewrite._rewrite_test(file, config)
                cached.parent.mkdir(exist_ok=True)
                rewrite._write_pyc(config.stash[rewrite.assertstate_key], code, source_hash, cached)


@pytest.fixture(autouse=True)
def _as_shipped(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let a test marked ``as_shipped`` have the real migrations and the real price of a key file and a hash."""
    from testkit.quick import as_shipped

    with as_shipped() if request.node.get_closest_marker("as_shipped") else contextlib.nullcontext():
        yield


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave tests marked ``campaign`` out of an ordinary run (deselected, so that they are not counted as skips)."""
    if CAMPAIGN:
        return
    left_out = [item for item in items if item.get_closest_marker("campaign")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def pytest_itemcollected(item: pytest.Item) -> None:
    """Let ``-k`` find a test by what it shows, as the tables of conformance say: ``-k 1.6/A00.FR.318``."""
    if item.config.option.keyword:
        item.extra_keyword_matches |= ids_shown_by(item.nodeid)


def scope_of(nodeid: str) -> str:
    """Return what is handed to one process as a whole: a file of `RUN_TOGETHER`, else the single test."""
    file = nodeid.partition("::")[0]
    return file if file in RUN_TOGETHER else nodeid


class _Scheduler(LoadScopeScheduling):  # type: ignore[misc]  # pytest-xdist has no types
    """Hands out what `scope_of` puts together, and forgets what is done: its base counts all of it after each test."""

    def _split_scope(self, nodeid: str) -> str:
        return scope_of(nodeid)

    def mark_test_complete(self, node: WorkerController, item_index: int, duration: float = 0) -> None:
        nodeid = self.registered_collections[node][item_index]
        units = self.assigned_work[node]
        unit = units[scope_of(nodeid)]
        unit[nodeid] = True
        if all(unit.values()):
            del units[scope_of(nodeid)]
        self._reschedule(node)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadScopeScheduling:
    """Spread the tests over the processes by `scope_of`.

    The xdist_group mark would do, but pytest-xdist 3.8 sets it on an attribute that pytest 9.2 no longer reads.
    """
    return _Scheduler(config, log)


def _refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Turn a skip into a failure: under CI every tool has been installed, so a skip hides a test that should run."""
    if not report.skipped or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    report.outcome = "failed"
    report.longrepr = f"{report.nodeid} was skipped, and under CI=true a skip is a failure ({reason})"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Under CI, fail what was skipped while it ran."""
    report = yield
    if IN_CI:
        _refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Under CI, fail a module that was skipped while it was collected."""
    report = yield
    if IN_CI:
        _refuse_skip(report)
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the run when a package was imported under its folder's name: two names mean two classes of everything."""
    bare = sorted({name.partition(".")[0] for name in sys.modules} & set(BARE_PACKAGES))
    if bare:
        print(f"\nerror: imported without the chargepki prefix: {', '.join(bare)}", file=sys.stderr)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
