"""Who the stations of a fleet are: names, addresses and versions in turn, and which of them misbehave."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from chargepki.ocpp_security.station.fleet import FleetMember
from chargepki.ocpp_security.station.misbehaviour import parse_conduct
from chargepki.pki.errors import InputError

__all__ = ["fleet_names", "parse_share", "plan_members"]

_SHARE: Final = re.compile(r"([0-9]{1,3})%\Z")
_NUMBERS: Final = re.compile(r"([0-9]{1,7})(?:-([0-9]{1,7}))?\Z")


def fleet_names(pattern: str, count: int) -> list[str]:
    """Return the identities of *count* stations: ``{}`` is their number, or it stands behind a hyphen.

    >>> fleet_names("CS-{}-A", 10)[::9], fleet_names("CS", 2)
    (['CS-01-A', 'CS-10-A'], ['CS-1', 'CS-2'])
    """
    if "{}" not in pattern:
        pattern += "-{}"
    width = len(str(count))
    return [pattern.replace("{}", f"{number:0{width}d}") for number in range(1, count + 1)]


def parse_share(text: str, count: int) -> frozenset[int]:
    """Return the positions (from 0) of the stations that *text* names: ``10%``, or numbers from 1 on: ``3,7-9``.

    A share is spread over the fleet, so that it meets every version.

    Raises:
        InputError: neither, or a number that no station has.

    >>> sorted(parse_share("20%", 10)), sorted(parse_share("1,3-4", 10))
    ([4, 9], [0, 2, 3])
    """
    if match := _SHARE.match(text):
        percent = int(match[1])
        if percent <= 100:
            return frozenset(at for at in range(count) if (at + 1) * percent // 100 > at * percent // 100)
    found: set[int] = set()
    for part in text.split(","):
        match = _NUMBERS.match(part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not 0 < first <= last <= count:
            raise InputError(
                f"{text!r} names no stations of {count}", fix="write a share, 10%, or numbers from 1 on: 3,7-9"
            )
        found.update(range(first - 1, last))
    return frozenset(found)


def plan_members(
    pattern: str,
    count: int | None,
    urls: Sequence[str],
    versions: Sequence[str],
    misbehave: Sequence[str],
    *,
    stays: str | None = None,
    enrol: bool = True,
) -> list[FleetMember]:
    """Return the members of a fleet; without *count* the one station called *pattern*.

    Versions are dealt out in turn, and addresses so that every version comes to each of them.

    Args:
        misbehave: ``NAME`` for all of them, ``NAME=WHO`` for those that `parse_share` says.
        stays: who asks for no certificate and stays on its password, as `parse_share` has it.

    Raises:
        InputError: an unknown misbehaviour, or a bad share.
    """
    names = [pattern] if count is None else fleet_names(pattern, count)
    everybody = frozenset(range(len(names)))
    wrong: dict[int, set[str]] = {at: set() for at in everybody}
    for item in misbehave:
        name, equals, who = item.partition("=")
        for at in parse_share(who, len(names)) if equals else everybody:
            wrong[at].add(name)
    on_password = parse_share(stays, len(names)) if stays is not None else frozenset()
    return [
        FleetMember(
            identity=name,
            url=urls[at // len(versions) % len(urls)],
            version=versions[at % len(versions)],
            enrol=enrol and at not in on_password,
            conduct=parse_conduct(wrong[at]),
        )
        for at, name in enumerate(names)
    ]
