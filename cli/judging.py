"""The verdict of ``csr check``: the request by itself, and against what is on record."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from chargepki.cli.globals import GlobalState
from chargepki.pki import files, names
from chargepki.pki.authority import utc_now
from chargepki.pki.authority.order_judge import station_for
from chargepki.pki.authority.request_record import judge_on_record
from chargepki.pki.csr import parse_csr
from chargepki.pki.errors import StateError
from chargepki.pki.keys import spki_sha256
from chargepki.pki.policy import RequestVerdict, RuleVerdict, judge_request
from chargepki.pki.policy_record import Asking, judge_key_list, not_judged
from chargepki.pki.policy_settings import RECORD_RULES, Mode
from chargepki.pki.profiles.base import Profile

__all__ = ["judge_file"]

_MAX_CSR_BYTES: Final = 65536


def judge_file(state: GlobalState, file: str, profile: Profile, station: str | None) -> RequestVerdict:
    """Return the verdict of every rule on the request in *file* (``-``: standard input).

    Raises:
        InputError: it cannot be decoded.
        NotFound: there is no station of that name.
        StateError: a station was named and there is no inventory to look it up in.
    """
    request = parse_csr(files.read_limited(file, _MAX_CSR_BYTES, "certificate request"))
    workspace = state.workspace
    policy = workspace.policy
    verdict = policy.apply(judge_request(request, profile))
    rules: tuple[RuleVerdict, ...] = judge_key_list(request.spki_der, policy)
    if workspace.exists:
        inventory = workspace.inventory
        subject = verdict.subject or names.name_from_der(request.subject_der)
        belongs_to = station_for(inventory, station, profile, subject)
        asking = Asking(belongs_to.id if belongs_to else None, names.name_der(subject), request.der)
        key = spki_sha256(request.spki_der)
        rules += judge_on_record(inventory, asking, key, policy, now=utc_now())
    elif station is not None:
        raise StateError("there is no inventory to look the station up in", fix="name it with --home or --database")
    else:
        wanted = [rule for rule in RECORD_RULES if policy.mode_of(rule) is not Mode.OFF]
        rules += tuple(not_judged(rule, "there is no inventory") for rule in wanted)
    return replace(verdict, rules=(*verdict.rules, *rules))
