"""What ``chargepki lint`` does with its operands: read files, folders and endpoints, and have them judged."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from chargepki.cli.globals import GlobalState
from chargepki.pki import files as io
from chargepki.pki.certificate_view import view_certificate
from chargepki.pki.config import CONFIG_FILE
from chargepki.pki.errors import InputError
from chargepki.pki.lint.collection import Kind
from chargepki.pki.lint.reading import LintInput, as_text, read_inputs
from chargepki.pki.lint.session import LintSession, ObjectReport
from chargepki.pki.lint.settings import LintSettings, load_lint_settings, load_weak_keys
from chargepki.pki.lint.sniff import ObjectKind
from chargepki.pki.profiles import get_profile

if TYPE_CHECKING:
    from chargepki.pki.pem import PemBlock

__all__ = ["Request", "Run", "file_mode", "judge"]

_MAX_BYTES: Final = 64 << 20
_MAX_PASSPHRASE_BYTES: Final = 4096
_MOST_FILES: Final = 100_000
_TLS: Final = "tls://"


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked on the command line."""

    files: tuple[str, ...]
    now: datetime
    profile_id: str | None = None
    issuers: tuple[str, ...] = ()
    kind: str | None = None
    weak_keys: str | None = None
    serial_number: str | None = None
    organization: str | None = None
    no_unverified: bool = False
    deep: bool = False


@dataclass(slots=True)
class Run:
    """What came of it."""

    reports: list[ObjectReport] = field(default_factory=list)
    skipped: list[dict[str, str]] = field(default_factory=list)
    """Files of a folder that hold nothing that can be judged."""


def judge(state: GlobalState, request: Request) -> Run:
    """Judge every operand of *request*."""
    run = Run()
    inputs: list[LintInput] = []
    blocks: dict[str, Sequence[PemBlock]] = {}
    passphrases = _passphrases(state.settings.passphrase_file)
    for operand in request.files:
        if operand.startswith(_TLS):
            inputs += _endpoint(operand)
        else:
            _read(operand, inputs, blocks, run, passphrases)
    session = LintSession(
        profile=get_profile(request.profile_id) if request.profile_id else None,
        now=request.now,
        issuers=[der for file in request.issuers for der in _issuers(file)],
        settings=_settings(state, request),
        kind=Kind(request.kind) if request.kind else None,
    )
    if request.deep:
        from chargepki.pki.lint.deep import check_available, with_second_opinion

        check_available()
        run.reports = [with_second_opinion(report) for report in session.judge(inputs, blocks)]
    else:
        run.reports = session.judge(inputs, blocks)
    return run


def _settings(state: GlobalState, request: Request) -> LintSettings:
    """Flags win over the configuration file."""
    settings = load_lint_settings(state.settings.home / CONFIG_FILE)
    data = settings.data
    if request.weak_keys is not None:
        data = replace(data, weak_keys=load_weak_keys(Path(request.weak_keys)))
    if request.serial_number is not None:
        data = replace(data, serial_number=request.serial_number)
    if request.organization is not None:
        data = replace(data, organization=request.organization)
    return replace(settings, data=data, unverified=settings.unverified and not request.no_unverified)


def _read(
    operand: str,
    inputs: list[LintInput],
    blocks: dict[str, Sequence[PemBlock]],
    run: Run,
    passphrases: Callable[[], Sequence[bytes]],
) -> None:
    if operand == "-" or not Path(operand).is_dir():
        _read_file(operand, inputs, blocks, passphrases)
        return
    before = len(inputs)
    for path in _walk(Path(operand)):
        try:
            _read_file(str(path), inputs, blocks, passphrases)
        except InputError as error:
            run.skipped.append({"file": as_text(str(path)), "reason": as_text(error.what)})
    if len(inputs) == before:
        raise InputError(f"folder {operand} holds nothing that can be judged", fix="check the path")


def _walk(folder: Path) -> Iterator[Path]:
    """Yield the files below *folder*, sorted; links to folders are not followed."""
    count = 0
    for root, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(root, name)
            if path.is_file():
                count += 1
                if count > _MOST_FILES:
                    raise InputError(f"folder {folder} holds more than {_MOST_FILES} files", fix="lint a part of it")
                yield path


def _read_file(
    file: str,
    inputs: list[LintInput],
    blocks: dict[str, Sequence[PemBlock]],
    passphrases: Callable[[], Sequence[bytes]],
) -> None:
    data = io.read_limited(file, _MAX_BYTES, "file")
    if not data:
        raise InputError(f"{file} is empty", why="it should hold something to judge", fix="check the path")
    found, listed = read_inputs(data, file, mode=file_mode(file), passphrases=passphrases)
    if not found:
        labels = ", ".join(dict.fromkeys(block.label for block in listed))
        raise InputError(
            f"{file} holds nothing that can be judged but {labels}",
            why="certificates, requests, CRLs, OCSP responses, PKCS#7, PKCS#12 and private keys can be judged",
            fix="check the path",
        )
    inputs += found
    if listed:
        blocks[file] = listed


def file_mode(file: str) -> int | None:
    """Return the permissions of *file*, where the system has such."""
    if file == "-" or os.name != "posix":
        return None
    try:
        status = Path(file).stat()
    except OSError:
        return None
    return stat.S_IMODE(status.st_mode) if stat.S_ISREG(status.st_mode) else None


def _passphrases(setting: str | None) -> Callable[[], Sequence[bytes]]:
    """Return a function that reads the passphrase of PKCS#12 files once, when there is one to open."""

    @cache
    def read() -> Sequence[bytes]:
        if setting is None:
            return ()
        return (io.read_limited(setting, _MAX_PASSPHRASE_BYTES, "passphrase file").rstrip(b"\r\n"),)

    return read


def _issuers(file: str) -> list[bytes]:
    found, _ = read_inputs(io.read_limited(file, _MAX_BYTES, "issuer"), file)
    ders = [each.der for each in found if each.kind is ObjectKind.CERTIFICATE]
    if not ders:
        raise InputError(f"{file} holds no certificate", fix="pass the certificate of the issuing CA")
    for der in ders:
        try:
            view_certificate(der)
        except InputError as error:
            raise InputError(f"{file}: {error.what}", why=error.why, fix=error.fix) from error
    return ders


def _endpoint(operand: str) -> list[LintInput]:
    from chargepki.cli.linting_tls import presented_chain

    chain = presented_chain(operand)
    if len(chain) == 1:
        return [LintInput(operand, operand, ObjectKind.CERTIFICATE, chain[0])]
    return [
        LintInput(f"{operand}#{number}", operand, ObjectKind.CERTIFICATE, der)
        for number, der in enumerate(chain, start=1)
    ]
