"""Certificate policies along a path, as the graph of RFC 9618: the verdicts of RFC 5280 without exponential cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from chargepki.pki import oids

__all__ = ["PolicyGraph"]

_ANY = oids.ANY_POLICY


@dataclass(slots=True)
class _Node:
    expected: frozenset[str]
    parents: set[str] = field(default_factory=set)


class PolicyGraph:
    """valid_policy_graph: one level a certificate, one node a policy, edges to the level above.

    Clause: RFC 9618 5.1 to 5.4, which replaces RFC 5280 6.1.2 (a), 6.1.3 (d), 6.1.4 (b) and 6.1.5 (g).
    """

    def __init__(self) -> None:
        self._levels: list[dict[str, _Node]] = [{_ANY: _Node(frozenset({_ANY}))}]

    @property
    def is_null(self) -> bool:
        """Whether no policy is left."""
        return not self._levels[-1]

    def add(self, policies: Sequence[str] | None, *, any_allowed: bool) -> None:
        """Process the policies of the next certificate (6.1.3 (d), (e)); ``None`` when it has none."""
        above = self._levels[-1]
        level: dict[str, _Node] = {}
        for policy in policies or ():
            if policy == _ANY:
                continue
            parents = {name for name, node in above.items() if policy in node.expected}
            if not parents and _ANY in above:
                parents = {_ANY}
            if parents:
                level[policy] = _Node(frozenset({policy}), parents)
        if policies and _ANY in policies and any_allowed:
            known = set(level)
            for name, node in above.items():
                for policy in node.expected - known:
                    level.setdefault(policy, _Node(frozenset({policy}))).parents.add(name)
        self._levels.append(level)
        self._prune()

    def map(self, mappings: Mapping[str, frozenset[str]], *, allowed: bool) -> None:
        """Apply the mappings of the certificate just added (6.1.4 (b))."""
        level = self._levels[-1]
        for policy, subjects in mappings.items():
            if not allowed:
                level.pop(policy, None)
            elif policy in level:
                level[policy].expected = subjects
            elif _ANY in level:
                level[policy] = _Node(subjects, {_ANY})
        self._prune()

    def _prune(self) -> None:
        """Delete, from the bottom up, what leads to no node of the last level."""
        for depth in range(len(self._levels) - 1, 0, -1):
            used = {parent for node in self._levels[depth].values() for parent in node.parents}
            above = self._levels[depth - 1]
            for name in above.keys() - used:
                del above[name]

    def constrained(self, wanted: frozenset[str]) -> frozenset[str]:
        """Return the user-constrained-policy-set for the initial set *wanted* (anyPolicy in it: no restriction)."""
        found: set[str] = set()
        for depth in range(1, len(self._levels)):
            found |= {name for name, node in self._levels[depth].items() if name != _ANY and _ANY in node.parents}
        if _ANY in self._levels[-1]:
            found.add(_ANY)
        if _ANY in wanted:
            return frozenset(found)
        return wanted if _ANY in found else wanted & found
