"""What commands do whose act may need approvals: write the request, or bring the approvals."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import click

from chargepki.cli.globals import GlobalState

__all__ = ["approval_options", "check_approved", "refuse_ca_profile"]

_F = TypeVar("_F", bound=Callable[..., Any])


def approval_options(command: _F) -> _F:
    """Add ``--approval`` and ``--request-approval``."""
    approval = click.option(
        "--approval", "approvals", multiple=True, metavar="F", help="An approval of this act, see `chargepki approval`."
    )
    request = click.option(
        "--request-approval", metavar="F", help="Write what approvers sign to this file, and do nothing else."
    )
    return approval(request(command))


def check_approved(
    state: GlobalState,
    act: str,
    parameters: Mapping[str, object],
    *,
    approvals: Sequence[str],
    request_approval: str | None,
) -> None:
    """Refuse an act that needs approvals and has too few; with ``--request-approval`` write the request and stop.

    Raises:
        PolicyRefusal: too few, or one that does not hold.
        Exit: the request was written.
    """
    from chargepki.cli.results import check_folder, write_result
    from chargepki.pki import files
    from chargepki.pki.authority import utc_now
    from chargepki.pki.authority.approvals import Approval, ApprovalRequest, load_approval_settings, record_approvals
    from chargepki.pki.config import CONFIG_FILE

    settings = load_approval_settings(state.settings.home / CONFIG_FILE)
    needed = settings.of(act)
    if not needed and not approvals and request_approval is None:
        return
    inventory = state.workspace.inventory
    head = inventory.audit_head()
    told = {name: "" if value is None else str(value) for name, value in sorted(parameters.items())}
    request = ApprovalRequest(act, told, "" if head is None else head.log_id)
    if request_approval is not None:
        check_folder("--request-approval", request_approval)
        write_result(state, (json.dumps(request.to_json(), indent=2) + "\n").encode("ascii"), request_approval)
        state.output.say(f"{act} needs {needed} approvals; each: chargepki approval sign {request_approval} --key F")
        raise click.exceptions.Exit(0)
    found = [Approval.parse(files.read_limited(path, 1 << 16, "approval")) for path in approvals]
    record_approvals(inventory, request, found, needed, actor=state.workspace.actor, now=utc_now())


def refuse_ca_profile(state: GlobalState, profile_id: str) -> None:
    """Refuse to certify a CA by a command that takes no approvals, where they are needed.

    Raises:
        PolicyRefusal: certificates of *profile_id* sign others, and certifying a CA needs approvals.
    """
    from chargepki.pki.authority.approvals import load_approval_settings
    from chargepki.pki.config import CONFIG_FILE
    from chargepki.pki.errors import PolicyRefusal
    from chargepki.pki.profiles import get_profile

    if not get_profile(profile_id).is_ca:
        return
    settings = load_approval_settings(state.settings.home / CONFIG_FILE)
    if settings.of("ca.sign-request") or settings.of("ca.cross-sign"):
        raise PolicyRefusal(
            f"certificates of {profile_id} are for CAs, which need approvals here",
            why="[approvals] in the configuration names ca.sign-request or ca.cross-sign",
            fix="use chargepki ca sign-request, or ca cross-sign",
        )
