"""The operator's settings of the linter: severities, switches and data, from ``[lint]`` of ``chargepki.toml``."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from chargepki.pki.errors import InputError, reading_configuration
from chargepki.pki.files import read_limited
from chargepki.pki.findings import Severity
from chargepki.pki.lint.catalogue import all_rules
from chargepki.pki.lint.engine import LintData, LintReport, Override, Rule
from chargepki.pki.lint.weak_keys import WeakKeys

__all__ = ["LintSettings", "load_lint_settings"]

_MAX_CONFIG_BYTES: Final = 1 << 20
_MAX_LIST_BYTES: Final = 64 << 20
_TEXTS: Final = ("weak_keys", "serial_number", "organization")
_SEVERITIES: Final = {severity.value: severity for severity in Severity} | {"off": None}


@dataclass(frozen=True, slots=True)
class LintSettings:
    """What the configuration changes; the default changes nothing."""

    severity: Mapping[str, Severity | None] = field(default_factory=dict)
    """By rule id; ``None`` switches the rule off."""
    unverified: bool = True
    """Whether rules run whose demand no public text settles; they are warnings at most."""
    data: LintData = field(default_factory=LintData)
    source: str = "chargepki.toml"
    """Where the settings stand, for the report."""

    def apply(self, report: LintReport) -> LintReport:
        """Return *report* with the severities of these settings, and every override that concerns it named."""
        overrides = tuple(self._overrides(report))
        if not overrides:
            return report
        wanted = {override.rule: override.severity for override in overrides}
        off = {rule for rule, severity in wanted.items() if severity is None}
        findings = []
        for finding in report.findings:
            if finding.rule not in off:
                severity = wanted.get(finding.rule)
                findings.append(replace(finding, severity=severity) if severity is not None else finding)
        return replace(
            report,
            findings=tuple(findings),
            rules_run=tuple(rule for rule in report.rules_run if rule not in off),
            not_evaluated=tuple(each for each in report.not_evaluated if each.rule not in off),
            overrides=overrides,
        )

    def _overrides(self, report: LintReport) -> Sequence[Override]:
        if not self.severity and self.unverified:
            return ()
        rules = {(rule.subject, rule.id): rule for rule in all_rules()}
        found = []
        for rule_id in (*report.rules_run, *(each.rule for each in report.not_evaluated)):
            rule = _rule_of(rules, rule_id)
            if rule is None:
                continue
            if rule_id in self.severity:
                found.append(Override(rule_id, rule.severity, self.severity[rule_id], self.source))
            elif rule.unverified and not self.unverified:
                found.append(Override(rule_id, rule.severity, None, f"{self.source}: unverified = false"))
        return found


def _rule_of(rules: Mapping[tuple[str, str], Rule[Any]], rule_id: str) -> Rule[Any] | None:
    return next((rule for (_, found), rule in rules.items() if found == rule_id), None)


@reading_configuration()
def load_lint_settings(path: Path) -> LintSettings:
    """Read the table ``[lint]`` of *path*; the defaults when there is no such file or table.

    Raises:
        FaultyConfiguration: not TOML, an unknown key or rule, or a value that does not fit.
        UnavailableError: the file, or one that it names, cannot be read.
    """
    if not path.exists():
        return LintSettings()
    data = read_limited(path, _MAX_CONFIG_BYTES, "configuration")
    try:
        table = tomllib.loads(data.decode()).get("lint", {})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path} is not valid TOML", why=str(error), fix="correct the line that is named") from error
    return _settings(table, path)


def _settings(table: object, path: Path) -> LintSettings:
    if not isinstance(table, dict):
        raise InputError(f"{path}: lint must be a table", fix="write [lint]")
    unknown = sorted(set(table) - {*_TEXTS, "unverified", "severity"})
    if unknown:
        raise InputError(
            f"{path}: unknown setting lint.{unknown[0]}",
            why=f"known are {', '.join(_TEXTS)}, unverified and the table [lint.severity]",
            fix="correct its name",
        )
    texts = {name: table[name] for name in _TEXTS if name in table}
    for name, value in texts.items():
        if not isinstance(value, str):
            raise InputError(f"{path}: lint.{name} must be text", fix=f'write {name} = "…"')
    unverified = table.get("unverified", True)
    if not isinstance(unverified, bool):
        raise InputError(f"{path}: lint.unverified must be true or false", fix="write unverified = false")
    weak_file = texts.pop("weak_keys", None)
    return LintSettings(
        severity=_severities(table.get("severity", {}), path),
        unverified=unverified,
        data=LintData(weak_keys=None if weak_file is None else load_weak_keys(path.parent / weak_file), **texts),
        source=str(path),
    )


def _severities(table: object, path: Path) -> Mapping[str, Severity | None]:
    if not isinstance(table, dict):
        raise InputError(f"{path}: lint.severity must be a table", fix='write [lint.severity], then RULE = "warning"')
    known = {rule.id for rule in all_rules()}
    found: dict[str, Severity | None] = {}
    for rule, value in table.items():
        if rule not in known:
            raise InputError(
                f"{path}: there is no rule {rule!r}",
                why="an override that silently does nothing would be mistaken for one that works",
                fix="list the rules with: chargepki lint --list-rules",
            )
        if not isinstance(value, str) or value not in _SEVERITIES:
            raise InputError(f"{path}: lint.severity.{rule} is no severity", fix=f"one of {', '.join(_SEVERITIES)}")
        found[rule] = _SEVERITIES[value]
    return found


def load_weak_keys(path: Path) -> WeakKeys:
    """Read a list of weak keys (`WeakKeys` documents the format). Raises InputError or UnavailableError."""
    return WeakKeys.parse(read_limited(path, _MAX_LIST_BYTES, "list of weak keys"), str(path))
