"""``chargepki csr``: judge a certificate signing request."""

from __future__ import annotations

import click

from chargepki.cli.globals import GlobalState, group, pass_state

__all__ = ["csr"]


@group("csr", example="chargepki csr check station.csr --profile ocpp/charging-station")
def csr() -> None:
    """Judge a certificate signing request before it is sent anywhere."""


@csr.command("check", verdict=True, example="chargepki csr check station.csr --profile ocpp/charging-station")
@click.argument("file", metavar="FILE|-")
@click.option("--profile", "profile_id", required=True, metavar="ID", help="Profile to judge it for.")
@click.option("--station", metavar="ID", help="Station that the certificate would belong to.")
@pass_state
def check(state: GlobalState, file: str, profile_id: str, station: str | None) -> None:
    """Print the verdict of the request policy on FILE, rule by rule; exit 1 when it would be refused.

    Where there is an inventory, the request is also judged against what was issued for its key and its station before.
    """
    from chargepki.cli.judging import judge_file
    from chargepki.pki.profiles import get_profile

    profile = get_profile(profile_id)
    verdict = judge_file(state, file, profile, station)
    if state.output.for_machines:
        state.output.document("chargepki/csr-verdict", {"profile": profile.id, **verdict.to_json()})
    else:
        rows = [
            {
                "rule": rule.rule,
                "outcome": rule.outcome,
                "message": rule.message,
                "clause": rule.clause,
            }
            for rule in verdict.rules
        ]
        state.output.rows("chargepki/csr-verdict", ("rule", "outcome", "message", "clause"), rows)
        for rule in verdict.refusals:
            state.output.say(f"fix: {rule.fix}")
        state.output.say("accepted" if verdict.accepted else f"refused for {profile.id}")
    if not verdict.accepted:
        raise click.exceptions.Exit(1)
