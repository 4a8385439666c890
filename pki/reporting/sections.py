"""The sections of the page: each figure with the command that repeats it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

from chargepki.pki.findings import Severity
from chargepki.pki.questions import Cliff, RevocationEffect, Span
from chargepki.pki.reporting.charts import bar_svg, timeline_svg
from chargepki.pki.reporting.graph import hierarchy_svg
from chargepki.pki.reporting.markup import Child, Markup, el, join, shortened
from chargepki.pki.reporting.model import (
    AuditPart,
    Breakdown,
    CaNode,
    CheckSource,
    FindingsPart,
    Report,
    RevocationsPart,
    TimelinePart,
    span_text,
)

__all__ = ["SECTIONS", "audit_words", "findings_words", "instant", "sections"]

SECTIONS: Final = (
    ("hierarchy", "Hierarchy"),
    ("expiry", "Expiry"),
    ("breakdown", "Breakdown"),
    ("findings", "Findings"),
    ("revocations", "Revocations"),
    ("audit", "Audit log"),
)
_LONGEST: Final = 160
_PLACES: Final = {"file": "in a file", "token": "in a token", "elsewhere": "held elsewhere", "": "–"}


def sections(report: Report) -> Markup:
    """Return all of them, in the order of `SECTIONS`."""
    bodies = (
        _hierarchy(report),
        _timeline(report.timeline),
        _breakdowns(report.breakdowns),
        _findings(report.findings),
        _revocations(report.revocations),
        _audit(report.audit),
    )
    return join(
        el("section", el("h2", title, id=f"{name}-title"), body, id=name, aria_labelledby=f"{name}-title")
        for (name, title), body in zip(SECTIONS, bodies, strict=True)
    )


def instant(at: datetime | None) -> str:
    """Return an instant to the minute, in UTC."""
    return "–" if at is None else f"{at:%Y-%m-%d %H:%M}"


def findings_words(part: FindingsPart) -> str:
    """Return how many findings there are."""
    return ", ".join(f"{number:,} {name}{'' if number == 1 else 's'}" for name, number in part.counts.items())


def audit_words(part: AuditPart) -> str:
    """Return the verdict on the log."""
    if not part.verified:
        return "not verified"
    if part.ok:
        return f"whole: {part.entries:,} entries and {part.rows:,} rows agree"
    return f"contradicted: {len(part.findings) + part.more_findings:,} findings"


def _repeat(*commands: str) -> Markup:
    """Return the line that says how a figure is asked for again."""
    return el(
        "div", el("span", "Repeat", class_="label"), *(el("code", command) for command in commands), class_="repeat"
    )


def _table(caption: str, heads: Sequence[str], rows: Iterable[Sequence[Child]], *, numbers: int = 0) -> Markup:
    """Return a table that scrolls by itself where it is too wide; the last *numbers* columns are figures."""
    first_number = len(heads) - numbers

    def kind(position: int) -> str | None:
        return "figure" if position >= first_number else None

    head = [el("th", name, scope="col", class_=kind(position)) for position, name in enumerate(heads)]
    body = [
        el(
            "tr",
            el("th", row[0], scope="row"),
            *(el("td", cell, class_=kind(position)) for position, cell in enumerate(row[1:], start=1)),
        )
        for row in rows
    ]
    # More than a phone has room for: such a table scrolls rather than breaking every word.
    roomy = "roomy" if len(heads) > 2 else None
    table = el("table", el("caption", caption), el("thead", el("tr", *head)), el("tbody", *body), class_=roomy)
    return _scrolling(table, caption)


def _scrolling(content: Markup, name: str) -> Markup:
    # Who has no pointer scrolls it with the arrow keys: it can be reached, and says what it is.
    return el("div", content, class_="wide", tabindex=0, role="region", aria_label=name)


def _more(number: int, what: str) -> Markup | None:
    return el("p", f"and {number:,} more {what}", class_="more") if number else None


def _hierarchy(report: Report) -> Markup:
    part = report.hierarchy
    if not part.nodes:
        return join((el("p", "There is no CA in this inventory yet.", class_="none"), _repeat(*part.commands)))
    rows = [_ca_row(node, part.nodes) for node in part.nodes]
    heads = ("CA", "State", "Profile", "Signed by", "Key", "Ends", "Valid leaves")
    return join(
        (
            el(
                "figure",
                _scrolling(hierarchy_svg(part), "Hierarchy as a graph"),
                el("figcaption", "Each box is a CA, a name with a key; what it issued and is valid hangs to its right, "
                   "counted by profile. A dashed line is a cross certificate."),
            ),
            el("details", el("summary", "The same as a table"), _table("CAs", heads, rows, numbers=1)),
            _more(part.omitted, "CAs"),
            _repeat(*part.commands),
        )
    )  # fmt: skip


def _ca_row(node: CaNode, nodes: Sequence[CaNode]) -> Sequence[Child]:
    signers = "; ".join(shortened(nodes[number].label, 60) for number in node.parents) or "itself"
    key = " ".join(each for each in (node.key, _PLACES[node.key_place] if node.key_place else "") if each)
    ends = f"{node.not_after:%Y-%m-%d}" if node.not_after is not None else "–"
    number = sum(count for _, count in node.leaves) + node.more_leaves
    signed = signers if node.provenance is not None else "–"
    return (shortened(node.label, 80), node.state.value, node.profile or "–", signed, key or "–", ends, f"{number:,}")


def _timeline(part: TimelinePart) -> Markup:
    if not part.valid:
        return join((el("p", "Nothing is valid at this instant.", class_="none"), _repeat(part.command)))
    word = "week from" if part.span is Span.WEEK else "month"
    rows = [
        (f"{each.begin:%Y-%m-%d}" if part.span is Span.WEEK else f"{each.begin:%Y-%m}", f"{each.certificates:,}")
        for each in part.columns
    ]
    rule = part.rule
    caption = (
        f"Valid certificates by the {part.span.value} in which they expire. Marked are cliffs: within {rule.window} "
        f"days {rule.share:.0%} of what is valid of a profile ends, {rule.minimum} at least."
    )
    table = _table("What expires when", (word, "certificates"), [*rows, ("later", f"{part.later:,}")], numbers=1)
    return join(
        (
            el("figure", _scrolling(timeline_svg(part), "Expiry timeline"), el("figcaption", caption)),
            _cliffs(part.cliffs),
            _more(part.more_cliffs, "cliffs"),
            el("details", el("summary", "The same as a table"), table),
            _repeat(part.command),
        )
    )


def _cliffs(cliffs: Sequence[Cliff]) -> Markup:
    if not cliffs:
        return el("p", "There is no cliff: nothing much ends at one time.", class_="none")
    items = []
    for each in cliffs:
        days = f"on {each.begin}" if each.begin == each.end else f"from {each.begin} to {each.end}"
        told = f" of {each.profile} expire {days}, {each.share:.0%} of what is valid of it"
        items.append(el("li", el("strong", f"{each.certificates:,}"), told))
    return el("ul", *items, class_="cliffs")


def _breakdowns(parts: Sequence[Breakdown]) -> Markup:
    return el("div", *(_breakdown(part) for part in parts), class_="panels")


def _breakdown(part: Breakdown) -> Markup:
    rows = []
    for value, number in part.rows:
        share = number / part.total if part.total else 0.0
        name = "none" if value is None else shortened(value, _LONGEST)
        cells = (el("td", f"{number:,}", class_="figure"), el("td", f"{share:.1%}", class_="figure share"))
        rows.append(_bar_row(name, share, *cells))
    more = f"values with {part.more_certificates:,} certificates"
    return el(
        "div",
        el("h3", part.title),
        _bars(f"Valid certificates by {part.title.lower()}", rows)
        if rows
        else el("p", "Nothing is valid at this instant.", class_="none"),
        _more(part.more_values, more),
        _repeat(part.command),
        class_="panel",
    )


def _bar_row(name: str, share: float, *cells: Markup) -> Markup:
    return el("tr", el("th", name, scope="row"), el("td", bar_svg(share), class_="barred"), *cells)


def _bars(caption: str, rows: Sequence[Markup], *, shares: bool = True) -> Markup:
    """Return a table of bars; its caption is for those who do not see the heading above."""
    columns = [el("col", class_="named"), el("col"), el("col", class_="numbered")]
    if shares:
        columns.append(el("col", class_="numbered share"))
    return el(
        "table", el("caption", caption, class_="unseen"), el("colgroup", *columns), el("tbody", *rows), class_="bars"
    )


_SOURCES: Final = {
    CheckSource.RUN: "Everything was judged for this report",
    CheckSource.LAST: "From the last check of everything",
    CheckSource.QUESTIONS: "Certificates were not judged one by one; the questions about everything were asked",
}


def _findings(part: FindingsPart) -> Markup:
    told = f"{_SOURCES[part.source]}, as of {instant(part.at)} UTC: {findings_words(part)}."
    if part.certificates:
        told += f" {part.certificates:,} certificates were judged, {part.paths:,} paths validated."
    if part.entries_since:
        told += f" {part.entries_since:,} entries were written to the audit log since."
    shown: list[Child] = [el("p", told)]
    if part.groups:
        shown.append(el("ul", *(_finding(part, number) for number in range(len(part.groups))), class_="findings"))
    else:
        shown.append(el("p", "Nothing was found.", class_="none"))
    return join((*shown, _more(part.more_groups, "rules that found something"), _repeat(part.command)))


def _finding(part: FindingsPart, number: int) -> Markup:
    group = part.groups[number]
    examples = [
        el("li", el("code", shortened(each.name, _LONGEST)), " ", shortened(each.message, 2 * _LONGEST))
        for each in group.examples
    ]
    more = group.count - len(group.examples)
    if more > 0:
        examples.append(el("li", f"and {more:,} more", class_="more"))
    return el(
        "li",
        el(
            "p",
            el("span", group.severity.value, class_=f"badge {_tone(group.severity)}"),
            " ",
            el("strong", f"{group.count:,} ×"),
            " ",
            el("code", group.rule, class_="rule"),
        ),
        el("ul", *examples),
        el("p", el("span", "Cure", class_="label"), " ", shortened(group.hint, 400)),
        el("p", el("span", "Clause", class_="label"), " ", shortened(group.clause, 400)),
    )


def _tone(severity: Severity) -> str:
    return {Severity.ERROR: "bad", Severity.WARNING: "warn", Severity.NOTICE: "quiet"}[severity]


def _revocations(part: RevocationsPart) -> Markup:
    told = part.summary
    if not told.revoked:
        return join((el("p", "Nothing was revoked.", class_="none"), _repeat(part.command)))
    facts = (
        ("revoked", f"{told.revoked:,}", None),
        ("on no list yet", f"{told.unpublished:,}", "bad" if told.unpublished else None),
        ("denied by a prepared answer", f"{told.stale_answers:,}", "bad" if told.stale_answers else None),
        ("to the first list, median", span_text(told.median_latency), None),
        ("95 of 100 within", span_text(told.latency_95), None),
        ("until in effect, median", span_text(told.median_effect), None),
    )
    most = max(number for _, number in part.latencies)
    within = [
        _bar_row(_within(name), number / most if most else 0, el("td", f"{number:,}", class_="figure"))
        for name, number in part.latencies
        if number or name not in ("needless", "longer")
    ]
    reasons = ", ".join(f"{number:,} {reason}" for reason, number in told.by_reason)
    note = (
        "A revocation is published by the first list of its scope that tells it, and in effect when the last list that "
        "is silent about it has ended: from then on nobody can believe one that was signed before. OCSP tells it at "
        "once."
    )
    pending = f" {told.pending:,} are published and not in effect yet." if told.pending else ""
    heads = ("Certificate", "Reason", "Revoked", "Published", "In effect", "Latency")
    return join(
        (
            el("dl", *(_fact(*fact) for fact in facts), class_="facts"),
            el("p", f"By reason: {reasons}.{pending}"),
            el("h3", "From revocation to the first list"),
            el("div", _bars("Revocations by the time to the first list", within, shares=False), class_="narrow"),
            _table("What waits first, then the latest (UTC)", heads, map(_revocation, part.shown), numbers=1),
            _more(told.revoked - len(part.shown), "revocations"),
            el("p", note, class_="note"),
            _repeat(part.command, *([part.unpublished_command] if told.unpublished else [])),
        )
    )  # fmt: skip


def _within(name: str) -> str:
    return {"longer": "longer", "not yet": "on no list", "needless": "expired before"}.get(name, f"within {name}")


def _fact(name: str, value: str, tone: str | None) -> Markup:
    return el("div", el("dt", name), el("dd", value, class_=tone))


def _revocation(effect: RevocationEffect) -> Sequence[Child]:
    published = instant(effect.published_at) if effect.published_at is not None else effect.publication.value
    return (
        el("code", shortened(effect.certificate, 80)),
        effect.reason,
        instant(effect.revoked_at),
        published,
        instant(effect.effective_at),
        span_text(effect.latency),
    )


def _audit(part: AuditPart) -> Markup:
    shown: list[Child] = []
    if not part.verified:
        shown.append(el("p", el("strong", "The log was not verified."), f" {part.reason}"))
    else:
        tone = "good" if part.ok else "bad"
        word = "whole" if part.ok else "contradicted"
        signed = f"; the head of entry {part.head_count:,} is signed by log key {part.key_id[:16]}" if (
            part.ok and part.key_id and part.head_count is not None
        ) else ""  # fmt: skip
        told = f" {part.entries:,} entries and {part.rows:,} rows were compared{signed}."
        shown.append(el("p", el("span", word, class_=f"badge {tone}"), told))
        kept = {
            "not tested": "Whether its end was cut off was not tested: that takes a checkpoint kept elsewhere.",
            "agreed": "It agrees with the checkpoint.",
            "contradicted": "It contradicts the checkpoint.",
        }[part.checkpoint]
        shown.append(el("p", kept))
        rows = [(each.code.value, "–" if each.seq is None else str(each.seq), shortened(each.what, 300))
                for each in part.findings]  # fmt: skip
        if rows:
            shown.append(_table("What contradicts the log", ("Finding", "Entry", "What"), rows))
    return join((*shown, _more(part.more_findings, "findings"), _repeat(part.command)))
