"""The operator's settings of the request policy: which rules warn, which refuse, and what they need to know."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Final

from chargepki.pki.errors import InputError, reading_configuration
from chargepki.pki.policy import Outcome, RequestVerdict, RuleVerdict

if TYPE_CHECKING:
    from chargepki.pki.lint.weak_keys import WeakKeys

__all__ = ["KNOWN_RULES", "RECORD_RULES", "Mode", "PolicySettings", "Rate", "load_policy_settings"]

_MAX_CONFIG_BYTES: Final = 1 << 20
_NOTHING: Final[frozenset[str]] = frozenset()
_RATE: Final = re.compile(r"([1-9][0-9]{0,5})/([1-9][0-9]{0,5})([smhd])")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


class Mode(StrEnum):
    """What a rule does when it finds something."""

    WARN = "warn"
    """It is on record with the certificate and shown."""
    ENFORCE = "enforce"
    """The request is refused."""
    OFF = "off"
    """The rule is not evaluated."""


KNOWN_RULES: Final[Mapping[str, Mode]] = {
    "possession": Mode.ENFORCE,
    "key-algorithm": Mode.ENFORCE,
    "ca-request": Mode.ENFORCE,
    "compromised-key": Mode.ENFORCE,
    "subject": Mode.WARN,
    "extension": Mode.WARN,
    "key-reuse": Mode.WARN,
    "key-renewal": Mode.WARN,
    "key-revoked": Mode.WARN,
    "replay": Mode.WARN,
    "rate": Mode.ENFORCE,
    "weak-key": Mode.ENFORCE,
}
"""Every rule that can be set, with what it does unless told otherwise. ``subject`` stands for ``subject-CN`` and the
like; what breaks a profile is refused in either mode."""
RECORD_RULES: Final = ("compromised-key", "key-reuse", "key-renewal", "key-revoked", "replay", "rate")
"""Those that need an inventory."""
_FIXED: Final = ("possession", "key-algorithm", "ca-request", "compromised-key")
"""Without these a certificate would be wrong, whatever an operator prefers."""
_ONLY_HARDER: Final = ("subject", "extension")
"""They may refuse what they would only remark on; what they refuse stays refused."""


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `count` certificates of one station within `window`."""

    count: int
    window: timedelta

    @classmethod
    def parse(cls, text: str) -> Rate:
        """Read for example ``10/24h``.

        Raises:
            InputError: it is none.
        """
        found = _RATE.fullmatch(text)
        if found is None:
            raise InputError(f"{text[:40]!r} is no rate", why="a rate is COUNT/TIME", fix="write for example 10/24h")
        return cls(int(found[1]), timedelta(**{_UNITS[found[3]]: int(found[2])}))

    def __str__(self) -> str:
        return f"{self.count} in {self.window}"


@dataclass(frozen=True, slots=True)
class PolicySettings:
    """What the configuration says of the request policy; the default is what `KNOWN_RULES` says."""

    modes: Mapping[str, Mode] = field(default_factory=dict)
    """By rule id; a rule that is not named keeps its mode of `KNOWN_RULES`."""
    rate: Rate | None = None
    """``None``: the rule ``rate`` is not evaluated."""
    weak_keys: WeakKeys | None = None
    """``None``: the rule ``weak-key`` is not evaluated."""

    def mode_of(self, rule: str) -> Mode:
        """Return what *rule* does."""
        name = "subject" if rule.startswith("subject-") else rule
        return self.modes.get(name, KNOWN_RULES.get(name, Mode.WARN))

    @property
    def off(self) -> frozenset[str]:
        """The rules that are not evaluated."""
        return frozenset(rule for rule, mode in self.modes.items() if mode is Mode.OFF) if self.modes else _NOTHING

    def apply(self, verdict: RequestVerdict) -> RequestVerdict:
        """Return *verdict* with its notices as refusals where a rule is enforced."""
        if not self.modes:
            return verdict
        return replace(verdict, rules=tuple(map(self._harder, verdict.rules)))

    def found(self, rule: str, message: str, clause: str, fix: str) -> RuleVerdict:
        """Return the verdict of *rule*, which has found something, in its mode."""
        outcome = Outcome.REFUSE if self.mode_of(rule) is Mode.ENFORCE else Outcome.NOTICE
        return RuleVerdict(rule, outcome, message, clause, fix)

    def _harder(self, verdict: RuleVerdict) -> RuleVerdict:
        if verdict.outcome is not Outcome.NOTICE or self.mode_of(verdict.rule) is not Mode.ENFORCE:
            return verdict
        fix = verdict.fix or "make the request without it"
        return replace(verdict, outcome=Outcome.REFUSE, fix=fix)


@reading_configuration()
def load_policy_settings(path: Path) -> PolicySettings:
    """Read the table ``[policy]`` of *path*, and the list of weak keys that its table ``[lint]`` names.

    Raises:
        FaultyConfiguration: not TOML, an unknown key or rule, or a value that does not fit.
        UnavailableError: the file, or one that it names, cannot be read.
    """
    from chargepki.pki.files import read_limited

    if not path.exists():
        return PolicySettings()
    data = read_limited(path, _MAX_CONFIG_BYTES, "configuration")
    try:
        document = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path} is not valid TOML", why=str(error), fix="correct the line that is named") from error
    table = _table(document.get("policy", {}), path, "policy")
    _check_known(table, ("rate", "rules"), path, "policy")
    rate = table.get("rate")
    if rate is not None and not isinstance(rate, str):
        raise InputError(f"{path}: policy.rate must be text", fix='write rate = "10/24h"')
    return PolicySettings(
        modes=_modes(_table(table.get("rules", {}), path, "policy.rules"), path),
        rate=None if rate is None else Rate.parse(rate),
        weak_keys=_weak_keys(document.get("lint"), path),
    )


def _weak_keys(lint: object, path: Path) -> WeakKeys | None:
    named = lint.get("weak_keys") if isinstance(lint, dict) else None
    if not isinstance(named, str):
        return None  # Whether the rest of [lint] is right is told by what reads it.
    from chargepki.pki.lint.settings import load_weak_keys

    return load_weak_keys(path.parent / named)


def _modes(table: Mapping[str, object], path: Path) -> Mapping[str, Mode]:
    _check_known(table, KNOWN_RULES, path, "policy.rules")
    found: dict[str, Mode] = {}
    for rule, value in table.items():
        allowed = [mode.value for mode in _allowed(rule)]
        if value not in allowed:
            why = f"{rule} is always enforced" if rule in _FIXED else f"{rule} takes {', '.join(allowed)}"
            raise InputError(
                f"{path}: policy.rules.{rule} cannot be that", why=why, fix=f'write {rule} = "{allowed[0]}"'
            )
        found[rule] = Mode(str(value))
    return found


def _allowed(rule: str) -> tuple[Mode, ...]:
    if rule in _FIXED:
        return (Mode.ENFORCE,)
    return (Mode.WARN, Mode.ENFORCE) if rule in _ONLY_HARDER else (Mode.WARN, Mode.ENFORCE, Mode.OFF)


def _table(value: object, path: Path, name: str) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise InputError(f"{path}: {name} must be a table", fix=f"write [{name}]")
    return value


def _check_known(table: Mapping[str, object], known: Iterable[str], path: Path, name: str) -> None:
    for key in table:
        if key not in known:
            raise InputError(
                f"{path}: unknown setting {name}.{key}", why=f"known are {', '.join(known)}", fix="correct its name"
            )
