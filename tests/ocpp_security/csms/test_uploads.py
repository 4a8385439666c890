"""The endpoint for uploads takes what was asked for, once, and nothing else; a hostile client costs little."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest

from chargepki.ocpp_security.csms.uploads import UploadConfig, UploadServer
from chargepki.ocpp_security.log_requests import token_digest, upload_location, upload_token
from chargepki.ocpp_security.security_profile import SecurityProfile
from chargepki.ocpp_security.tls import server_context
from chargepki.pki.errors import UnavailableError
from chargepki.pki.inventory.event_records import LogRequestState, RequestedLogRecord
from testkit.csms_rig import ACTOR, Rig, run_on, wait_for

MAX_BYTES = 100_000


def ask(rig: Rig, station: str, *, seconds: float = 300) -> RequestedLogRecord:
    """Put a request on record as the operation does, without anybody who waits for it."""
    if rig.inventory.find_station(station) is None:
        rig.add_station(station)
    now = datetime.now(UTC)

    def work(tx: Any) -> RequestedLogRecord:
        number = tx.next_log_request(station)
        record = RequestedLogRecord(
            id=f"op-{station}-{number}",
            station=station,
            request_id=number,
            log_type="SecurityLog",
            token_sha256="",
            max_bytes=MAX_BYTES,
            state=LogRequestState.REQUESTED,
            created_at=now,
            expires_at=now + timedelta(seconds=seconds),
        )
        record = replace(record, token_sha256=token_digest(upload_token(rig.sealing_key, record)))
        tx.add_requested_log(record)
        tx.audit(ACTOR, "operation.create", record.id, now=now)
        return record

    return rig.inventory.write(work)


def state(rig: Rig, log: RequestedLogRecord) -> LogRequestState:
    return rig.inventory.get_requested_log(log.id).state


def received(rig: Rig, log: RequestedLogRecord) -> bytes:
    file = rig.inventory.get_requested_log(log.id).file
    assert file is not None
    return (rig.folder / "uploads" / file).read_bytes()


@contextlib.asynccontextmanager
async def endpoint(rig: Rig, *, tls: ssl.SSLContext | None = None, **options: Any) -> AsyncIterator[str]:
    config = UploadConfig(folder=rig.folder / "uploads", tls=tls, **options)
    async with UploadServer(config, rig.inventory) as server:
        yield f"{'http' if tls is None else 'https'}://localhost:{server.port}"


def address(rig: Rig, base: str, log: RequestedLogRecord) -> str:
    return upload_location(base, log, upload_token(rig.sealing_key, log))


async def send(url: str, data: Any, method: str = "PUT", **options: Any) -> int:
    async with aiohttp.ClientSession() as session, session.request(method, url, data=data, **options) as answer:
        return answer.status


@pytest.mark.parametrize("how", ["PUT", "POST", "form", "chunked", "named", "continue"])
def test_n01_fr_18_put_and_post_are_taken_in_every_common_shape(rig: Rig, how: str) -> None:
    log = ask(rig, f"SHAPE-{how}")
    data = bytes(range(256)) * 300

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(data), 10_000):
            yield data[start : start + 10_000]

    async def story() -> int:
        async with endpoint(rig) as base:
            url = address(rig, base, log)
            if how == "form":
                form = aiohttp.FormData()
                form.add_field("file", data, filename="security.log")
                return await send(url, form, "POST")
            if how == "chunked":
                return await send(url, pieces())
            if how == "named":
                return await send(f"{url}/security.log", data)
            if how == "continue":
                return await send(url, data, expect100=True)
            headers = {"Content-Disposition": 'attachment; filename="x.log"', "Content-Type": "text/plain"}
            return await send(url, data, how, headers=headers)

    assert run_on("asyncio", story()) == 201
    assert received(rig, log) == data
    assert rig.inventory.get_requested_log(log.id).size == len(data)


def test_what_nobody_asked_for_is_refused_and_noted(rig: Rig) -> None:
    mine, other = ask(rig, "MINE"), ask(rig, "OTHER")

    async def story() -> dict[str, int]:
        async with endpoint(rig) as base:
            good, foreign = address(rig, base, mine), address(rig, base, other)
            token = good.rsplit("/", 1)[1]
            return {
                "guessed token": await send(good[:-4] + "AAAA", b"x"),
                "another station's path": await send(foreign.rsplit("/", 1)[0] + "/" + token, b"x"),
                "another request": await send(good.replace("/MINE/1/", "/MINE/2/"), b"x"),
                "no token": await send(f"{base}/logs/MINE/1/", b"x"),
                "elsewhere": await send(f"{base}/etc/passwd", b"x"),
                "dots": await send(f"{base}/logs/../../x", b"x"),
                "read": await send(good, None, "GET"),
                "delete": await send(good, None, "DELETE"),
            }

    answers = run_on("asyncio", story())
    assert set(answers.values()) <= {404, 405}, answers
    assert state(rig, mine) is state(rig, other) is LogRequestState.REQUESTED
    assert any(e.event.type == "LogUploadRefused" for e in rig.inventory.list_event_series())
    assert not list((rig.folder / "uploads").glob("op-MINE*"))


def test_a_log_that_is_too_large_is_refused_and_nothing_of_it_stays(rig: Rig) -> None:
    announced, endless = ask(rig, "LARGE"), ask(rig, "ENDLESS")

    async def flood() -> AsyncIterator[bytes]:
        for _ in range(1000):
            yield b"x" * 50_000

    async def story() -> list[int]:
        async with endpoint(rig) as base:
            answers = []
            for log, data in ((announced, b"x" * 5_000_000), (endless, flood())):
                try:
                    answers.append(await send(address(rig, base, log), data))
                except aiohttp.ClientError:
                    answers.append(413)  # it hung up before we had sent it all
            return answers

    assert run_on("asyncio", story()) == [413, 413]
    assert state(rig, announced) is state(rig, endless) is LogRequestState.REQUESTED
    assert not [path for path in (rig.folder / "uploads").iterdir() if path.stat().st_size > MAX_BYTES]
    assert not list((rig.folder / "uploads").glob(".*tmp"))


def test_too_late_and_twice_at_once_are_refused(rig: Rig) -> None:
    late, busy = ask(rig, "LATE", seconds=-1), ask(rig, "BUSY")
    gate = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"first "
        await gate.wait()
        yield b"log"

    async def story() -> list[int]:
        async with endpoint(rig) as base:
            first = asyncio.create_task(send(address(rig, base, busy), slow()))
            await wait_for(lambda: list((rig.folder / "uploads").glob(f".{busy.id}-*.tmp")))
            second = await send(address(rig, base, busy), b"second log")
            gate.set()
            return [await send(address(rig, base, late), b"x"), second, await first]

    assert run_on("asyncio", story()) == [410, 409, 201]
    assert received(rig, busy) == b"first log"


def test_a_body_that_stops_or_stalls_is_given_up_and_can_be_sent_again(rig: Rig) -> None:
    log = ask(rig, "STALLS")

    async def raw(base: str, path: str, *, close: bool) -> bytes:
        port = int(base.rsplit(":", 1)[1])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"PUT {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nonly this".encode())
        await writer.drain()
        if close:
            writer.close()
            return b""
        return await asyncio.wait_for(reader.read(), 60)

    async def story() -> tuple[bytes, int]:
        async with endpoint(rig, idle=timedelta(seconds=0.5)) as base:
            url = address(rig, base, log)
            path = url.removeprefix(base)
            await raw(base, path, close=True)
            stalled = await raw(base, path, close=False)
            while b" 409 " in stalled.splitlines()[0]:  # it has not noticed yet that the first is gone
                stalled = await raw(base, path, close=False)
            return stalled, await send(url, b"whole")

    stalled, again = run_on("asyncio", story())
    assert b" 408 " in stalled.splitlines()[0]
    assert again == 201
    assert received(rig, log) == b"whole"


def test_connections_that_ask_for_nothing_are_dropped_and_bounded(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chargepki.ocpp_security.csms.uploads._HEADERS_SECONDS", 0.5)
    log = ask(rig, "SLOW")

    async def story() -> int:
        async with endpoint(rig, max_connections=5) as base:
            port = int(base.rsplit(":", 1)[1])
            open_ones = [await asyncio.open_connection("127.0.0.1", port) for _ in range(8)]
            open_ones[0][1].write(b"PUT /logs/A/1/")
            ended = await asyncio.gather(*(asyncio.wait_for(reader.read(), 60) for reader, _ in open_ones))
            assert all(b" 201 " not in text for text in ended)
            for _, writer in open_ones:
                writer.close()
            return await send(address(rig, base, log), b"fine")

    assert run_on("asyncio", story()) == 201


def test_another_stations_certificate_is_refused_and_none_or_its_own_are_taken(rig: Rig) -> None:
    log = ask(rig, "CERTIFIED")
    again = ask(rig, "CERTIFIED")
    own, _ = rig.credential("CERTIFIED")
    rig.add_station("INTRUDER")
    other, _ = rig.credential("INTRUDER")
    tls = server_context(
        [SecurityProfile(2), SecurityProfile(3)], [rig.server_identity], client_trust=[rig.root_der, rig.sub_der]
    )

    async def story() -> list[int]:
        async with endpoint(rig, tls=tls) as base:
            url = address(rig, base, log)
            return [
                await send(url, b"x", ssl=rig.client_tls(other)),
                await send(url, b"x", ssl=rig.client_tls(own)),
                await send(address(rig, base, again), b"x", ssl=rig.client_tls()),
            ]

    assert run_on("asyncio", story()) == [403, 201, 201]


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_what_tls_1_2_remembers_of_uploads_is_bounded_and_a_renewed_certificate_is_still_shown(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, loop: str
) -> None:
    monkeypatch.setattr("chargepki.ocpp_security.tls._MAX_SESSIONS", 3)
    tls = server_context([SecurityProfile(2)], [rig.server_identity])
    asked: list[ssl.SSLContext] = []
    tls.sni_callback = lambda _connection, _name, context: asked.append(context)
    contexts: list[ssl.SSLContext] = []
    client = rig.client_tls()
    client.maximum_version = ssl.TLSVersion.TLSv1_2

    async def story() -> None:
        async with UploadServer(UploadConfig(folder=rig.folder / "uploads", tls=tls), rig.inventory) as server:
            for number in range(12):
                await send(f"https://localhost:{server.port}/logs/A/1/none", b"x", ssl=client)
                current = server.tls
                assert current is not None and len(asked) == number + 1
                if current not in contexts:
                    contexts.append(current)
                if server._renewing is not None:
                    await asyncio.wait_for(server._renewing, 60)

    run_on(loop, story())
    assert len(contexts) >= 3
    # One connection comes over the old context before the new one listens.
    assert max(each.session_stats()["number"] for each in contexts) <= 4


def test_a_tls_context_for_uploads_that_cannot_be_made_again_costs_no_upload(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("chargepki.ocpp_security.tls._MAX_SESSIONS", 0)
    log = ask(rig, "STAYS")
    tls = server_context([SecurityProfile(2)], [rig.server_identity])

    async def story() -> int:
        async with UploadServer(UploadConfig(folder=rig.folder / "uploads", tls=tls), rig.inventory) as server:

            async def fails(_context: ssl.SSLContext | None) -> None:
                raise OSError(24, "Too many open files")

            monkeypatch.setattr(server, "_listen", fails)
            return await send(address(rig, f"https://localhost:{server.port}", log), b"x", ssl=rig.client_tls())

    assert run_on("uvloop", story()) == 201
    assert "cannot be made again" in caplog.text


def test_who_is_cancelled_when_the_next_octets_come_is_cancelled(rig: Rig) -> None:
    """`asyncio.wait_for` of Python 3.11 returned the octets, and forgot that the upload was to end."""

    async def story() -> bool:
        server = UploadServer(UploadConfig(folder=rig.folder / "uploads"), rig.inventory)
        octets: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        reading = asyncio.create_task(server._soon(octets))
        await asyncio.sleep(0)
        octets.set_result(b"more")
        reading.cancel()
        await asyncio.wait([reading])
        return reading.cancelled()

    assert run_on("asyncio", story())


def test_a_log_that_is_recorded_is_on_disk_and_one_that_is_not_leaves_no_name(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = ask(rig, "CRASHES")

    async def story() -> int:
        async with endpoint(rig) as base:
            return await send(address(rig, base, log), b"x" * 1000)

    def full(*_: object) -> None:
        raise UnavailableError("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr("chargepki.ocpp_security.csms.uploads.record_received", full)
        assert run_on("asyncio", story()) == 503
    assert state(rig, log) is LogRequestState.REQUESTED
    assert not list((rig.folder / "uploads").glob("op-CRASHES*"))
    assert run_on("asyncio", story()) == 201
    assert received(rig, log) == b"x" * 1000
