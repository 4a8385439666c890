"""``chargepki inventory timeline``, ``census``, ``keys``, ``orphans``, ``revocations``, ``drift`` and ``impact``."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from chargepki.cli.filtering import combined, filter_options, wanted_of
from chargepki.cli.globals import GlobalState, pass_state
from chargepki.cli.output import counted
from chargepki.cli.values import DURATION, INSTANT

if TYPE_CHECKING:
    from chargepki.pki.questions import ExpiryTimeline, RevocationEffect, RevocationSummary

__all__ = ["add_questions"]

_BAR = 30
_CENSUS_BY = (
    *("profile", "ca", "issuer", "state", "country", "organization", "vendor"),
    *("requester", "issued", "key", "algorithm", "signature"),
)
_LIMIT = click.option(
    "--limit", type=click.IntRange(1, 1_000_000), default=1000, show_default=True, help="Name at most so many."
)
_EVERY = click.option("--all", "everything", is_flag=True, help="Expired and revoked certificates count too.")


def bars(numbers: Sequence[int], width: int = _BAR) -> list[str]:
    """Return a bar for each number; the largest is *width* long, and what is not zero is at least one sign.

    >>> bars([4, 1, 0], 4)
    ['████', '█', '']
    """
    most = max(numbers, default=0)
    return ["█" * (max(1, round(number * width / most)) if number else 0) for number in numbers]


@filter_options
@click.option(
    "--by",
    "span",
    type=click.Choice(["day", "week", "month"]),
    default="month",
    show_default=True,
    help="How finely to count; weeks begin on Monday, all in UTC.",
)
@click.option("--cliff-window", type=DURATION, default="7d", metavar="7d", help="A cliff: within so many days …")
@click.option(
    "--cliff-share",
    type=click.FloatRange(0, 100, min_open=True),
    default=25.0,
    metavar="25",
    help="… so much per cent of a profile's valid certificates expire …",
)
@click.option("--cliff-minimum", type=click.IntRange(min=1), default=10, metavar="10", help="… and so many at least.")
@pass_state
def timeline(
    state: GlobalState,
    /,
    where: str | None,
    query: str | None,
    at: datetime | None,
    span: str,
    cliff_window: timedelta,
    cliff_share: float,
    cliff_minimum: int,
) -> None:
    """Count what expires when, of all that is valid, and name the cliffs: many of one profile at one time."""
    from chargepki.pki.questions import CliffRule, Span, expiry_timeline

    if cliff_window < timedelta(days=1) or cliff_window % timedelta(days=1):
        raise click.UsageError("--cliff-window is counted in whole days, for example 7d")
    rule = CliffRule(cliff_window.days, cliff_share / 100, cliff_minimum)
    wanted = combined(wanted_of(state, where, query, at))
    found = expiry_timeline(
        state.workspace.inventory, at or datetime.now(UTC), wanted=wanted, span=Span(span), rule=rule
    )
    if state.output.for_machines:
        state.output.document("chargepki/expiry-timeline", timeline_json(found))
        return
    _print_timeline(state, found)


def timeline_json(found: ExpiryTimeline) -> dict[str, Any]:
    """Return a timeline as ``--json`` prints it."""
    return {
        "at": found.at,
        "by": found.span,
        "valid": found.valid,
        "buckets": [
            {
                "begin": each.begin.isoformat(),
                "certificates": each.certificates,
                "by_profile": dict(each.by_profile),
            }
            for each in found.buckets
        ],
        "cliffs": [
            {
                "profile": each.profile,
                "begin": each.begin.isoformat(),
                "end": each.end.isoformat(),
                "certificates": each.certificates,
                "share": round(each.share, 4),
            }
            for each in found.cliffs
        ],
        "cliff_rule": {
            "window_days": found.rule.window,
            "share": found.rule.share,
            "minimum": found.rule.minimum,
        },
    }


def _print_timeline(state: GlobalState, found: ExpiryTimeline) -> None:
    drawn = bars([each.certificates for each in found.buckets])
    rows = [
        {"begin": each.begin.isoformat(), "certificates": each.certificates, "": bar}
        for each, bar in zip(found.buckets, drawn, strict=True)
    ]
    state.output.rows("chargepki/expiry-timeline", ("begin", "certificates", ""), rows)
    state.output.say(f"{found.valid} valid certificates")
    for each in found.cliffs:
        days = f"on {each.begin}" if each.begin == each.end else f"from {each.begin} to {each.end}"
        state.output.text(
            f"cliff: {each.certificates} of {each.profile} expire {days}, {each.share:.0%} of what is valid of it"
        )


@filter_options
@click.option("--by", type=click.Choice(_CENSUS_BY), default="profile", show_default=True, help="What to count by.")
@_EVERY
@pass_state
def census(
    state: GlobalState, where: str | None, query: str | None, at: datetime | None, by: str, everything: bool
) -> None:
    """Count what is valid by profile, issuer, country, vendor and so on, or by algorithm of key or signature.

    --by vendor is the organization of the subject, --by algorithm that of the key with its size; --by ca tells the
    generations of an issuer apart.
    """
    from chargepki.pki.questions import take_census

    wanted = combined(wanted_of(state, where, query, at))
    found = take_census(
        state.workspace.inventory, at or datetime.now(UTC), by, wanted=wanted, only_valid=not everything
    )
    rows: list[dict[str, Any]] = [{"value": each.value, "certificates": each.certificates} for each in found.rows]
    if state.output.for_machines:
        content = {"by": found.by, "at": found.at, "only_valid": found.only_valid, "total": found.total, "rows": rows}
        state.output.document("chargepki/census", content)
        return
    for row, bar in zip(rows, bars([each.certificates for each in found.rows]), strict=True):
        row[""] = bar
    state.output.rows("chargepki/census", ("value", "certificates", ""), rows)
    state.output.say(counted(found.total, "certificate"))


@filter_options
@_EVERY
@_LIMIT
@pass_state
def keys(
    state: GlobalState, where: str | None, query: str | None, at: datetime | None, everything: bool, limit: int
) -> None:
    """Name the public keys that more than one certificate has, the worst first.

    across-stations: two stations hold one private key. ca-key: a CA's key is used for another name. across-subjects:
    two names have it. requested: a request that waits has it. renewed: the same name again.
    """
    from chargepki.pki.questions import find_key_reuse

    found = find_key_reuse(
        state.workspace.inventory,
        at or datetime.now(UTC),
        wanted=combined(wanted_of(state, where, query, at)),
        only_valid=not everything,
        limit=limit,
    )
    rows: list[dict[str, Any]] = [
        {
            "kind": each.kind,
            "key_sha256": each.key_sha256,
            "certificates": each.certificates,
            "stations": each.stations,
            "cas": each.cas,
            "subjects": each.subjects,
            "examples": list(each.examples),
        }
        for each in found
    ]
    columns = ("kind", "key_sha256", "certificates", "stations", "subjects", "examples")
    if not state.output.for_machines:
        rows = [{**row, "key_sha256": row["key_sha256"][:16], "examples": row["examples"][:3]} for row in rows]
    state.output.rows("chargepki/key-reuse-list", columns, rows, key="keys")


@pass_state
def orphans(state: GlobalState) -> None:
    """Name the certificates whose issuer the inventory does not hold: of CAs each, of imported ones by their issuer."""
    from chargepki.pki.questions import find_orphans

    rows = [
        {
            "certificate": each.certificate,
            "provenance": each.provenance,
            "subject": each.subject or None,
            "issuer": each.issuer,
            "sha256": each.sha256 or None,
            "certificates": each.certificates,
        }
        for each in find_orphans(state.workspace.inventory)
    ]
    state.output.rows(
        "chargepki/orphan-list", ("certificate", "provenance", "issuer", "certificates"), rows, key="orphans"
    )


@filter_options
@click.option("--ca", metavar="NAME", help="Only revocations of this CA.")
@click.option("--unpublished", is_flag=True, help="Only those that relying parties cannot know of yet.")
@_LIMIT
@pass_state
def revocations(
    state: GlobalState,
    where: str | None,
    query: str | None,
    at: datetime | None,
    ca: str | None,
    unpublished: bool,
    limit: int,
) -> None:
    """Say of each revocation which published list told it first, how long that took, and when it took effect.

    With --at, what was published by then. unpublished: no list tells it. stale-answer: a prepared OCSP response denies
    it. needless: it expired before. It is effective when the last list that is silent about it has ended.
    """
    from itertools import islice

    from chargepki.pki.questions import Publication, revocation_effects, summarise_revocations

    instant = at or datetime.now(UTC)
    inventory = state.workspace.inventory
    if ca is not None:
        inventory.get_ca(ca)
    bad = (Publication.UNPUBLISHED, Publication.STALE_ANSWER)
    parts = wanted_of(state, where, query, at)
    wanted = combined(parts) if parts else None
    effects = revocation_effects(inventory, instant, ca=ca, wanted=wanted)
    chosen = (each for each in effects if not unpublished or each.publication in bad)
    rows = [_revocation_row(each) for each in islice(chosen, limit)]
    columns = ("certificate", "reason", "revoked_at", "publication", "published_at", "effective_at", "latency_seconds")
    summary = summarise_revocations(revocation_effects(inventory, instant, ca=ca, wanted=wanted), instant)
    if state.output.is_json and not state.output.is_json_lines:
        figures = _revocation_figures(summary)
        state.output.document("chargepki/revocation-effects", {"at": instant, **figures, "revocations": rows})
        return
    state.output.rows("chargepki/revocation-effect", columns, rows)
    told = f"{summary.revoked} revoked, {summary.unpublished} unpublished, {summary.stale_answers} stale answers"
    if summary.median_latency is not None:
        told += f"; published within {_seconds(summary.median_latency)} s (median)"
        told += f", {_seconds(summary.latency_95)} s (95 %)"
    state.output.say(told)


def _revocation_row(effect: RevocationEffect) -> dict[str, object]:
    return {
        "certificate": effect.certificate,
        "profile": effect.profile,
        "station": effect.station,
        "reason": effect.reason,
        "revoked_at": effect.revoked_at,
        "publication": effect.publication,
        "published_at": effect.published_at,
        "list_number": effect.list_number,
        "latency_seconds": _seconds(effect.latency),
        "effective_at": effect.effective_at,
    }


def _revocation_figures(summary: RevocationSummary) -> dict[str, object]:
    return {
        "revoked": summary.revoked,
        "unpublished": summary.unpublished,
        "stale_answers": summary.stale_answers,
        "by_reason": dict(summary.by_reason),
        "median_latency_seconds": _seconds(summary.median_latency),
        "latency_95_seconds": _seconds(summary.latency_95),
        "longest_latency_seconds": _seconds(summary.longest_latency),
        "not_yet_effective": summary.pending,
        "median_effect_seconds": _seconds(summary.median_effect),
    }


def _seconds(span: timedelta | None) -> int | None:
    return None if span is None else int(span.total_seconds())


@click.option("--unchecked", is_flag=True, help="Also name roots of stations that were not asked since.")
@_LIMIT
@pass_state
def drift(state: GlobalState, unchecked: bool, limit: int) -> None:
    """Name every root about which a station and the inventory do not agree, over all stations.

    missing, returned, unmanaged, unexplained and unchecked mean what they mean in `station roots`.
    """
    from collections import Counter
    from itertools import islice

    from chargepki.ocpp_security.drift import find_drift
    from chargepki.ocpp_security.trust_reconcile import status_row

    counts: Counter[str] = Counter()
    rows: list[dict[str, Any]] = []
    found = find_drift(state.workspace.inventory, unchecked=unchecked)
    for each in islice(found, limit):
        counts[each.status.finding] += 1
        rows.append({"station": each.station, **status_row(each.status)})
    counts.update(each.status.finding for each in found)
    columns = ("station", "use", "finding", "certificate", "reported_at")
    if state.output.is_json and not state.output.is_json_lines:
        state.output.document("chargepki/drift", {"counts": dict(sorted(counts.items())), "drift": rows})
        return
    state.output.rows("chargepki/station-drift", columns, rows)
    said = ", ".join(f"{number} {finding}" for finding, number in sorted(counts.items()))
    state.output.say(said or "stations and inventory agree")


@click.argument("root", metavar="ROOT")
@click.option("--at", type=INSTANT, metavar="TIME", help="The day in question; now by default.")
@_LIMIT
@pass_state
def impact(state: GlobalState, root: str, at: datetime | None, limit: int) -> None:
    """Say who is cut off if ROOT goes: certificates without another path, stations without another root.

    ROOT is a CA, or the SHA-256 of a root that is known. A cross certificate or a second root may carry on: each CA
    below ROOT is searched for another path that is valid on that day. Give the day after its end for a root that
    expires: what has expired by then counts for nothing.
    """
    from chargepki.ocpp_security.root_impact import find_root, root_impact
    from chargepki.pki.questions import list_authorities

    inventory = state.workspace.inventory
    authorities = list_authorities(inventory)
    chosen = find_root(authorities, root)
    found = root_impact(inventory, authorities, chosen, at or datetime.now(UTC), limit=limit)
    content: dict[str, Any] = {
        "root": found.root,
        "sha256": found.sha256,
        "at": found.at,
        "root_not_after": found.root_not_after,
        "dependent": list(found.dependent),
        "rescued": list(found.rescued),
        "certificates": [
            {
                "ca": each.ca,
                "profile": each.profile,
                "certificates": each.certificates,
                "stations": each.stations,
            }
            for each in found.certificates
        ],
        "total_certificates": found.total_certificates,
        "stations": [
            {
                "station": each.station,
                "use": each.use,
                "reason": each.reason,
                "lost": list(each.lost),
            }
            for each in found.stations
        ],
        "station_counts": dict(found.station_counts),
    }
    if state.output.for_machines:
        state.output.document("chargepki/root-impact", content)
        return
    state.output.text(f"{found.root} gone on {found.at:%Y-%m-%d}:")
    columns = ("ca", "profile", "certificates", "stations")
    state.output.rows("chargepki/root-impact", columns, content["certificates"], title="certificates without a path")
    if found.stations:
        columns = ("station", "use", "reason", "lost")
        state.output.rows("chargepki/root-impact", columns, content["stations"], title="stations without a root")
    for label in found.rescued:
        state.output.say(f"{label} has another path")
    certificates = counted(found.total_certificates, "certificate")
    stations = counted(found.total_stations, "root of a station", "roots of stations")
    state.output.say(f"cut off: {certificates} and {stations}")


def add_questions(group: Any) -> None:
    """Register the commands with the noun ``inventory``."""
    examples = (
        ("timeline", timeline, "chargepki inventory timeline --by week --where \"country = 'DE'\""),
        ("census", census, "chargepki inventory census --by key"),
        ("keys", keys, "chargepki inventory keys --where \"profile = 'ocpp/charging-station'\""),
        ("orphans", orphans, "chargepki inventory orphans --json"),
        ("revocations", revocations, "chargepki inventory revocations --unpublished"),
        ("drift", drift, "chargepki inventory drift"),
        ("impact", impact, "chargepki inventory impact acme-cso-root --at 2030-01-01"),
    )
    for name, function, example in examples:
        group.command(name, example=example)(function)
