"""A report as one HTML file: no script, no network, for screen and paper, in light and dark."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files
from typing import Final

from chargepki.pki.reporting.markup import Child, Markup, el
from chargepki.pki.reporting.model import Report
from chargepki.pki.reporting.sections import SECTIONS, audit_words, findings_words, sections

__all__ = ["content_policy", "report_html"]

_TILES: Final = ("valid", "expiring", "expired", "revoked", "cas", "stations")


def content_policy() -> str:
    """Return the Content-Security-Policy of the page: its own style and nothing else.

    A header should add ``frame-ancestors 'none'``, which browsers do not heed in a page.
    """
    digest = base64.b64encode(hashlib.sha256(_style().encode()).digest()).decode()
    # The icon is empty and inside the page, so that no browser asks for one.
    return f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"


def report_html(report: Report) -> str:
    """Return the page, in UTF-8 when it is written."""
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", http_equiv="Content-Security-Policy", content=content_policy()),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="referrer", content="no-referrer"),
        el("meta", name="robots", content="noindex"),
        el("meta", name="color-scheme", content="light dark"),
        el("link", rel="icon", href="data:,"),
        el("title", f"Certificates on {report.scope.at:%Y-%m-%d}"),
        # The style is ours and constant: escaping it would change it.
        Markup(f"<style>{_style()}</style>"),
    )
    body = el(
        "body",
        el("a", "To the content", href="#content", class_="skip"),
        _header(report),
        el("main", _tiles(report), sections(report), id="content"),
        _footer(report),
    )
    return f"<!doctype html>\n{el('html', head, body, lang='en')}\n"


@cache
def _style() -> str:
    return files(__package__).joinpath("report.css").read_text(encoding="utf-8")


def _header(report: Report) -> Markup:
    scope = report.scope
    asked: list[Child] = []
    if scope.query is not None:
        asked += [" of the saved query ", el("code", scope.query)]
    if scope.where is not None:
        asked += [" where " if scope.query is None else " and where ", el("code", scope.where)]
    about = el("p", "All certificates", *asked, f", as of {scope.at:%Y-%m-%d %H:%M:%S} UTC", class_="about")
    if asked:
        about = el("p", "Certificates", *asked, f", as of {scope.at:%Y-%m-%d %H:%M:%S} UTC", class_="about")
    links = [el("li", el("a", title, href=f"#{name}")) for name, title in SECTIONS]
    return el(
        "header",
        el("p", "chargepki", class_="brand"),
        el("h1", "Certificate inventory"),
        about,
        el("ul", *_verdicts(report), class_="verdicts"),
        el("nav", el("ul", *links), aria_label="Sections"),
    )


def _verdicts(report: Report) -> list[Markup]:
    """Return what is good and what is not, each with a sign besides its colour."""
    counts = report.findings.counts
    worst = "bad" if counts.get("error") else "warn" if counts.get("warning") else "good"
    told = report.revocations.summary
    waiting = told.unpublished + told.stale_answers
    published = f"{waiting:,} of {told.revoked:,} not published" if waiting else f"all {told.revoked:,} published"
    audit = report.audit
    return [
        _verdict(worst, "Findings", findings_words(report.findings), "findings"),
        _verdict("bad" if waiting else "good", "Revocations", published, "revocations"),
        _verdict("good" if audit.ok else "bad" if audit.verified else "warn", "Audit log", audit_words(audit), "audit"),
    ]


def _verdict(tone: str, name: str, told: str, target: str) -> Markup:
    sign = {"good": "✓", "warn": "!", "bad": "✕"}[tone]
    return el(
        "li",
        el("span", sign, class_=f"sign {tone}", aria_hidden="true"),
        el("div", el("a", name, href=f"#{target}"), el("p", told)),
    )


def _tiles(report: Report) -> Markup:
    by_name = {each.name: each for each in report.figures}
    shown = [by_name[name] for name in _TILES if name in by_name]
    tiles = [el("div", el("dt", each.label), el("dd", f"{each.value:,}")) for each in shown]
    others = [f"{each.value:,} {each.label}" for each in report.figures if each.name not in _TILES and each.value]
    also = el("p", f"Also on record: {', '.join(others)}.", class_="note") if others else Markup("")
    commands = [el("div", el("dt", each.label), el("dd", el("code", each.command))) for each in report.figures]
    return Markup(
        el("dl", *tiles, class_="tiles")
        + also
        + el("details", el("summary", "The commands behind these figures"), el("dl", *commands, class_="commands"))
    )


def _footer(report: Report) -> Markup:
    log = f" The audit log is {report.log_id}." if report.log_id else ""
    told = (
        f"Made by chargepki {report.version}.{log} Each command repeats its figure on the same inventory; as long as "
        "nobody has written to it since, the answer is the same."
    )
    return el("footer", el("p", told))
