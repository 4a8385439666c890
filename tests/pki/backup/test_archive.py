"""What a backup may hold: nothing that leads out of the folder, no table of others, no rows that are none."""

from __future__ import annotations

import io
import tarfile
import threading
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path

import orjson
import pytest

from chargepki.pki.backup import load_identities, parse_recipients, unpack
from chargepki.pki.backup.age import encrypt
from chargepki.pki.backup.archive import ArchiveWriter
from chargepki.pki.errors import InputError, SignerError, UnavailableError
from chargepki.pki.inventory import verify_log
from testkit.authorities import ACTOR, NOW, ocpp_authority
from testkit.backups import World, settings_of

HEADER = {
    "schema": "chargepki/backup",
    "schema_version": 1,
    "id": "b",
    "made_at": "2026-03-01T00:00:00.000000Z",
    "made_by": "x",
    "program": "chargepki 9",
    "inventory": {"schema": "0016", "dialect": "sqlite", "log_count": 0, "log_hash": ""},
}


def crafted(world: World, members: Sequence[tuple[str, bytes]]) -> io.BytesIO:
    """Return a backup that somebody made who knows a recipient, which is no secret."""
    writer, out = ArchiveWriter(0), io.BytesIO()

    def pieces() -> object:
        for name, data in members:
            yield from writer.member(name, len(data), [data])
        yield from writer.end()

    encrypt(iter(list(pieces())), out.write, world.recipients)  # type: ignore[call-overload]  # a generator, seen as object
    out.seek(0)
    return out


def header(**changes: object) -> tuple[str, bytes]:
    return "backup.json", orjson.dumps({**HEADER, **changes})


ROW = b'["id","x"]\n["a",1]\n'
CASES: dict[str, tuple[Sequence[tuple[str, bytes]], str]] = {
    "no header": ([("x", b"")], "does not begin"),
    "header is no json": ([("backup.json", b"{")], "cannot be read"),
    "another schema": ([header(schema="other")], "no backup of chargepki"),
    "newer format": ([header(schema_version=2)], "the format 2"),
    "newer tables": ([header(inventory={**HEADER["inventory"], "schema": "9999"})], "the schema '9999'"),  # type: ignore[dict-item]  # it is a dict
    "climbs": ([header(), ("workspace/../../evil", b"x")], "the name"),
    "absolute": ([header(), ("/evil", b"x")], "the name"),
    "another top": ([header(), ("evil", b"x")], "which no backup"),
    "a journal": ([header(), ("workspace/restore.json", b"x")], "which no backup"),
    "unknown table": ([header(), ("inventory/evil-000001.jsonl", ROW)], "no table of ours"),
    "unknown column": ([header(), ("inventory/ca-000001.jsonl", ROW)], "columns of ca"),
    "a real number": ([header(), ("inventory/ca-000001.jsonl", b'["id"]\n[1.5]\n')], "rows of ca cannot be read"),
    "a short row": ([header(), ("inventory/ca-000001.jsonl", b'["id","name"]\n["a"]\n')], "more or fewer values"),
    "too large": ([header(), ("inventory/ca-000001.jsonl", b'["id"]\n[99999999999999999999]\n')], "cannot be read"),
    "not null": ([header(), ("inventory/ca-000001.jsonl", b'["id"]\n["a"]\n')], "contradict"),
    "twice": ([header(), ("workspace/a", b"1"), ("workspace/a", b"2")], "exists already"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_crafted_backup_is_refused_and_writes_nowhere_else(name: str, world: World, tmp_path: Path) -> None:
    members, word = CASES[name]
    folder = tmp_path / "in" / "side"
    folder.mkdir(parents=True)
    with pytest.raises(Exception, match=word) as caught:
        unpack(crafted(world, members), world.identities, folder / "workspace", folder / "rows.db")
    assert isinstance(caught.value, InputError) or name == "twice"
    assert {path.name for path in tmp_path.iterdir()} == {"in", "identity"}
    assert {path.name for path in (tmp_path / "in").iterdir()} == {"side"}


def test_links_and_a_wrong_manifest_are_refused(world: World, tmp_path: Path) -> None:
    def tarred(change: Callable[[tarfile.TarInfo], None], manifest: bytes) -> io.BytesIO:
        plain, out = io.BytesIO(), io.BytesIO()
        with tarfile.open(fileobj=plain, mode="w:gz") as archive:
            for name, data in (header(), ("workspace/a", b""), ("manifest.json", manifest)):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                if name == "workspace/a":
                    change(info)
                archive.addfile(info, io.BytesIO(data))
        encrypt(iter([plain.getvalue()]), out.write, world.recipients)
        out.seek(0)
        return out

    def link(info: tarfile.TarInfo) -> None:
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"

    for number, (stream, word) in enumerate(
        (
            (tarred(link, b""), "no plain file"),
            (tarred(lambda info: None, b'{"members":[]}'), "what its manifest says"),
            (tarred(lambda info: None, b"["), "manifest"),
        )
    ):
        with pytest.raises(InputError, match=word):
            unpack(stream, world.identities, tmp_path / f"{number}", tmp_path / f"{number}.db")


def test_what_others_write_meanwhile_does_not_tear_a_backup(world: World, tmp_path: Path) -> None:
    """Every piece that is written is followed by a certificate that another thread issues."""
    settings = settings_of(tmp_path / "home")
    with world.open(settings) as inventory:
        authority = ocpp_authority(inventory)
        written: list[int] = []

        def meanwhile(data: bytes) -> None:
            other = threading.Thread(target=authority.publish_crl, args=("t-sub",))
            other.start()
            other.join()
            written.append(len(data))

        with (settings.home / "large").open("wb") as large:
            large.truncate(20 << 20)
        tracemalloc.start(1)
        backup = world.back_up(settings, write=meanwhile)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert len(written) > 1 and len(list(inventory.list_crls())) >= len(written)
    assert peak < 12 << 20, "a large file is not held in memory"
    with backup.open("rb") as stream:
        unpacked = unpack(stream, world.identities, tmp_path / "look", tmp_path / "look.db")
    assert (tmp_path / "look" / "large").stat().st_size == 20 << 20
    from chargepki.pki.inventory import AuditKey, Inventory

    with Inventory.open(f"sqlite:///{tmp_path / 'look.db'}", log_key=None, create=False) as found:
        report = verify_log(found, pinned_keys=[AuditKey.load(settings.home / "audit.key").public])
        assert report.ok and report.entries == unpacked.header.log_count
        assert list(found.list_crls()) == [], "the state is that of the beginning"


def test_links_and_the_passphrase_are_left_out_and_named(world: World, tmp_path: Path) -> None:
    from dataclasses import replace

    from chargepki.pki.backup import make_backup

    settings = settings_of(tmp_path / "home")
    with world.open(settings) as inventory:
        (settings.home / "link").symlink_to("/etc/passwd")
        (settings.home / "passphrase").write_text("secret")
        (settings.home / ".x.tmp").write_text("left by a crash")
        settings = replace(settings, passphrase_file=str(settings.home / "passphrase"))
        out = io.BytesIO()
        made = make_backup(inventory, settings, world.recipients, out.write, actor=ACTOR, now=NOW)
    assert {name for name, _ in made.left_out} == {"link", "passphrase"}
    out.seek(0)
    unpacked = unpack(out, world.identities, tmp_path / "look", tmp_path / "look.db")
    assert unpacked.files == ("audit.key",)


def test_what_does_not_take_a_backup_ends_it_with_its_own_error(world: World, tmp_path: Path) -> None:
    def full(data: bytes) -> None:
        raise UnavailableError("cannot write", why="No space left on device")

    with pytest.raises(UnavailableError, match="cannot write"):
        world.back_up(settings_of(tmp_path / "home"), write=full)


@pytest.mark.parametrize(
    ("lines", "word"),
    [
        ([], "there is no recipient"),
        (["age1nonsense"], "is no age recipient"),
        (["ssh-dss AAAA"], "is no age recipient"),
        (["AGE-SECRET-KEY-1QQQ"], "is a secret key"),
        (["# only a comment", ""], "there is no recipient"),
    ],
)
def test_what_is_no_recipient_is_refused_without_repeating_a_secret(lines: list[str], word: str) -> None:
    with pytest.raises(InputError, match=word) as caught:
        parse_recipients(lines)
    assert "QQQ" not in str(caught.value)


def test_an_identity_file_that_others_can_read_or_that_holds_none_is_refused(tmp_path: Path) -> None:
    for content, mode, word in (
        ("AGE-SECRET-KEY-1X", 0o600, "no age identity"),
        ("", 0o600, "holds no age identity"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nx\n", 0o600, "no age identity"),
        ("anything", 0o644, "others can read"),
    ):
        path = tmp_path / "identity"
        path.write_text(content)
        path.chmod(mode)
        with pytest.raises(SignerError, match=word):
            load_identities(str(path))
