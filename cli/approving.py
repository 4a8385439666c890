"""What commands do whose act may need approvals: write the request, or bring the approvals."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from chargepki.cli.globals import GlobalState

if TYPE_CHECKING:
    from chargepki.pki.authority.four_eyes import FourEyes

__all__ = ["approval_options", "approving", "asked"]

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


@contextlib.contextmanager
def approving(state: GlobalState, *, approvals: Sequence[str], request_approval: str | None) -> Iterator[None]:
    """Bring approvals to what is done inside; with ``--request-approval`` write the request, and stop.

    Raises:
        Exit: the request was written.
    """
    with asked(state, state.workspace.four_eyes, approvals=approvals, request_approval=request_approval):
        yield


@contextlib.contextmanager
def asked(
    state: GlobalState, four_eyes: FourEyes, *, approvals: Sequence[str], request_approval: str | None
) -> Iterator[None]:
    """Do as `approving`, with a rule that belongs to no opened workspace."""
    from chargepki.cli.results import check_folder, write_result
    from chargepki.pki import files
    from chargepki.pki.authority.approvals import Approval
    from chargepki.pki.authority.four_eyes import ApprovalAsked

    check_folder("--request-approval", request_approval)
    four_eyes.bring([Approval.parse(files.read_limited(path, 1 << 16, "approval")) for path in approvals])
    four_eyes.is_asking = request_approval is not None
    try:
        yield
    except ApprovalAsked as error:
        request, needed = error.request, error.needed
        write_result(state, (json.dumps(request.to_json(), indent=2) + "\n").encode("ascii"), request_approval)
        state.output.say(f"{request.act} needs {needed} approvals; each: chargepki approval sign {request_approval}")
        raise click.exceptions.Exit(0) from error
