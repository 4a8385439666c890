"""What a station answers to a second update request, whatever the first one is at (L01.FR.24, FR.27)."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from chargepki.ocpp_security.events import SecurityEvent
from chargepki.ocpp_security.firmware_flow import FirmwareStatus, parse_update
from chargepki.ocpp_security.station.firmware import FirmwareHooks, StationFirmware
from chargepki.ocpp_security.station.firmware_store import FirmwareJob, FirmwareStore, JobStage
from chargepki.ocpp_security.station.session import StationSession
from chargepki.ocpp_security.versions import OcppVersion
from testkit.chains import AT
from testkit.firmware import IMAGE, foreign_signature, maker, pem

S = FirmwareStatus
FIRST, SECOND = 7, 8
# Until the installation begins an update can be canceled, and what it had begun is told to have failed.
CANCELED = {
    JobStage.SCHEDULED: S.DOWNLOAD_FAILED,
    JobStage.DOWNLOADING: S.DOWNLOAD_FAILED,
    JobStage.DOWNLOADED: S.INSTALLATION_FAILED,
    JobStage.VERIFIED: S.INSTALLATION_FAILED,
    JobStage.INSTALL_SCHEDULED: S.INSTALLATION_FAILED,
}


def payload(number: int, at: datetime = AT) -> dict[str, Any]:
    return {
        "requestId": number,
        "firmware": {
            "location": "https://images.example/m1.img",
            "retrieveDateTime": at.isoformat(),
            "signingCertificate": pem(maker().ecdsa),
            "signature": foreign_signature(maker().ecdsa, IMAGE),
        },
    }


class Bench:
    """A station's update without a station around it."""

    def __init__(self, folder: Path) -> None:
        self.events: list[SecurityEvent] = []
        hooks = FirmwareHooks(
            clock=lambda: AT, trust=lambda: maker().trust, tls=lambda: None,
            raise_event=lambda event, text: self.events.append(event), tell=lambda text: None,
            installed=lambda version: None, reported=lambda: None, reboot=lambda: None,
        )  # fmt: skip
        self.store = FirmwareStore(folder, "1.0.0")
        self.station = StationFirmware(self.store, hooks, frozenset())

    def put(self, stage: JobStage) -> None:
        self.store.save(job=FirmwareJob(parse_update(payload(FIRST), AT), stage), queue=())


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.mark.parametrize("stage", list(JobStage))
def test_a_second_request_cancels_what_can_be_canceled(bench: Bench, stage: JobStage) -> None:
    bench.put(stage)
    before = bench.store.state
    answer = bench.station.requested(payload(SECOND))
    job = bench.store.state.job
    assert job is not None
    if stage in CANCELED:
        assert (answer, job.request.request_id) == ("AcceptedCanceled", SECOND)
        assert bench.store.state.queue == ((CANCELED[stage], FIRST),)
    elif stage is JobStage.DONE:
        assert (answer, job.request.request_id, bench.store.state.queue) == ("Accepted", SECOND, ())
    else:
        assert (answer, bench.store.state) == ("Rejected", before)
    assert bench.events == []


def test_a_request_with_a_bad_certificate_cancels_nothing(bench: Bench) -> None:
    bench.put(JobStage.DOWNLOADING)
    before = bench.store.state
    bad = payload(SECOND)
    bad["firmware"]["signingCertificate"] = pem(maker().root)
    assert bench.station.requested(bad) == "InvalidCertificate"
    assert bench.store.state == before
    assert bench.events == [SecurityEvent.INVALID_FIRMWARE_SIGNING_CERTIFICATE]


def test_a_request_for_later_is_told_to_be_scheduled(bench: Bench) -> None:
    assert bench.station.requested(payload(FIRST, AT + timedelta(hours=1))) == "Accepted"
    assert bench.store.state.queue == ((S.DOWNLOAD_SCHEDULED, FIRST),)
    # Asked for, the last status is told; Idle after the installation (L01.FR.25, FR.26).
    assert bench.station.triggered() == (S.DOWNLOAD_SCHEDULED, FIRST)
    job = bench.store.state.job
    assert job is not None
    bench.store.save(job=replace(job, stage=JobStage.DONE), last=S.INSTALLED)
    assert bench.station.triggered() == (S.IDLE, None)


def test_a_station_that_ends_when_its_status_is_sent_does_not_reboot(bench: Bench) -> None:
    """`asyncio.wait_for` of Python 3.11 took the news, and forgot that the station was to end."""
    bench.put(JobStage.REBOOTING)
    job = bench.store.state.job
    assert job is not None
    bench.store.save(job=job, queue=((S.INSTALL_REBOOTING, FIRST),))

    async def story() -> bool:
        rebooting = asyncio.create_task(bench.station._reboot(job))
        await asyncio.sleep(0)
        bench.station.status_sent(S.INSTALL_REBOOTING, FIRST)
        rebooting.cancel()
        await asyncio.wait([rebooting])
        return rebooting.cancelled()

    assert asyncio.run(story())
    assert bench.store.state.job == job and bench.events == []


@pytest.mark.parametrize("queue", [(), ((S.DOWNLOADED, FIRST), (S.INSTALL_REBOOTING, FIRST))])
def test_a_status_that_is_asked_for_never_overtakes_those_that_wait(queue: tuple[tuple[S, int], ...]) -> None:
    # Sent at once it would reach the CSMS before them, which then takes them for statuses out of order.
    sent: list[str] = []

    async def call(action: str, payload: dict[str, Any]) -> None:
        sent.append(payload["status"])

    async def story() -> bool:
        news = asyncio.Event()
        firmware = SimpleNamespace(
            store=SimpleNamespace(state=SimpleNamespace(queue=queue)), triggered=lambda: (S.INSTALL_REBOOTING, FIRST)
        )
        session = SimpleNamespace(
            station=SimpleNamespace(firmware=firmware, version=OcppVersion.V201),
            _firmware_news=news,
            call=call,
        )
        await StationSession.tell_firmware(cast(StationSession, session))
        return news.is_set()

    # Either it is sent, or whoever sends the queue is told to go on.
    assert asyncio.run(story()) is bool(queue)
    assert sent == ([] if queue else ["InstallRebooting"])


def without(*fields: str) -> dict[str, Any]:
    """Return an update request that lacks *fields* of its firmware."""
    made = payload(FIRST)
    made["firmware"] = {name: value for name, value in made["firmware"].items() if name not in fields}
    return made


def test_tc_l_18_cs_an_update_without_certificate_and_signature_is_refused(bench: Bench) -> None:
    """Either status passes the case; nothing of the request stays."""
    before = bench.store.state
    assert bench.station.requested(without("signingCertificate", "signature")) in ("Rejected", "InvalidCertificate")
    assert bench.store.state == before


def test_an_update_whose_signature_alone_is_missing_ends_in_invalid_signature(bench: Bench) -> None:
    """L01, step 5 of its flow: status and event after the download."""
    assert bench.station.requested(without("signature")) == "Accepted"
    job = bench.store.state.job
    assert job is not None
    bench.store.part(FIRST).write_bytes(IMAGE)
    asyncio.run(bench.station._verify(replace(job, stage=JobStage.DOWNLOADED)))
    assert bench.store.state.last is S.INVALID_SIGNATURE
    assert bench.events == [SecurityEvent.INVALID_FIRMWARE_SIGNATURE]
