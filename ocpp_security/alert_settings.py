"""Alert rules and targets from ``[alerts]`` of ``chargepki.toml``."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from chargepki.ocpp_security.alerts import (
    MAX_WINDOW,
    AlertPlan,
    AlertRule,
    Criticality,
    ExecTarget,
    LogTarget,
    Target,
    WebhookTarget,
)
from chargepki.pki.errors import InputError
from chargepki.pki.files import read_limited
from chargepki.pki.toml_places import Place, find_places

if TYPE_CHECKING:
    from chargepki.ocpp_security.watching import WatchRule

__all__ = ["load_alert_plan", "parse_alert_plan"]

_Path = tuple[str | int, ...]

_MAX_CONFIG_BYTES: Final = 1 << 20
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
_DURATION: Final = re.compile(r"([1-9][0-9]{0,8})([smhd])\Z")
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_LEVELS: Final = ("info", "warning", "error")
_LONGEST_COOL_DOWN: Final = timedelta(days=30)
_LONGEST_NOTICE: Final = timedelta(days=3650)


def load_alert_plan(path: Path) -> AlertPlan:
    """Read the table ``[alerts]`` of *path*; no rules when there is no such file or table.

    Raises:
        InputError: no TOML, or a rule or target that is wrong; it is named.
        UnavailableError: the file cannot be read.
    """
    if not path.exists():
        return AlertPlan()
    try:
        text = read_limited(path, _MAX_CONFIG_BYTES, "configuration").decode()
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path} is not valid TOML", why=str(error), fix="correct the line that is named") from error
    return parse_alert_plan(document.get("alerts", {}), str(path), find_places(text))


def parse_alert_plan(table: object, source: str, places: Mapping[_Path, Place] | None = None) -> AlertPlan:
    """Return the plan of the table ``alerts``.

    Args:
        source: name of the file, for errors.
        places: where in it each value stands, for errors too.

    Raises:
        InputError: names the rule or target, the setting and what it may be.
    """
    alerts = _Table(table, source, ("alerts",), places or {})
    targets: dict[str, Target] = {}
    for number, entry in enumerate(alerts.tables("target")):
        inner = _Table(entry, source, ("alerts", "target", number), places or {})
        target = _target(inner)
        if target.name in targets:
            raise InputError(f"{inner.at('name')} {target.name} is taken", fix="give each target a name of its own")
        targets[target.name] = target
    rules: dict[str, AlertRule] = {}
    for number, entry in enumerate(alerts.tables("rule")):
        inner = _Table(entry, source, ("alerts", "rule", number), places or {})
        rule = _rule(inner, targets)
        if rule.name in rules:
            raise InputError(f"{inner.at('name')} {rule.name} is taken", fix="give each rule a name of its own")
        rules[rule.name] = rule
    watches: dict[str, WatchRule] = {}
    for number, entry in enumerate(alerts.tables("watch")):
        inner = _Table(entry, source, ("alerts", "watch", number), places or {})
        watch = _watch(inner, targets)
        if watch.name in watches or watch.name in rules:
            raise InputError(f"{inner.at('name')} {watch.name} is taken", fix="give each rule a name of its own")
        watches[watch.name] = watch
    alerts.close()
    return AlertPlan(tuple(rules.values()), targets, tuple(watches.values()))


class _Table:
    """One table: each setting is taken once, and what is left at the end is unknown."""

    def __init__(self, value: object, source: str, path: _Path, places: Mapping[_Path, Place]) -> None:
        self._source, self._path, self._places = source, path, places
        if not isinstance(value, dict):
            raise InputError(f"{self.at()} must be a table", fix="see the guide on security events")
        self._left = dict(value)

    def at(self, name: str = "") -> str:
        """Return where a setting stands: file, line and column, and its name."""
        path = (*self._path, name) if name else self._path
        place = self._places.get(path) or self._places.get(self._path)
        # Rules and targets are counted from one.
        shown = ".".join(str(part + 1) if isinstance(part, int) else part for part in path)
        return f"{self._source}{f', {place}' if place is not None else ''}: {shown}"

    def tables(self, name: str) -> list[object]:
        found = self._left.pop(name, [])
        if not isinstance(found, list):
            raise InputError(f"{self.at(name)} must be an array of tables", fix=f"write [[alerts.{name}]]")
        return found

    def close(self) -> None:
        for name in self._left:
            raise InputError(f"{self.at(name)} is an unknown setting", fix="correct its name, or remove it")

    def text(self, name: str, default: str | None = None, *, check: Callable[[str], bool] = bool) -> str:
        value = self._left.pop(name, default)
        if value is None:
            raise InputError(f"{self.at(name)} is missing")
        if not isinstance(value, str) or not value.isprintable() or (value != default and not check(value)):
            raise InputError(f"{self.at(name)} is not what it may be", why=f"it is {value!r}"[:200])
        return value

    def choice(self, name: str, default: str, known: tuple[str, ...]) -> str:
        value = self._left.pop(name, default)
        if value not in known:
            raise InputError(f"{self.at(name)} is {value!r}", fix=f"one of {', '.join(known)}")
        assert isinstance(value, str)
        return value

    def texts(self, name: str, default: tuple[str, ...] | None = None) -> tuple[str, ...]:
        value = self._left.pop(name, default)
        if value is None:
            raise InputError(f"{self.at(name)} is missing")
        found = [value] if isinstance(value, str) else value
        sound = isinstance(found, list | tuple) and found and all(isinstance(item, str) and item for item in found)
        if not sound:
            raise InputError(f"{self.at(name)} must be a text, or an array of texts that is not empty")
        return tuple(found)

    def number(self, name: str, default: int) -> int:
        value = self._left.pop(name, default)
        if type(value) is not int or not 1 <= value <= 1_000_000:
            raise InputError(f"{self.at(name)} must be a number from 1 to 1000000")
        return value

    def flag(self, name: str, *, default: bool) -> bool:
        value = self._left.pop(name, default)
        if not isinstance(value, bool):
            raise InputError(f"{self.at(name)} must be true or false")
        return value

    def durations(self, name: str, default: tuple[str, ...], longest: timedelta) -> tuple[timedelta, ...]:
        found = []
        for each in self.texts(name, default):
            self._left[name] = each
            found.append(self.duration(name, "", longest))
        return tuple(found)

    def duration(self, name: str, default: str, longest: timedelta) -> timedelta:
        value = self._left.pop(name, default)
        match = _DURATION.match(value) if isinstance(value, str) else None
        if match is None:
            raise InputError(f"{self.at(name)} must be a duration", fix='for example "90s", "10m", "1h"')
        try:
            span = timedelta(seconds=int(match[1]) * _UNITS[match[2]])
        except OverflowError:
            span = timedelta.max
        if span > longest:
            raise InputError(f"{self.at(name)} is {value}", why=f"the longest is {longest}")
        return span


def _rule(table: _Table, targets: Mapping[str, Target]) -> AlertRule:
    rule = AlertRule(
        name=table.text("name", check=_is_name),
        targets=table.texts("targets"),
        events=table.texts("events", ("*",)),
        criticality=Criticality(table.choice("criticality", "any", tuple(Criticality))),
        source=table.choice("source", "", ("", "station", "csms", "pki")),
        stations=table.texts("stations", ("*",)),
        threshold=table.number("threshold", 1),
        window=table.duration("window", "10m", MAX_WINDOW),
        per_station=table.flag("per_station", default=True),
        cool_down=table.duration("cool_down", "15m", _LONGEST_COOL_DOWN),
    )
    table.close()
    _check_targets(table, rule.targets, targets)
    return rule


def _check_targets(table: _Table, names: tuple[str, ...], targets: Mapping[str, Target]) -> None:
    for name in names:
        if name not in targets:
            known = ", ".join(targets) or "none"
            raise InputError(f"{table.at('targets')}: there is no target {name!r}", why=f"there are: {known}")


def _watch(table: _Table, targets: Mapping[str, Target]) -> WatchRule:
    # Loaded late: a CSMS without such a rule needs neither linter nor filters.
    from chargepki.ocpp_security.watching import WatchKind, WatchRule
    from chargepki.pki.findings import Severity
    from chargepki.pki.inventory.filter_parser import FilterError, parse_filter

    kind = WatchKind(table.choice("kind", "", tuple(WatchKind)))
    watch = WatchRule(
        name=table.text("name", check=_is_name),
        kind=kind,
        targets=table.texts("targets"),
        where=table.text("where", "") if kind is not WatchKind.DRIFT else "",
        within=table.durations("within", ("30d", "7d"), _LONGEST_NOTICE) if kind is WatchKind.EXPIRY else (),
        severity=Severity(
            table.choice("severity", "warning", tuple(Severity)) if kind is WatchKind.FINDING else "warning"
        ),
        certificates=table.flag("certificates", default=False) if kind is WatchKind.FINDING else False,
    )
    table.close()
    _check_targets(table, watch.targets, targets)
    try:
        parse_filter(watch.where, now=datetime.now(UTC)) if watch.where else None
    except FilterError as error:
        raise InputError(f"{table.at('where')}: {error.what}", why=error.why, fix=error.fix) from error
    return watch


def _target(table: _Table) -> Target:
    name, kind = table.text("name", check=_is_name), table.choice("kind", "", ("log", "exec", "webhook"))
    target: Target
    if kind == "log":
        target = LogTarget(name, table.choice("level", "error", _LEVELS))
    elif kind == "exec":
        command = table.texts("command")
        if not Path(command[0]).is_absolute():
            raise InputError(
                f"{table.at('command')} must begin with an absolute path",
                why="what is run must not depend on a search path",
                fix='for example command = ["/usr/local/bin/page-us", "--security"]',
            )
        target = ExecTarget(name, command, table.duration("timeout", "30s", timedelta(minutes=10)))
    else:
        target = _webhook(table, name)
    table.close()
    return target


def _webhook(table: _Table, name: str) -> WebhookTarget:
    url, may_be_plain = table.text("url"), table.flag("allow_http", default=False)
    try:
        parts = urlsplit(url)
        sound = bool(parts.hostname) and parts.username is None and parts.fragment == ""
        sound = sound and (parts.port is None or parts.port > 0)
    except ValueError:
        sound = False
    if not sound or parts.scheme not in ("https", "http"):
        raise InputError(
            f"{table.at('url')} is no address of a webhook", fix="write https://HOST/PATH, no password in it"
        )
    if parts.scheme == "http" and not may_be_plain:
        raise InputError(
            f"{table.at('url')} is not https",
            why="alerts tell what an attacker would like to know",
            fix="use https, or set allow_http = true on a network that you trust",
        )
    target = WebhookTarget(
        name,
        url,
        secret_file=table.text("secret_file", "", check=lambda text: Path(text).is_absolute()),
        secret_env=table.text("secret_env", ""),
        timeout=table.duration("timeout", "10s", timedelta(minutes=2)),
    )
    if bool(target.secret_file) == bool(target.secret_env):
        raise InputError(
            f"{table.at()}: a webhook needs one of secret_file (an absolute path) and secret_env",
            why="its body is signed, so that the receiver knows who wrote it",
        )
    return target


def _is_name(text: str) -> bool:
    return _NAME.match(text) is not None
