"""Versions of firmware: their order, the refusal to go back, and the line by which a simulated image tells its own."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from chargepki.ocpp_security.firmware_verdict import FirmwareRefusal, FirmwareStage
from chargepki.pki.errors import InputError, UnavailableError, printable

__all__ = ["ImageLabel", "build_label", "check_no_rollback", "read_label", "version_key"]

_MAGIC: Final = b"chargepki-firmware "
_MAX_LABEL: Final = 512
_MAX_VERSION: Final = 50
"""Longest firmwareVersion of a BootNotification (all versions)."""
_TOKEN: Final = re.compile(r"[0-9]+|[A-Za-z]+")


def version_key(version: str) -> tuple[tuple[int, int, str], ...]:
    """Return what orders *version* among others: numbers by value, and a word behind a number comes before the release.

    >>> sorted(["1.10", "1.9", "v1.10.1", "1.10-rc2", "1.10-rc10"], key=version_key)
    ['1.9', '1.10-rc2', '1.10-rc10', '1.10', 'v1.10.1']

    Raises:
        InputError: empty, longer than 50 characters, or without any number.
    """
    tokens = _TOKEN.findall(version.lower().removeprefix("v").partition("+")[0])
    if not 0 < len(version) <= _MAX_VERSION or not any(token.isdigit() for token in tokens):
        raise InputError(
            f"{printable(version)[:60]!r} is no version",
            why="at most 50 characters with at least one number give an order, against which a rollback is judged",
            fix="write for example 1.4.2 or 1.4.2-rc1",
        )
    # The end ranks between a word (of a release candidate) and a number (of a later fix).
    keys = [(2, int(token), "") if token.isdigit() else (0, 0, token) for token in tokens]
    return (*keys, (1, 0, ""))


def check_no_rollback(version: str, installed: str) -> None:
    """Refuse a genuine image that is older than what is installed: its flaws are known to everybody by now.

    Installing the same version again is no rollback.

    Raises:
        FirmwareRefusal: status InstallVerificationFailed (L01.FR.29); the standard names no security event for it.
    """
    if _numbers_first(version) < _numbers_first(installed):
        raise FirmwareRefusal(
            f"version {printable(version)} is older than {printable(installed)}, which is installed",
            stage=FirmwareStage.INSTALLATION,
            rule="rolled-back",
            clause="OCPP L01.FR.29",
            why="an old image is genuine, and brings its flaws back",
            fix="release the old code under a new version",
        )


def _numbers_first(version: str) -> tuple[tuple[int, int, str], ...]:
    """Return the key without the words before the first number.

    "FW 2.0.1" is newer than "1.9.0": taken as a part of the order, the word would let every rollback pass.
    """
    key = version_key(version)
    return key[next(index for index, part in enumerate(key) if part[0] == 2) :]


@dataclass(frozen=True, slots=True)
class ImageLabel:
    """What a simulated image says of itself in its first line; real images are opaque."""

    vendor: str
    model: str
    version: str


def build_label(label: ImageLabel) -> bytes:
    r"""Return the first line of an image for our simulated station.

    >>> build_label(ImageLabel("Acme", "M1", "1.2.0"))
    b'chargepki-firmware {"vendor": "Acme", "model": "M1", "version": "1.2.0"}\n'
    """
    fields = {"vendor": label.vendor, "model": label.model, "version": label.version}
    return _MAGIC + json.dumps(fields).encode("ascii") + b"\n"


def read_label(image: Path) -> ImageLabel | None:
    """Return the label of *image*; ``None`` when it has none, or one that cannot be read.

    Raises:
        UnavailableError: the file cannot be read.
    """
    try:
        with image.open("rb") as stream:
            line = stream.readline(_MAX_LABEL)
    except OSError as exc:
        raise UnavailableError(f"cannot read the image {image}", why=exc.strerror or type(exc).__name__) from exc
    if not line.startswith(_MAGIC):
        return None
    try:
        fields = json.loads(line.removeprefix(_MAGIC))
        label = ImageLabel(*(str(fields[name])[:_MAX_VERSION] for name in ("vendor", "model", "version")))
        version_key(label.version)
    except (ValueError, KeyError, TypeError, RecursionError, InputError):
        return None
    return label
