"""Where the four-eyes rule is asked: in the transaction of the act itself, whoever calls for it.

The rule is what the configuration of this workspace says, and what the audit log of the inventory says
(`approval.rule`), whichever is more: another machine, another configuration or a program of its own that shares the
inventory does not go around it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from chargepki.pki.authority.approvals import (
    ACTS,
    MOST_APPROVALS,
    Approval,
    ApprovalRequest,
    ApprovalSettings,
    evidence_of,
    verified_approvals,
)
from chargepki.pki.errors import InputError, PolicyRefusal
from chargepki.pki.inventory import Inventory, Transaction
from chargepki.pki.inventory.reads import Reads
from chargepki.pki.inventory.records import Actor

__all__ = ["ApprovalAsked", "FourEyes", "change_rule", "recorded_rule", "request_for"]

RULE_ACTION: Final = "approval.rule"
_USE_ACTION: Final = "approval.use"
_OF_PEOPLE: Final = frozenset({"approver.register", "approver.remove"})


class ApprovalAsked(PolicyRefusal):
    """Nothing was done: the request that approvers sign was asked for."""

    def __init__(self, request: ApprovalRequest, needed: int) -> None:
        super().__init__(f"{request.act} was not done: its request was asked for")
        self.request = request
        self.needed = needed


def recorded_rule(reads: Reads, act: str) -> int:
    """Return how many approvals the inventory's own rule asks for *act*."""
    entry = reads.last_audit(RULE_ACTION, act)
    needed = None if entry is None else entry.details.get("needed")
    return needed if isinstance(needed, int) else 0


def request_for(reads: Reads, act: str, parameters: Mapping[str, object]) -> ApprovalRequest:
    """Return what approvers of *act* sign: for this inventory, as it was restored last."""
    told = {name: "" if value is None else str(value) for name, value in sorted(parameters.items())}
    head = reads.audit_head()
    log = "" if head is None else head.log_id
    # After a restore the log no longer knows which approvals were used: none from before it counts any more.
    if restored := reads.list_restorations():
        log += f"/{restored[-1].id}"
    return ApprovalRequest(act, told, log)


@dataclass(slots=True)
class FourEyes:
    """The rule, and the approvals that were brought for what is done next.

    Example:
        authority.four_eyes.bring([Approval.parse(data) for data in files])
        authority.create_ca(order)
    """

    settings: ApprovalSettings = field(default_factory=ApprovalSettings)
    approvals: tuple[Approval, ...] = ()
    is_asking: bool = False
    """Raise `ApprovalAsked` in place of acting."""
    is_rehearsal: bool = False
    """Of a dry run, which does nothing and needs nobody."""
    _covered: frozenset[str] = frozenset()

    def bring(self, approvals: Sequence[Approval]) -> None:
        """Take *approvals* for the next acts, in place of those brought before."""
        self.approvals = tuple(approvals)

    def needed(self, reads: Reads, act: str) -> int:
        """Return how many approvals *act* needs."""
        needed = max(self.settings.of(act), recorded_rule(reads, act))
        if act in _OF_PEOPLE:
            # Somebody has to be the first: until so many people are registered, all that are there approve.
            needed = min(needed, sum(1 for each in reads.list_approvers() if each.active))
        return needed

    def require(
        self,
        tx: Transaction,
        act: str,
        parameters: Mapping[str, object],
        *,
        actor: Actor,
        now: datetime,
        resumes: bool = False,
        needed: int | None = None,
    ) -> None:
        """Refuse *act* in the transaction that would do it, unless enough people approved this very act.

        Args:
            parameters: what decides the act, and the state that it starts from.
            resumes: it goes on with what an earlier transaction began, which had these approvals.
            needed: in place of what the rule says.

        Raises:
            PolicyRefusal: too few approvals, one that does not hold, or all of them were used before.
            ApprovalAsked: the request is to be written.
        """
        if self.is_rehearsal or act in self._covered:
            return
        count = self.needed(tx, act) if needed is None else needed
        if not count and not self.approvals and not self.is_asking:
            return
        request = request_for(tx, act, parameters)
        if self.is_asking:
            raise ApprovalAsked(request, count)
        if tx.last_audit(_USE_ACTION, request.sha256) is not None:
            if resumes:
                return
            raise PolicyRefusal(
                f"the approvals of this {act} were used already",
                why=f"an approval is for one act; the request is {request.sha256}",
                fix="have the act approved anew once something else has changed its state",
            )
        held = verified_approvals(tx, request, self.approvals, now=now)
        if len(held) < count:
            raise PolicyRefusal(
                f"{act} needs {count} approvals and has {len(held)}",
                why=f"the four-eyes rule (`chargepki approval rules`); the request is {request.sha256}",
                fix="repeat it with --request-approval FILE, have that signed (approval sign), and pass --approval",
            )
        details = {"request": request.to_json(), "approvals": evidence_of(held)}
        tx.audit(actor, _USE_ACTION, request.sha256, now=now, details=details)

    @contextlib.contextmanager
    def covering(
        self,
        inventory: Inventory,
        act: str,
        parameters: Mapping[str, object],
        *,
        actor: Actor,
        now: datetime,
        also: str = "",
    ) -> Iterator[None]:
        """Ask once for an act of several transactions, which a repeat completes; inside nobody asks again.

        Args:
            also: another act that this one consists of.
        """
        if self.is_asking or self.approvals or self.needed(inventory, act):
            inventory.write(lambda tx: self.require(tx, act, parameters, actor=actor, now=now, resumes=True))
        before = self._covered
        self._covered = before | {act, also or act}
        try:
            yield
        finally:
            self._covered = before

    def check_covered(self, reads: Reads, acts: Sequence[str], what: str, fix: str) -> None:
        """Refuse *what*, which takes no approvals, where one of *acts* needs them and none of them covers it.

        Raises:
            PolicyRefusal: it is to be done in another way.
        """
        if self.is_rehearsal or self._covered & set(acts):
            return
        if any(self.needed(reads, act) for act in acts):
            raise PolicyRefusal(f"{what}, which needs approvals here", why="the four-eyes rule", fix=fix)


def change_rule(inventory: Inventory, four_eyes: FourEyes, act: str, count: int, *, actor: Actor, now: datetime) -> int:
    """Record in the inventory how many approvals *act* needs; return how many it needed before.

    To ask for fewer takes as many approvals as were needed.

    Raises:
        InputError: no such act, or a number out of range.
        PolicyRefusal: too few approvals; or more are asked for than there are people who may approve.
    """
    if act not in ACTS:
        raise InputError(f"unknown act {act[:60]!r}", why=f"known are {', '.join(ACTS)}", fix="use one")
    if not 0 <= count <= MOST_APPROVALS:
        raise InputError(f"an act needs 0 to {MOST_APPROVALS} approvals", fix="choose such a number")

    def work(tx: Transaction) -> int:
        before = recorded_rule(tx, act)
        people = sum(1 for each in tx.list_approvers() if each.active)
        if count > max(people, before):
            raise PolicyRefusal(
                f"{count} approvals are more than there are people who may approve ({people})",
                why="nobody could do it any more",
                fix="register them first: chargepki approval register NAME --public-key F",
            )
        if count < before or four_eyes.is_asking:
            changed = {"act": act, "needed": count, "before": before, "rule": _rule_number(tx, act)}
            four_eyes.require(tx, "approval.rule", changed, actor=actor, now=now, needed=min(before, people))
        if count != before:
            tx.audit(actor, RULE_ACTION, act, now=now, details={"needed": count, "before": before})
        return before

    return inventory.write(work)


def _rule_number(reads: Reads, act: str) -> int:
    entry = reads.last_audit(RULE_ACTION, act)
    return 0 if entry is None else entry.seq
