"""What the simulated station knows of its firmware, durable at every step of an update.

firmware.json           version, the update under way, statuses that the CSMS has not got yet
firmware/N.part         what was downloaded of update N
firmware/active.img     the installed image
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import orjson

from chargepki.ocpp_security.firmware import VerifiedFirmware
from chargepki.ocpp_security.firmware_flow import FirmwareStatus, UpdateRequest
from chargepki.ocpp_security.firmware_image import ImageDigest
from chargepki.pki import files
from chargepki.pki.errors import InputError, StateError

__all__ = ["FirmwareJob", "FirmwareState", "FirmwareStore", "JobStage"]

_SCHEMA_VERSION: Final = 1
_MAX_BYTES: Final = 1 << 20
_MAX_QUEUE: Final = 200


class JobStage(StrEnum):
    """Where an update stands on disk: what is to be done next."""

    SCHEDULED = "scheduled"
    DOWNLOADING = "downloading"
    DOWNLOADED = "downloaded"
    VERIFIED = "verified"
    INSTALL_SCHEDULED = "install-scheduled"
    INSTALLING = "installing"
    REBOOTING = "rebooting"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class FirmwareJob:
    """One update."""

    request: UpdateRequest
    stage: JobStage
    failures: int = 0
    """Download attempts that failed."""
    etag: str | None = None
    """Of what the part file holds."""


@dataclass(frozen=True, slots=True)
class FirmwareState:
    """What firmware.json holds."""

    version: str
    job: FirmwareJob | None = None
    last: FirmwareStatus = FirmwareStatus.IDLE
    queue: tuple[tuple[FirmwareStatus, int], ...] = ()
    """Statuses with their request ids, oldest first."""


class FirmwareStore:
    """The firmware part of a station's folder. Every change is on disk before the method returns."""

    def __init__(self, folder: Path, version: str) -> None:
        """Open or create; *version* is what a new station runs.

        Raises:
            InputError: firmware.json cannot be read.
        """
        self._index = folder / "firmware.json"
        self._folder = files.make_private_folder(folder / "firmware")
        self.state = self._load() if self._index.exists() else FirmwareState(version)

    def save(self, **changes: Any) -> FirmwareState:
        """Change the state in one durable write."""
        state = replace(self.state, **changes)
        state = replace(state, queue=state.queue[-_MAX_QUEUE:])
        files.write_durable(self._index, orjson.dumps(_to_json(state), option=orjson.OPT_INDENT_2), mode=0o600)
        self.state = state
        return state

    def part(self, request_id: int) -> Path:
        """Return the file into which an update is downloaded."""
        return self._folder / f"{request_id}.part"

    def begin(self, request: UpdateRequest) -> None:
        """Forget what was downloaded for other updates, and for an earlier one of the same id."""
        for path in self._folder.glob("*.part"):
            with contextlib.suppress(OSError):
                path.unlink()

    def install(self, verified: VerifiedFirmware, image: Path) -> None:
        """Make a verified image the active one: copied, compared with the evidence, and swapped in at once.

        Only `VerifiedFirmware` gets in here: what was not verified cannot be installed by mistake.

        Raises:
            StateError: *image* is not what was verified; the active image is unchanged.
        """

        state, size = hashlib.new(verified.image.hash.value), 0

        def chunks() -> Iterator[bytes]:
            nonlocal size
            with image.open("rb") as stream:
                while chunk := stream.read(1 << 20):
                    state.update(chunk)
                    size += len(chunk)
                    yield chunk
            # Inside, so that a file with another content never becomes the active one.
            if not verified.matches(ImageDigest(verified.image.hash, state.digest(), size)):
                raise StateError("the image changed after it was verified", fix="download it again")

        files.write_stream(self._folder / "active.img", chunks(), mode=0o600)

    def _load(self) -> FirmwareState:
        raw = files.read_limited(self._index, _MAX_BYTES, "firmware.json")
        try:
            document = orjson.loads(raw)
            if document["schema_version"] != _SCHEMA_VERSION:
                raise InputError(f"{self._index} is of another release")
            return _from_json(document)
        except (ValueError, KeyError, TypeError) as exc:
            raise InputError(f"{self._index} cannot be read", why=type(exc).__name__, fix="use a new store") from exc


def _to_json(state: FirmwareState) -> dict[str, Any]:
    job: dict[str, Any] | None = None
    if state.job is not None:
        request = dataclasses.asdict(state.job.request)
        for name in ("retrieve_at", "install_at"):
            request[name] = request[name] and request[name].isoformat()
        job = {**request, "stage": state.job.stage.value, "failures": state.job.failures, "etag": state.job.etag}
    return {
        "schema": "chargepki.station-firmware",
        "schema_version": _SCHEMA_VERSION,
        "version": state.version,
        "last": state.last.value,
        "queue": [[status.value, number] for status, number in state.queue],
        "job": job,
    }


def _from_json(document: dict[str, Any]) -> FirmwareState:
    job = None
    if document["job"] is not None:
        fields = dict(document["job"])
        stage, failures, etag = JobStage(fields.pop("stage")), int(fields.pop("failures")), fields.pop("etag")
        for name in ("retrieve_at", "install_at"):
            fields[name] = fields[name] and datetime.fromisoformat(fields[name])
        job = FirmwareJob(UpdateRequest(**fields), stage, failures, etag)
    return FirmwareState(
        version=str(document["version"]),
        job=job,
        last=FirmwareStatus(document["last"]),
        queue=tuple((FirmwareStatus(status), int(number)) for status, number in document["queue"]),
    )
