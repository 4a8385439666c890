"""Findings about very many objects: counted by rule, with some examples of each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from chargepki.pki.findings import Finding, Severity

__all__ = ["Example", "FindingGroup", "Tally"]

_ORDER: Final = {Severity.ERROR: 0, Severity.WARNING: 1, Severity.NOTICE: 2}


@dataclass(frozen=True, slots=True)
class Example:
    """One object that has the finding."""

    name: str
    """Id of a certificate, name of a station, CA or profile."""
    message: str
    where: str = ""


@dataclass(frozen=True, slots=True)
class FindingGroup:
    """One rule that was broken, with one severity."""

    rule: str
    severity: Severity
    clause: str
    hint: str
    """The cure."""
    count: int
    """Findings; an object may have several of one rule."""
    examples: tuple[Example, ...]
    """The first ones, in the order of the ids."""


@dataclass(slots=True)
class Tally:
    """Counts findings; of each group at most `most` examples are kept."""

    most: int
    _counts: dict[tuple[str, str], int] = field(default_factory=dict)
    _texts: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)
    _examples: dict[tuple[str, str], list[Example]] = field(default_factory=dict)

    def add(self, name: str, finding: Finding) -> None:
        """Count a finding about the object *name*."""
        key = finding.rule, finding.severity.value
        number = self._counts.get(key, 0)
        self._counts[key] = number + 1
        if not number:
            self._texts[key] = finding.clause, finding.hint
            self._examples[key] = []
        if number < self.most:
            self._examples[key].append(Example(name, finding.message, finding.where))

    def take(self, group: FindingGroup) -> None:
        """Add what is counted already, with the first of its examples."""
        key = group.rule, group.severity.value
        self._counts[key] = self._counts.get(key, 0) + group.count
        self._texts.setdefault(key, (group.clause, group.hint))
        kept = self._examples.setdefault(key, [])
        kept += group.examples[: max(0, self.most - len(kept))]

    def merge(self, other: Sequence[Mapping[str, Any]]) -> None:
        """Add what another tally counted, as `to_json` gives it; its objects come behind those of this one."""
        for each in other:
            key = str(each["rule"]), str(each["severity"])
            self._counts[key] = self._counts.get(key, 0) + int(each["count"])
            self._texts.setdefault(key, (str(each["clause"]), str(each["hint"])))
            kept = self._examples.setdefault(key, [])
            room = self.most - len(kept)
            kept += [Example(*map(str, example)) for example in each["examples"][: max(0, room)]]

    def groups(self) -> tuple[FindingGroup, ...]:
        """Return what was counted: errors first, then by rule."""
        found = [
            FindingGroup(rule, Severity(severity), *self._texts[rule, severity], number, tuple(examples))
            for (rule, severity), number in self._counts.items()
            for examples in (self._examples[rule, severity],)
        ]
        return tuple(sorted(found, key=lambda each: (_ORDER[each.severity], each.rule)))

    def to_json(self) -> list[dict[str, Any]]:
        """Return plain data, for a file or another process."""
        return [
            {
                "rule": each.rule,
                "severity": each.severity.value,
                "clause": each.clause,
                "hint": each.hint,
                "count": each.count,
                "examples": [[example.name, example.message, example.where] for example in each.examples],
            }
            for each in self.groups()
        ]


def tally_of(groups: Iterable[FindingGroup]) -> dict[str, int]:
    """Return how many findings there are of each severity; severities without any too."""
    counts = {severity.value: 0 for severity in Severity}
    for each in groups:
        counts[each.severity.value] += each.count
    return counts
