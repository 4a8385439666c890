"""The report: what it says is so, its size is bounded, and nothing in it is more than text."""

from __future__ import annotations

import csv
import io
import re
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path

import pytest

from chargepki.pki.checking import CheckReport, Example, FindingGroup
from chargepki.pki.findings import Severity
from chargepki.pki.inventory import Inventory
from chargepki.pki.inventory.filter_parser import parse_filter
from chargepki.pki.inventory.filters import matches
from chargepki.pki.inventory.records import CertificateState
from chargepki.pki.profiles import list_profiles
from chargepki.pki.questions import Cliff
from chargepki.pki.reporting import (
    Report,
    Scope,
    audit_part,
    findings_part,
    report_csv,
    report_html,
    report_json,
)
from chargepki.pki.reporting.csv_form import COLUMNS
from chargepki.pki.reporting.model import MOST_CAS, MOST_RULES, MOST_VALUES, CaState
from chargepki.pki.reporting.page import content_policy
from testkit.estates import CERTIFICATES, fill_estate
from testkit.inventories import NOW
from testkit.layout import ROOT
from testkit.report_world import HOSTILE, fill_rows, make_report

MOST_BYTES = 128 * 1024


@pytest.fixture(scope="module")
def estate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inventory]:
    folder = tmp_path_factory.mktemp("estate")
    with closing(fill_estate(f"sqlite:///{folder / 'i.db'}", folder)) as inventory:
        yield inventory


class Seen(HTMLParser):
    """What a page consists of."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str | None]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in ("meta", "link", "col"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, "elements are nested"

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_hierarchy_has_every_ca_with_its_signers_and_counts(estate: Inventory) -> None:
    nodes = make_report(estate).hierarchy.nodes
    by_label = {node.label: node for node in nodes}
    assert {name for name in by_label if "Stranger" not in name} == {"r@1", "o@1", "s@1"}
    (stranger,) = [node for node in nodes if "Stranger" in node.label]
    assert (stranger.state, stranger.parents, stranger.profile) == (CaState.FOREIGN, (), "")
    # The sub-CA has a cross certificate from the other root: one node with two signers.
    assert {nodes[number].label for number in by_label["s@1"].parents} == {"r@1", "o@1"}
    assert by_label["r@1"].parents == by_label["o@1"].parents == ()
    assert (by_label["s@1"].key, by_label["s@1"].state) == ("secp256r1", CaState.ACTIVE)
    of_cas = {profile.id for profile in list_profiles() if profile.is_ca}
    for name in ("r@1", "s@1"):
        expected = Counter(
            row.profile
            for row in CERTIFICATES
            if (row.ca, row.state) == (name, CertificateState.ISSUED)
            and row.not_after >= NOW
            and row.profile not in of_cas
        )
        assert dict(by_label[name].leaves) == expected
    assert [node.number for node in nodes] == list(range(len(nodes)))
    assert all(not node.parents or node.parents[0] < node.number for node in nodes)


@pytest.mark.parametrize("where", [None, "country = 'DE' or profile = 'ocpp/csms'"])
def test_figures_are_those_of_a_plain_evaluation(estate: Inventory, where: str | None) -> None:
    report = make_report(estate, Scope(NOW, where))
    rows = [row for row in CERTIFICATES if where is None or matches(parse_filter(where, now=NOW), row)]
    issued = [row for row in rows if row.state is CertificateState.ISSUED]
    valid = [row for row in issued if row.not_after >= NOW]
    figures = {each.name: each.value for each in report.figures}
    assert figures["certificates"] == len(rows)
    assert figures["valid"] == len(valid) == report.timeline.valid
    assert figures["expired"] == len(issued) - len(valid)
    assert figures["expiring"] == sum(row.not_after < NOW + timedelta(days=30) for row in valid)
    assert figures["revoked"] == sum(row.state is CertificateState.REVOKED for row in rows)
    assert ("stations" in figures) is (where is None)
    timeline = report.timeline
    assert sum(each.certificates for each in timeline.columns) + timeline.later == len(valid)
    for each in timeline.columns:
        begins = [timeline.span.begin(row.not_after.astimezone(UTC).date()) for row in valid]
        assert each.certificates == begins.count(each.begin)
    for part in report.breakdowns:
        assert part.total == len(valid) == sum(number for _, number in part.rows) + part.more_certificates
    by_profile = next(part for part in report.breakdowns if part.by == "profile")
    assert dict(by_profile.rows) == Counter(row.profile for row in valid)
    revoked = {row.id for row in rows if row.state is CertificateState.REVOKED and (row.revoked_at or NOW) <= NOW}
    assert report.revocations.summary.revoked == len(revoked) == sum(each for _, each in report.revocations.latencies)
    assert {each.certificate for each in report.revocations.shown} <= revoked


def hostile(report: Report) -> Report:
    """Put text that would be more than text into every place that others can write to."""
    groups = (
        FindingGroup("e_x", Severity.ERROR, HOSTILE, HOSTILE, 9, (Example(HOSTILE, HOSTILE),)),
        FindingGroup("=2+5", Severity.WARNING, "c", "h", 1, ()),
    )
    nodes = tuple(
        replace(node, label=HOSTILE, subject=HOSTILE, profile=HOSTILE, key=HOSTILE) for node in report.hierarchy.nodes
    )
    cliff = Cliff(HOSTILE, NOW.date(), NOW.date(), 3, 0.5)
    return replace(
        report,
        scope=Scope(NOW, f"subject = '{HOSTILE}'", "soon"),
        log_id=HOSTILE,
        figures=tuple(replace(each, command=HOSTILE) for each in report.figures),
        hierarchy=replace(report.hierarchy, nodes=nodes, commands=(HOSTILE, HOSTILE)),
        timeline=replace(report.timeline, cliffs=(cliff,), command=HOSTILE),
        breakdowns=tuple(
            replace(each, rows=((HOSTILE, 2), ("@SUM(A1)", 1), (None, 1)), command=HOSTILE)
            for each in report.breakdowns
        ),
        findings=replace(report.findings, groups=groups, command=HOSTILE),
        revocations=replace(
            report.revocations,
            shown=tuple(replace(each, certificate=HOSTILE, reason=HOSTILE) for each in report.revocations.shown),
            command=HOSTILE,
        ),
        audit=audit_part(None, reason=HOSTILE),
    )


def test_hostile_text_stays_text(estate: Inventory) -> None:
    report = make_report(estate)
    sound, found = Seen(report_html(report)), Seen(report_html(hostile(report)))
    for seen in (sound, found):
        assert not seen.open
        assert not {"script", "img", "iframe", "object", "form"} & set(seen.tags)
        names = {name for _, name, _ in seen.attributes}
        assert not {name for name in names if name.startswith("on") or name in ("src", "style", "srcdoc", "action")}
        links = [value or "" for _, name, value in seen.attributes if name == "href"]
        assert all(each.startswith("#") or each == "data:," for each in links)
        assert seen.tags["style"] == 1
    text = "".join(found.texts)
    assert text.count("<script>alert(1)</script>") > 20
    assert not set("\u202e\x00\x1b") & set(report_html(hostile(report)))
    # Nothing of it is an element: the page has those that it would have had with other words.
    assert set(found.tags) <= set(sound.tags) | {"li", "ul", "strong", "code", "span"}


def test_page_asks_for_nothing_and_its_policy_is_strict(estate: Inventory) -> None:
    page = report_html(make_report(estate))
    policy = content_policy()
    (told,) = re.findall(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">', page)
    assert told == policy.replace("'", "&#x27;")
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy and "script-src" not in policy
    assert not re.findall(r"https?://|//[a-z]|@import|url\(", page)
    assert page.isprintable() or set(page) - {"\n"} == {char for char in page if char.isprintable()}


def test_csv_is_one_row_for_each_number_and_no_formula(estate: Inventory) -> None:
    report = make_report(estate)
    rows = list(csv.reader(io.StringIO(report_csv(report))))
    assert tuple(rows[0]) == COLUMNS
    assert all(len(row) == len(COLUMNS) for row in rows)
    cells = {(row[0], row[1], row[2]): row[3] for row in rows}
    for figure in report.figures:
        assert cells["figures", "", figure.name] == str(figure.value)
    for part in report.breakdowns:
        for value, number in part.rows:
            assert cells[f"by {part.by}", value or "", "certificates"] == str(number)
    told = report.revocations
    assert cells["revocations", "", "unpublished"] == str(told.summary.unpublished)
    evil = [cell for row in csv.reader(io.StringIO(report_csv(hostile(report)))) for cell in row]
    assert not [cell for cell in evil if cell[:1] in set("=+-@\t\r") - {""}]
    assert "'@SUM(A1)" in evil and "'=2+5" in evil


def test_every_field_and_column_is_documented(estate: Inventory) -> None:
    page = (ROOT / "docs" / "reference" / "report.md").read_text(encoding="utf-8")

    def names(value: object) -> Iterator[str]:
        if isinstance(value, dict):
            for name, inner in value.items():
                yield name
                yield from names(inner)
        elif isinstance(value, list):
            for each in value:
                yield from names(each)

    content = report_json(hostile(make_report(estate)))
    content["findings"].pop("counts")  # its names are severities
    told = set(re.findall(r"`([^`]+)`", page))
    assert set(names(content)) - told == set()
    assert set(COLUMNS) - told == set()
    sections = {row[0] for row in csv.reader(io.StringIO(report_csv(make_report(estate))))} - {"section"}
    assert {"by …" if each.startswith("by ") else each for each in sections} - told == set()


def test_many_of_everything_take_no_more_room(estate: Inventory, tmp_path: Path) -> None:
    made = make_report(estate)
    group = FindingGroup("e_x", Severity.ERROR, "clause", "cure " * 200, 9, (Example("n" * 99, "m " * 500),) * 50)
    check = CheckReport(NOW, 10**6, 10**6, tuple(replace(group, rule=f"e_{number}") for number in range(500)))
    part = findings_part(check, made.scope)
    assert (len(part.groups), part.more_groups) == (MOST_RULES, 500 - MOST_RULES)
    assert all(len(each.examples) == 3 for each in part.groups)
    page = report_html(replace(made, findings=part))
    assert "and 440 more rules that found something" in page
    assert len(page) < MOST_BYTES + MOST_RULES * 2500

    fresh = fill_estate(f"sqlite:///{tmp_path / 'many.db'}", tmp_path)
    with closing(fresh) as inventory:
        fill_rows(tmp_path / "many.db", 10_000)
        before = time.process_time()
        many = make_report(inventory)
        page = report_html(many)
        seconds = time.process_time() - before
    figures = {each.name: each.value for each in many.figures}
    assert figures["certificates"] == len(CERTIFICATES) + 10_000
    vendors = next(part for part in many.breakdowns if part.by == "organization")
    assert (len(vendors.rows), vendors.more_values > 900) == (MOST_VALUES, True)
    assert f"and {vendors.more_values:,} more values with {vendors.more_certificates:,} certificates" in page
    assert len(page.encode()) < min(MOST_BYTES, 1.5 * len(report_html(made).encode()))
    assert len(report_csv(many)) < MOST_BYTES
    assert seconds < 10, "seconds of CPU for all figures and the page"


def test_many_cas_are_folded(estate: Inventory) -> None:
    made = make_report(estate)
    node = replace(made.hierarchy.nodes[0], leaves=(("ocpp/csms", 7),), parents=(), depth=0)
    nodes = [node] + [replace(node, number=n, parents=(n - 1,), depth=min(n, 7)) for n in range(1, MOST_CAS)]
    page = report_html(replace(made, hierarchy=replace(made.hierarchy, nodes=tuple(nodes), omitted=9_940)))
    assert "and 9,940 more CAs" in page
    assert len(page) < 2 * MOST_BYTES


def test_empty_inventory_has_a_report(tmp_path: Path) -> None:
    from testkit.authorities import open_inventory

    with closing(open_inventory(f"sqlite:///{tmp_path / 'i.db'}", tmp_path)) as inventory:
        report = make_report(inventory, Scope(datetime(2026, 1, 31, 23, 59, 59, tzinfo=UTC)))
        page = report_html(report)
    assert "There is no CA in this inventory yet." in page and "Nothing was revoked." in page
    assert [each.begin.month for each in report.timeline.columns[:3]] == [1, 2, 3]
    assert report_json(report)["hierarchy"]["cas"] == []
