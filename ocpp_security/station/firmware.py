"""The simulated station's firmware update: the statuses of L01 in order, resumed after a power cut at any of them."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from chargepki.ocpp_security.events import SecurityEvent
from chargepki.ocpp_security.firmware import VerifiedFirmware, verify_firmware
from chargepki.ocpp_security.firmware_certificate import (
    FirmwareTrust,
    parse_signing_certificate,
    verify_signing_certificate,
)
from chargepki.ocpp_security.firmware_flow import FirmwareStatus, parse_update
from chargepki.ocpp_security.firmware_verdict import FirmwareRefusal
from chargepki.ocpp_security.firmware_version import check_no_rollback, read_label
from chargepki.ocpp_security.station.firmware_download import download
from chargepki.ocpp_security.station.firmware_store import FirmwareJob, FirmwareStore, JobStage
from chargepki.pki.errors import ChargePkiError

__all__ = ["FirmwareFault", "FirmwareHooks", "StationFirmware"]

_log = logging.getLogger("chargepki.station")
_RETRY_SECONDS: Final = 5
_DRAIN_SECONDS: Final = 10.0
_Status = FirmwareStatus


class FirmwareFault(StrEnum):
    """What a station under test can be told to do wrong."""

    REFUSE = "refuse"
    """Answer Rejected."""
    DOWNLOAD = "download"
    """Every attempt to download fails."""
    CORRUPT = "corrupt"
    """One bit of what was downloaded changes."""
    VERIFICATION = "verification"
    """The installed image does not verify."""
    INSTALLATION = "installation"
    """Writing the image fails."""
    SILENT = "silent"
    """Nothing is reported after the download."""


@dataclass(frozen=True, slots=True)
class FirmwareHooks:
    """What the update needs of the station around it."""

    clock: Callable[[], datetime]
    trust: Callable[[], FirmwareTrust]
    tls: Callable[[], ssl.SSLContext | None]
    raise_event: Callable[[SecurityEvent, str], None]
    tell: Callable[[str], None]
    installed: Callable[[str], None]
    """The CSMS has heard that this version is installed."""
    reported: Callable[[], None]
    """A status waits to be sent."""
    reboot: Callable[[], None]
    stage: Callable[[JobStage], None] = lambda stage: None
    """Called when a stage is on disk; a power cut is an exception from here."""


class StationFirmware:
    """One station's update, in any version: requested, carried out by `run`, and resumed by it after a restart."""

    def __init__(self, store: FirmwareStore, hooks: FirmwareHooks, faults: frozenset[FirmwareFault]) -> None:
        self.store, self._hooks, self._faults = store, hooks, faults
        self._news = asyncio.Event()
        self._sent = asyncio.Event()
        self._work: asyncio.Task[None] | None = None

    # From the CSMS

    def requested(self, payload: dict[str, Any]) -> str:
        """Judge an update request, and return the status of the answer; a new update is on disk then.

        Clause: L01.FR.21, FR.22, FR.24, FR.27; 1.6 L01.FR.23 to FR.27.
        """
        request = parse_update(payload, self._hooks.clock())
        if FirmwareFault.REFUSE in self._faults:
            return "Rejected"
        try:
            certificates = parse_signing_certificate(request.certificate_pem)
            verify_signing_certificate(certificates, self._hooks.trust(), self._hooks.clock())
        except FirmwareRefusal as refusal:
            assert refusal.event is not None
            self._hooks.raise_event(refusal.event, refusal.what)
            self._hooks.tell(f"refused the update: {refusal.what}")
            return refusal.status
        canceled = self._cancel()
        if canceled is None:
            return "Rejected"
        self.store.begin(request)
        scheduled = request.retrieve_at > self._hooks.clock()
        self._move(
            FirmwareJob(request, JobStage.SCHEDULED), JobStage.SCHEDULED,
            *((_Status.DOWNLOAD_SCHEDULED,) if scheduled else ()),
        )  # fmt: skip
        self._news.set()
        return "AcceptedCanceled" if canceled else "Accepted"

    def _cancel(self) -> bool | None:
        """Cancel what is under way and return whether there was something; ``None``: it cannot be canceled any more."""
        job = self.store.state.job
        if job is None or job.stage is JobStage.DONE:
            return False
        if job.stage in (JobStage.INSTALLING, JobStage.REBOOTING):
            return None
        if self._work is not None:
            self._work.cancel()
        early = job.stage in (JobStage.SCHEDULED, JobStage.DOWNLOADING)
        self._move(job, JobStage.DONE, _Status.DOWNLOAD_FAILED if early else _Status.INSTALLATION_FAILED)
        return True

    def triggered(self) -> tuple[FirmwareStatus, int | None]:
        """Return the status to report on request: Idle after Installed, else the last one (L01.FR.25, FR.26)."""
        state = self.store.state
        if state.job is None or state.last in (_Status.INSTALLED, _Status.IDLE):
            return _Status.IDLE, None
        return state.last, state.job.request.request_id

    def status_sent(self, status: FirmwareStatus, number: int) -> None:
        """Take a status off the queue: the CSMS has it."""
        queue = self.store.state.queue
        if queue and queue[0] == (status, number):
            self.store.save(queue=queue[1:])
            if status is _Status.INSTALLED:
                self._hooks.installed(self.store.state.version)
        if not self.store.state.queue:
            self._sent.set()

    # Life

    async def run(self) -> None:
        """Carry out updates for ever, beginning with what a power cut left."""
        while True:
            job = self.store.state.job
            if job is None or job.stage is JobStage.DONE:
                await self._news.wait()
                self._news.clear()
                continue
            self._work = asyncio.create_task(self._steps())
            try:
                await asyncio.shield(self._work)
            except asyncio.CancelledError:
                own = asyncio.current_task()
                if self._work.cancelled() and not (own is not None and own.cancelling()):
                    continue  # a new request took its place
                self._work.cancel()
                raise
            finally:
                self._work = None

    async def _steps(self) -> None:
        while (job := self.store.state.job) is not None and job.stage is not JobStage.DONE:
            match job.stage:
                case JobStage.SCHEDULED:
                    await self._until(job.request.retrieve_at)
                    self._move(job, JobStage.DOWNLOADING, _Status.DOWNLOADING)
                case JobStage.DOWNLOADING:
                    await self._download(job)
                case JobStage.DOWNLOADED:
                    await self._verify(job)
                case JobStage.VERIFIED:
                    later = job.request.install_at is not None and job.request.install_at > self._hooks.clock()
                    self._move(job, JobStage.INSTALL_SCHEDULED, *((_Status.INSTALL_SCHEDULED,) if later else ()))
                case JobStage.INSTALL_SCHEDULED:
                    if job.request.install_at is not None:
                        await self._until(job.request.install_at)
                    self._move(job, JobStage.INSTALLING, _Status.INSTALLING)
                case JobStage.INSTALLING:
                    await self._install(job)
                case JobStage.REBOOTING:
                    await self._reboot(job)

    async def _until(self, moment: datetime) -> None:
        # In pieces: the clock of a station may be set while it waits.
        while (left := (moment - self._hooks.clock()).total_seconds()) > 0:  # noqa: ASYNC110 - it waits for a time
            await asyncio.sleep(min(left, 60))

    async def _download(self, job: FirmwareJob) -> None:
        def keep(etag: str | None) -> None:
            current = self.store.state.job
            assert current is not None
            self.store.save(job=replace(current, etag=etag))

        part = self.store.part(job.request.request_id)
        try:
            if FirmwareFault.DOWNLOAD in self._faults:
                raise ChargePkiError("told to fail")
            await download(job.request.location, part, job.etag, tls=self._hooks.tls(), keep_etag=keep)
        except ChargePkiError as exc:
            job = self.store.state.job or job
            failures = job.failures + 1
            self._hooks.tell(f"download attempt {failures} failed: {exc}")
            if failures > (job.request.retries or 0):
                self._move(replace(job, failures=failures), JobStage.DONE, _Status.DOWNLOAD_FAILED)
                return
            self.store.save(job=replace(job, failures=failures))
            wait = job.request.retry_interval
            await asyncio.sleep(_RETRY_SECONDS if wait is None else wait)
            return
        if FirmwareFault.CORRUPT in self._faults:
            _flip(part)
        self._move(self.store.state.job or job, JobStage.DOWNLOADED, _Status.DOWNLOADED)

    async def _verified(self, job: FirmwareJob) -> VerifiedFirmware:
        """Verify the image on disk; evidence is never stored, so a restart verifies again."""
        return await asyncio.to_thread(
            verify_firmware,
            self.store.part(job.request.request_id),
            signature=job.request.signature,
            certificate_pem=job.request.certificate_pem,
            trust=self._hooks.trust(),
            at=self._hooks.clock(),
        )

    async def _verify(self, job: FirmwareJob) -> None:
        if FirmwareFault.SILENT in self._faults:
            await asyncio.Event().wait()
        try:
            await self._verified(job)
        except FirmwareRefusal as refusal:
            assert refusal.event is not None
            self._hooks.raise_event(refusal.event, refusal.what)
            self._move(job, JobStage.DONE, _Status.INVALID_SIGNATURE)
        except ChargePkiError as exc:  # the file is gone
            self._hooks.tell(str(exc))
            self._move(job, JobStage.DONE, _Status.INSTALLATION_FAILED)
        else:
            self._move(job, JobStage.VERIFIED, _Status.SIGNATURE_VERIFIED)

    async def _install(self, job: FirmwareJob) -> None:
        part = self.store.part(job.request.request_id)
        try:
            verified = await self._verified(job)
            label = read_label(part)
            version = label.version if label is not None else f"0.{verified.image.hex[:12]}"
            if label is not None:
                check_no_rollback(label.version, self.store.state.version)
            if FirmwareFault.VERIFICATION in self._faults:
                self._move(job, JobStage.DONE, _Status.INSTALL_VERIFICATION_FAILED)
                return
            if FirmwareFault.INSTALLATION in self._faults:
                raise ChargePkiError("told to fail")
            await asyncio.to_thread(self.store.install, verified, part)
        except FirmwareRefusal as refusal:
            self._hooks.tell(f"not installed: {refusal.what}")
            if refusal.event is not None:
                self._hooks.raise_event(refusal.event, refusal.what)
            self._move(job, JobStage.DONE, _Status.INSTALL_VERIFICATION_FAILED)
        except ChargePkiError as exc:
            self._hooks.tell(f"not installed: {exc}")
            self._move(job, JobStage.DONE, _Status.INSTALLATION_FAILED)
        else:
            self._move(job, JobStage.REBOOTING, _Status.INSTALL_REBOOTING, version=version)

    async def _reboot(self, job: FirmwareJob) -> None:
        """Tell of the reboot before it (L01.FR.15); the new firmware tells that it is installed (FR.32 (a))."""
        if self.store.state.queue:
            self._sent.clear()
            self._hooks.reported()
            with suppress(TimeoutError):
                # Not wait_for: that of Python 3.11 forgets a cancellation that meets the event.
                async with asyncio.timeout(_DRAIN_SECONDS):
                    await self._sent.wait()
        self._hooks.raise_event(SecurityEvent.FIRMWARE_UPDATED, f"version {self.store.state.version}")
        self._move(job, JobStage.DONE, _Status.INSTALLED, report=False)
        self._hooks.reboot()
        with suppress(OSError):
            self.store.part(job.request.request_id).unlink()

    def _move(
        self,
        job: FirmwareJob,
        stage: JobStage,
        *statuses: FirmwareStatus,
        version: str | None = None,
        report: bool = True,
    ) -> None:
        """Put the next stage and the statuses that tell of it on disk in one write."""
        number = job.request.request_id
        changes: dict[str, Any] = {"job": replace(job, stage=stage)}
        if statuses:
            changes["last"] = statuses[-1]
            changes["queue"] = (*self.store.state.queue, *((status, number) for status in statuses))
        if version is not None:
            changes["version"] = version
        self.store.save(**changes)
        for status in statuses:
            self._hooks.tell(f"firmware status {status.value} (request {number})")
        self._hooks.stage(stage)
        if statuses and report:
            self._hooks.reported()


def _flip(path: Path) -> None:
    with path.open("r+b") as stream:
        octet = stream.read(1)
        stream.seek(0)
        stream.write(bytes([octet[0] ^ 1]) if octet else b"\1")
