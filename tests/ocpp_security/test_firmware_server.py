"""Images are served to the station that a URL was made for, as long as it lasts, from where a download broke off."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession

from chargepki.ocpp_security.errors import OcppRefusal
from chargepki.ocpp_security.firmware import verify_firmware
from chargepki.ocpp_security.firmware_catalogue import FirmwareCatalogue, ReleaseOffer, image_path
from chargepki.ocpp_security.firmware_urls import ImageTicket, make_location, open_ticket
from chargepki.ocpp_security.station.firmware_download import download
from chargepki.pki.errors import ChargePkiError, UnavailableError
from chargepki.pki.inventory import AuditKey, Inventory, SealingKey, Transaction
from chargepki.pki.inventory.firmware_records import FirmwareReleaseRecord
from chargepki.pki.inventory.records import Actor, ActorKind
from chargepki.pki.keys import KeyAlgorithm
from chargepki.pki.signer import Signer
from testkit.chains import AT
from testkit.firmware import IMAGE, foreign_signature, maker, pem, serving_images
from testkit.inventories import station_record
from testkit.requests import key_of

ALICE = Actor("alice", ActorKind.OS_USER, authenticated=False)
BOB = Signer.of("file:bob.key", key_of(KeyAlgorithm.SECP256R1, 31))
STATION = station_record().id
SEALING = SealingKey(secrets.token_bytes(32))


@dataclass(frozen=True, slots=True)
class Shelf:
    inventory: Inventory
    catalogue: FirmwareCatalogue
    home: Path
    release: FirmwareReleaseRecord

    def location(
        self, base: str, *, station: str = STATION, begins: int = -60, seconds: int = 60, sha256: str = ""
    ) -> str:
        first, last = (datetime.now(UTC) + timedelta(seconds=each) for each in (begins, seconds))
        ticket = ImageTicket(station, sha256 or self.release.sha256, first, last)
        return make_location(base, ticket, "m1.img", SEALING)


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    image = tmp_path / "image"
    image.write_bytes(IMAGE)
    inventory = Inventory.open(
        f"sqlite:///{tmp_path / 'inventory.db'}", log_key=AuditKey.load_or_create(tmp_path / "audit.key")
    )

    def add(tx: Transaction) -> None:
        tx.add_station(station_record())
        tx.audit(ALICE, "station.add", STATION, now=AT)

    inventory.write(add)
    catalogue = FirmwareCatalogue(inventory, tmp_path, actor=ALICE)
    signature = foreign_signature(maker().ecdsa, IMAGE)
    verified = verify_firmware(
        image, signature=signature, certificate_pem=pem(maker().ecdsa), trust=maker().trust, at=AT
    )
    catalogue.add(
        ReleaseOffer("m1", "", "", "1.0"), image, verified, signature=signature,
        certificate_pem=pem(maker().ecdsa), root_der=maker().root.der, quirks=(), now=AT,
    )  # fmt: skip
    catalogue.register_approver("bob", BOB.spki_der, now=AT)
    release = catalogue.approve("m1", "bob", catalogue.sign_approval("m1", BOB), now=AT)
    yield Shelf(inventory, catalogue, tmp_path, release)
    inventory.close()


def serve(shelf: Shelf, story: Callable[[str], Awaitable[None]], **options: Any) -> None:
    """Run *story* with the base of a server's URLs."""

    async def all_of_it() -> None:
        async with serving_images(shelf.inventory, shelf.home, SEALING, **options) as base:
            await story(base)

    asyncio.run(asyncio.wait_for(all_of_it(), 60))


async def get(url: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    async with ClientSession() as session, session.request(method, url, headers=names) as answer:
        return answer.status, {name.lower(): value for name, value in answer.headers.items()}, await answer.read()


def test_whole_and_parts_and_tags(shelf: Shelf) -> None:
    tag, size = f'"{shelf.release.sha256}"', len(IMAGE)

    async def story(base: str) -> None:
        url = shelf.location(base)
        status, headers, body = await get(url)
        assert (status, headers["etag"], headers["accept-ranges"], body) == (200, tag, "bytes", IMAGE)
        assert (await get(url, "HEAD"))[::2] == (200, b"")
        assert (await get(url, If_None_Match=tag))[0] == 304
        for asked, part in (
            ("bytes=0-", IMAGE), ("bytes=1000-", IMAGE[1000:]), ("bytes=5-9", IMAGE[5:10]), ("bytes=-7", IMAGE[-7:]),
            (f"bytes=10-{size * 2}", IMAGE[10:]),
        ):  # fmt: skip
            status, headers, body = await get(url, Range=asked, If_Range=tag)
            assert (status, body) == (206, part), asked
            assert headers["content-range"].endswith(f"/{size}")
        for asked in (f"bytes={size}-", "bytes=-0", "bytes=99999999999999-99999999999999"):
            status, headers, _ = await get(url, Range=asked)
            assert (status, headers["content-range"]) == (416, f"bytes */{size}"), asked
        # Another image than the one begun with, several ranges, nonsense: the whole.
        for odd in ("bytes=1-2,5-6", "bytes=0-1,5-6", "bytes=5-1", "bytes=-", "bytes=0-x", "lines=0-", "x"):
            assert (await get(url, Range=odd))[::2] == (200, IMAGE), odd
        assert (await get(url, Range="bytes=5-", If_Range='"other"'))[::2] == (200, IMAGE)

    serve(shelf, story)


def test_a_url_is_of_one_station_and_image_and_ends(shelf: Shelf) -> None:
    async def story(base: str) -> None:
        good = shelf.location(base)
        token = good.split("/")[-2]
        other = SealingKey(secrets.token_bytes(32))
        times = (datetime.now(UTC) + timedelta(hours=hours) for hours in (-1, 1))
        foreign = make_location(base, ImageTicket(STATION, shelf.release.sha256, *times), "m1.img", other)
        for url in (
            shelf.location(base, seconds=-1),
            shelf.location(base, begins=30),
            shelf.location(base, station="UNKNOWN"),
            shelf.location(base, sha256="00" * 32),
            foreign,
            good.replace(token, token[:-2] + ("AA" if token[-2:] != "AA" else "BB")),
            good.replace(token, "x" * 600),
            good.replace(token, "%2e%2e"),
        ):
            status, _, body = await get(url)
            assert status == 404, url
            assert body.startswith(b"there is nothing here"), url
        shelf.catalogue.withdraw("m1", reason="test", now=AT)
        assert (await get(good))[0] == 404

    serve(shelf, story)
    with pytest.raises(OcppRefusal):
        open_ticket("", SEALING, datetime.now(UTC))


def test_too_many_downloads_and_a_lost_image_are_told_to_come_back(shelf: Shelf) -> None:
    async def story(base: str) -> None:
        url = shelf.location(base)
        async with ClientSession() as session, session.get(url) as first:
            begun = await first.content.readexactly(1)
            status, headers, _ = await get(url)
            assert (status, headers["retry-after"]) == (503, "30")
            assert begun + await first.read() == IMAGE
        # The place is free again, also after a peer that went away in the middle.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(get(url), 0.2)
        while (await get(url, Range="bytes=0-9"))[0] == 503:
            await asyncio.sleep(0.05)
        image_path(shelf.home, shelf.release).unlink()
        assert (await get(url))[0] == 503

    # 300 kB at 400 kB a second: the limit holds, and keeps the one place taken meanwhile.
    started = datetime.now(UTC)
    serve(shelf, story, bytes_per_second=400_000, max_downloads=1)
    assert datetime.now(UTC) - started > timedelta(seconds=0.5)


def test_no_station_takes_every_place(shelf: Shelf) -> None:
    other = "CS-OTHER"

    def add(tx: Transaction) -> None:
        tx.add_station(station_record(other))
        tx.audit(ALICE, "station.add", other, now=AT)

    shelf.inventory.write(add)

    async def story(base: str) -> None:
        url = shelf.location(base)
        async with ClientSession() as session:
            async with contextlib.AsyncExitStack() as greedy:
                for _ in range(4):
                    answer = await greedy.enter_async_context(session.get(url))
                    assert answer.status == 200
                assert (await get(url))[0] == 503
                assert (await get(url, "HEAD"))[0] == 200
                async with session.get(shelf.location(base, station=other)) as answer:
                    assert answer.status == 200
            # The places come back as soon as the peer is seen to be gone.
            while (await get(url, Range="bytes=0-9"))[0] == 503:
                await asyncio.sleep(0.05)

    serve(shelf, story, bytes_per_second=20_000)


def test_what_is_not_the_image_any_more_is_not_sent(shelf: Shelf, tmp_path: Path) -> None:
    path = image_path(shelf.home, shelf.release)

    async def story(base: str) -> None:
        url = shelf.location(base)
        secret = tmp_path / "secret"
        secret.write_bytes(bytes(len(IMAGE)))
        for put in (lambda: path.write_bytes(IMAGE[:-1]), lambda: path.symlink_to(secret), lambda: os.mkfifo(path)):
            path.unlink()
            put()
            assert (await get(url))[0] == 503

    serve(shelf, story)


def test_a_release_that_was_changed_behind_its_approval_is_not_served(shelf: Shelf) -> None:
    with sqlite3.connect(shelf.home / "inventory.db") as database:
        database.execute("UPDATE firmware_release SET version = '9.9.9'")
    database.close()

    async def story(base: str) -> None:
        assert (await get(shelf.location(base)))[0] == 404

    serve(shelf, story)


def test_a_download_of_which_nothing_is_left_is_whole(shelf: Shelf, tmp_path: Path) -> None:
    part, tag = tmp_path / "part", f'"{shelf.release.sha256}"'
    kept: list[str | None] = []

    async def story(base: str) -> None:
        url = shelf.location(base)
        part.write_bytes(IMAGE)
        await download(url, part, tag, tls=None, keep_etag=kept.append)
        assert (part.read_bytes(), kept) == (IMAGE, [])
        # Longer than the image: the tag was another's, and the next attempt begins anew.
        part.write_bytes(IMAGE + b"x")
        with pytest.raises(UnavailableError):
            await download(url, part, tag, tls=None, keep_etag=kept.append)
        assert kept == [None]

    serve(shelf, story)


def test_a_broken_download_goes_on_where_it_stopped(shelf: Shelf, tmp_path: Path) -> None:
    part, tags = tmp_path / "part", list[str | None]()

    async def story(base: str) -> None:
        url = shelf.location(base)
        await download(url, part, None, tls=None, keep_etag=tags.append)
        assert part.read_bytes() == IMAGE
        # The first half is ours, and marked: only what was asked for is replaced.
        part.write_bytes(bytes(1000) + IMAGE[1000:150_000])
        await download(url, part, tags[0], tls=None, keep_etag=tags.append)
        assert part.read_bytes() == bytes(1000) + IMAGE[1000:]
        assert len(tags) == 1
        # Of another image, or without a tag, it begins anew.
        for tag in ('"other"', None):
            part.write_bytes(b"x" * 5000)
            await download(url, part, tag, tls=None, keep_etag=tags.append)
            assert part.read_bytes() == IMAGE
        for bad in (f"{base}/elsewhere", "file:///etc/passwd", "http://127.0.0.1:1/x"):
            with pytest.raises(ChargePkiError):
                await download(bad, part, None, tls=None, keep_etag=tags.append)

    serve(shelf, story)


def test_a_download_that_breaks_off_keeps_what_arrived(tmp_path: Path) -> None:
    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\nETag: "t"\r\n\r\n' + bytes(400))
        await writer.drain()
        writer.close()

    async def story() -> None:
        server = await asyncio.start_server(half, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            with pytest.raises(UnavailableError):
                await download(
                    f"http://127.0.0.1:{port}/x", tmp_path / "part", None, tls=None, keep_etag=lambda tag: None
                )
        assert (tmp_path / "part").read_bytes() == bytes(400)

    asyncio.run(asyncio.wait_for(story(), 60))
