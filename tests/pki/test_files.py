"""Durable writes: whole or not at all, never over what must stay; guarded reads."""

from __future__ import annotations

import errno
import io
import os
import stat
import sys
import threading
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any

import pytest

from chargepki.pki import files
from chargepki.pki.errors import Conflict, InputError, SignerError, StateError, UnavailableError

posix = pytest.mark.skipif(os.name != "posix", reason="permissions are those of POSIX")


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_write_durable_replaces_the_content_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "ca.crl"
    files.write_durable(path, b"old")
    files.write_durable(path, b"new" * 100_000)
    assert path.read_bytes() == b"new" * 100_000
    assert list(tmp_path.iterdir()) == [path]


@posix
def test_modes_are_as_asked_less_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        files.write_durable(tmp_path / "a", b"x")
        files.write_durable(tmp_path / "b", b"x", mode=0o600)
        files.write_new(tmp_path / "c", b"x")
        os.umask(0o077)
        files.write_durable(tmp_path / "d", b"x")
    finally:
        os.umask(before)
    assert [mode_of(tmp_path / name) for name in "abcd"] == [0o644, 0o600, 0o600, 0o600]


def test_write_new_never_overwrites(tmp_path: Path) -> None:
    path = tmp_path / "ca.key"
    files.write_new(path, b"first")
    with pytest.raises(Conflict, match="exists already"):
        files.write_new(path, b"second")
    assert path.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [path]


@posix
def test_write_new_does_not_follow_a_link_that_points_nowhere(tmp_path: Path) -> None:
    (tmp_path / "ca.key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Conflict):
        files.write_new(tmp_path / "ca.key", b"secret")
    assert not (tmp_path / "elsewhere").exists()


def test_of_many_racing_writers_exactly_one_creates_the_file(tmp_path: Path) -> None:
    path = tmp_path / "ca.key"
    won: list[int] = []
    barrier = threading.Barrier(8)

    def race(number: int) -> None:
        barrier.wait()
        try:
            files.write_new(path, bytes([number]) * 1000)
        except Conflict:
            return
        won.append(number)

    threads = [threading.Thread(target=race, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert path.read_bytes() == bytes(won) * 1000
    assert list(tmp_path.iterdir()) == [path]


STEPS = ["open", "write", "fsync", "replace", "link"]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("write", [files.write_durable, files.write_new])
def test_a_full_disk_at_any_step_leaves_what_was_there(
    write: object, step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ca.crl"
    durable = write is files.write_durable
    if durable:
        path.write_bytes(b"old")
    if step == ("link" if durable else "replace"):
        return  # the other function's step

    def full(*_arguments: object, **_options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, step, full)
    with pytest.raises(UnavailableError, match="cannot write") as caught:
        (files.write_durable if durable else files.write_new)(path, b"new")
    monkeypatch.undo()
    assert "No space left" in caught.value.why
    assert [entry.read_bytes() for entry in tmp_path.iterdir()] == ([b"old"] if durable else [])


def test_the_content_is_on_disk_before_its_name_and_the_name_before_we_return(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    for step in STEPS:
        original = getattr(os, step)

        def watched(*arguments: object, _step: str = step, _original: object = original, **options: object) -> object:
            steps.append(_step)
            return _original(*arguments, **options)  # type: ignore[operator]  # whatever os.<step> is

        monkeypatch.setattr(os, step, watched)
    files.write_durable(tmp_path / "a", b"x")
    files.write_new(tmp_path / "b", b"x")
    monkeypatch.undo()
    assert steps == [
        "open",
        "write",
        "fsync",
        "replace",
        "open",
        "fsync",
        "open",
        "write",
        "fsync",
        "link",
        "open",
        "fsync",
    ]


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: original(handle, bytes(data[:7])))
    files.write_durable(tmp_path / "a", b"0123456789" * 10)
    assert (tmp_path / "a").read_bytes() == b"0123456789" * 10


@posix
def test_devices_and_pipes_are_written_and_not_replaced(tmp_path: Path) -> None:
    files.write_durable("/dev/null", b"x")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    seen: list[bytes] = []
    reader = threading.Thread(target=lambda: seen.append(pipe.read_bytes()))
    reader.start()
    files.write_durable(pipe, b"through")
    reader.join()
    assert seen == [b"through"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_missing_folders_are_reported_with_the_path(tmp_path: Path) -> None:
    for write in (files.write_durable, files.write_new):
        with pytest.raises(UnavailableError, match="absent"):
            write(tmp_path / "absent" / "a", b"x")
    with pytest.raises(UnavailableError):
        files.write_durable(tmp_path, b"x")


def test_read_limited_holds_to_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "a.csr"
    path.write_bytes(b"x" * 100)
    assert files.read_limited(path, 100, "certificate request") == b"x" * 100
    with pytest.raises(InputError, match="larger than 99 bytes"):
        files.read_limited(path, 99, "certificate request")
    with pytest.raises(UnavailableError, match="cannot read certificate request"):
        files.read_limited(tmp_path / "absent", 100, "certificate request")
    with pytest.raises(InputError, match="is a folder"):
        files.read_limited(tmp_path, 100, "certificate request")
    with pytest.raises(InputError, match="not a file name"):
        files.read_limited("a\0b", 100, "certificate request")


def test_a_hyphen_is_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"piped")))
    assert files.read_limited("-", 100, "certificate request") == b"piped"


@posix
def test_endless_input_ends_at_the_limit() -> None:
    with pytest.raises(InputError, match="larger"):
        files.read_limited("/dev/zero", 5_000_000, "certificate request")


@posix
def test_read_private_refuses_a_file_that_others_can_read(tmp_path: Path) -> None:
    path = tmp_path / "ca.key"
    files.write_new(path, b"secret")
    assert files.read_private(path) == b"secret"
    for mode in (0o640, 0o604, 0o644, 0o620):
        path.chmod(mode)
        with pytest.raises(SignerError, match="others can read") as caught:
            files.read_private(path)
        assert caught.value.fix == f"chmod 600 {path}"
    path.chmod(0o400)
    assert files.read_private(path) == b"secret"


def test_read_private_refuses_what_is_no_plain_file_or_too_large(tmp_path: Path) -> None:
    with pytest.raises(SignerError, match="cannot read"):
        files.read_private(tmp_path / "absent")
    with pytest.raises(SignerError):
        files.read_private(tmp_path)
    with pytest.raises(SignerError, match="not a plain file"):
        files.read_private("/dev/null")
    files.write_new(tmp_path / "big", bytes((1 << 20) + 1))
    with pytest.raises(SignerError, match="larger than"):
        files.read_private(tmp_path / "big")


@posix
def test_private_folders_are_made_for_the_owner_alone(tmp_path: Path) -> None:
    folder = files.make_private_folder(tmp_path / "a" / "keys")
    assert mode_of(folder) == 0o700
    assert files.make_private_folder(folder) == folder
    for mode in (0o770, 0o707, 0o777):
        folder.chmod(mode)
        with pytest.raises(StateError, match="others can write") as caught:
            files.make_private_folder(folder)
        assert caught.value.fix == f"chmod 700 {folder}"
    folder.chmod(0o750)
    assert files.make_private_folder(folder) == folder


@posix
def test_a_folder_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = files.make_private_folder(tmp_path / "keys")
    me = os.geteuid()
    if me == 0:
        os.chown(folder, 12345, -1)
    else:  # only root can give a folder away, so be someone else
        monkeypatch.setattr(os, "geteuid", lambda: me + 1)
    with pytest.raises(StateError, match="belongs to another user"):
        files.make_private_folder(folder)


def test_a_file_in_the_place_of_a_folder_is_reported(tmp_path: Path) -> None:
    (tmp_path / "keys").write_bytes(b"")
    with pytest.raises(UnavailableError, match="cannot create the folder"):
        files.make_private_folder(tmp_path / "keys")


def test_public_folders_are_made_with_their_parents(tmp_path: Path) -> None:
    folder = files.make_folder(tmp_path / "a" / "b")
    assert files.make_folder(folder).is_dir()
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UnavailableError, match="cannot create the folder"):
        files.make_folder(tmp_path / "file")


@posix
def test_a_locked_file_makes_another_wait_until_it_is_released(tmp_path: Path) -> None:
    order: list[str] = []
    entered = threading.Event()

    def second() -> None:
        entered.set()
        with files.locked(tmp_path / "lock"):
            order.append("second")

    thread = threading.Thread(target=second)
    with files.locked(tmp_path / "lock"):
        thread.start()
        entered.wait()
        thread.join(0.2)
        order.append("first")
    thread.join(60)
    assert order == ["first", "second"]
    with pytest.raises(UnavailableError), files.locked(tmp_path / "absent" / "lock"):
        raise AssertionError("entered without the lock")


def test_a_lock_is_not_made_where_a_planted_link_leads(tmp_path: Path) -> None:
    (tmp_path / ".lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UnavailableError), files.locked(tmp_path / ".lock"):
        pytest.fail("the lock was taken")
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("dies_at", range(3))
def test_a_folder_appears_whole_and_what_a_crash_left_of_it_is_in_nobodys_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dies_at: int
) -> None:
    entries = [(PurePath("a/b.pem"), b"1", 0o644), (PurePath("key"), b"2", 0o600)]
    out, partial, steps = tmp_path / "out", tmp_path / ".out.partial", []
    write_new = files.write_new

    def step(*arguments: Any, **options: Any) -> None:
        steps.append(1)
        if len(steps) > dies_at:
            raise KeyboardInterrupt
        write_new(*arguments, **options)

    def rename(*_: object) -> None:
        raise KeyboardInterrupt

    # A death at each file, or at the renaming; the dead tidy nothing up.
    with monkeypatch.context() as dying:
        dying.setattr(files, "write_new", step)
        dying.setattr(Path, "rename", rename)
        dying.setattr("shutil.rmtree", lambda *_, **_options: None)
        with pytest.raises(KeyboardInterrupt):
            files.write_new_folder(out, entries)
    assert not out.exists() and partial.stat().st_mode & 0o777 == 0o700
    (partial / "stale").mkdir()
    (partial / "planted").symlink_to(tmp_path)
    out.mkdir()
    files.write_new_folder(out, entries)
    assert {str(each.relative_to(out)) for each in out.rglob("*")} == {"a", "a/b.pem", "key"}
    assert (out / "key").stat().st_mode & 0o777 == 0o600 and not partial.exists()
    with pytest.raises(Conflict):
        files.write_new_folder(out, entries)
    assert (out / "a/b.pem").read_bytes() == b"1" and not partial.exists()


def test_two_who_write_one_folder_do_not_mix(tmp_path: Path) -> None:
    def entries() -> Iterator[tuple[PurePath, bytes, int]]:
        with pytest.raises(Conflict, match="another process"):
            files.write_new_folder(tmp_path / "out", [(PurePath("theirs"), b"", 0o644)])
        yield PurePath("ours"), b"", 0o644

    files.write_new_folder(tmp_path / "out", entries())
    assert [each.name for each in (tmp_path / "out").iterdir()] == ["ours"]


def test_a_new_file_appears_whole_or_not_at_all_and_never_over_another(tmp_path: Path) -> None:
    path = tmp_path / "log"
    file = files.NewFile(path)
    file.write(b"first ")
    file.write(b"part")
    assert not path.exists()
    file.commit()
    file.abandon()
    file.abandon()
    assert path.read_bytes() == b"first part"
    assert mode_of(path) == 0o600
    left = files.NewFile(tmp_path / "other")
    left.write(b"never finished")
    left.abandon()
    second = files.NewFile(path)
    second.write(b"another")
    with pytest.raises(Conflict):
        second.commit()
    second.abandon()
    assert path.read_bytes() == b"first part"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(UnavailableError):
        files.NewFile(tmp_path / "missing" / "x")
