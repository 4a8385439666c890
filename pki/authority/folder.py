"""Issue a certificate for each request file of a folder: resumable, and a bad file never stops the rest."""

from __future__ import annotations

import stat
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Final

from chargepki.pki import files
from chargepki.pki.authority.core import Authority
from chargepki.pki.authority.issuance import judged_on_record, prepare
from chargepki.pki.authority.orders import IssuedCertificate, IssueOrder
from chargepki.pki.der import to_pem
from chargepki.pki.errors import ChargePkiError, Conflict, InputError, UnavailableError

__all__ = ["FileAnswer", "FileState", "FolderIssuer", "RequestFolder", "find_requests"]

SUFFIXES: Final = (".csr", ".der", ".p10", ".pem", ".req")
"""What request files are called; everything else in the folder is left alone."""
_MAX_CSR_BYTES: Final = 65536
_MAX_RESULT_BYTES: Final = 1 << 20


class FileState(StrEnum):
    """What became of one request file."""

    ISSUED = "issued"
    REPEATED = "repeated"
    """An earlier run had issued it already; this is the same certificate."""
    ACCEPTED = "accepted"
    """A dry run: it would be issued."""
    REFUSED = "refused"
    UNWRITTEN = "unwritten"
    """Issued and on record, but its file could not be written; the same command again writes it."""


@dataclass(frozen=True, slots=True)
class FileAnswer:
    """One request file and its answer; plain values, so that it can travel between processes."""

    file: str
    """Name in the folder."""
    state: FileState
    certificate: str | None = None
    """Id of the certificate, ``CA:SERIAL``."""
    subject: str | None = None
    not_after: datetime | None = None
    out: str | None = None
    """The file that holds the certificate."""
    code: str = ""
    what: str = ""
    why: str = ""
    fix: str = ""


@dataclass(frozen=True, slots=True)
class RequestFolder:
    """The request files of a folder by name, and how many other files it holds."""

    files: tuple[Path, ...]
    others: int


def find_requests(folder: Path) -> RequestFolder:
    """Return the request files of *folder*, sorted by name; hidden files and sub-folders are other files.

    Raises:
        UnavailableError: the folder cannot be read.
    """
    try:
        entries = sorted(entry for entry in folder.iterdir())
    except OSError as exc:
        raise UnavailableError(
            f"cannot read the folder {folder}",
            why=exc.strerror or type(exc).__name__,
            fix="name the folder of the CSRs",
        ) from exc
    found = [entry for entry in entries if entry.suffix.lower() in SUFFIXES and not entry.name.startswith(".")]
    return RequestFolder(tuple(found), len(entries) - len(found))


class FolderIssuer:
    """Answers request files with certificate files.

    Args:
        order: what all requests have in common: CA, profile, validity; each file's CSR is put into a copy of it.
        out_folder: takes ``STEM.pem`` for each ``STEM.csr``.
        with_chain: write the chain, leaf first and without the root, and not the leaf alone.
        requests: all files of the run; two of one stem would overwrite each other's certificate and are refused.
    """

    def __init__(
        self, authority: Authority, order: IssueOrder, out_folder: Path, *, with_chain: bool, requests: Sequence[Path]
    ) -> None:
        self._authority = authority
        self._order = order
        self._out_folder = out_folder
        self._with_chain = with_chain
        stems = Counter(path.stem for path in requests)
        self._ambiguous = frozenset(stem for stem, count in stems.items() if count > 1)

    def issue(self, requests: Sequence[Path]) -> list[FileAnswer]:
        """Answer *requests* in their order: all are judged, then all reserved, signed, recorded, then written.

        Raises:
            UnavailableError: the inventory went away; nothing is lost, the same call goes on.
        """
        answers: dict[Path, FileAnswer] = {}
        sound: list[tuple[Path, IssueOrder]] = []
        for path in requests:
            try:
                sound.append((path, self._order_of(path)))
            except ChargePkiError as error:
                answers[path] = _refused(path, error)
        issued = self._authority.issue_many([order for _, order in sound])
        for (path, _), answer in zip(sound, issued, strict=True):
            answers[path] = _refused(path, answer) if isinstance(answer, ChargePkiError) else self._write(path, answer)
        return [answers[path] for path in requests]

    def judge(self, requests: Sequence[Path]) -> list[FileAnswer]:
        """Say what `issue` would answer; nothing is reserved, signed or written."""
        authority, now = self._authority, self._authority.now()
        issuer = authority.open_issuer(self._order.ca)
        answers: list[FileAnswer] = []
        for path in requests:
            try:
                prepared = prepare(
                    self._order_of(path),
                    issuer,
                    authority.inventory,
                    actor=authority.actor,
                    now=now,
                    policy=authority.policy,
                )
                record = judged_on_record(authority.inventory, prepared, now=now)
            except ChargePkiError as error:
                answers.append(_refused(path, error))
            else:
                accepted = FileAnswer(path.name, FileState.ACCEPTED, None, record.subject, record.not_after)
                answers.append(replace(accepted, out=str(self._target(path))))
        return answers

    def _order_of(self, path: Path) -> IssueOrder:
        if path.stem in self._ambiguous:
            raise Conflict(
                f"several requests are called {path.stem}",
                why=f"their certificates would all be {path.stem}.pem",
                fix="rename them, or move one away",
            )
        _check_regular(path)
        csr = files.read_limited(path, _MAX_CSR_BYTES, "certificate request")
        _check_replaceable(self._target(path))
        return replace(self._order, csr=csr)

    def _target(self, path: Path) -> Path:
        return self._out_folder / f"{path.stem}.pem"

    def _write(self, path: Path, issued: IssuedCertificate) -> FileAnswer:
        record, target = issued.record, self._target(path)
        state = FileState.REPEATED if issued.repeated else FileState.ISSUED
        answer = FileAnswer(path.name, state, record.id, record.subject, record.not_after, str(target))
        certificates = issued.chain if self._with_chain else (issued.certificate_der,)
        data = "".join(to_pem("CERTIFICATE", der) for der in certificates).encode()
        try:
            if not (issued.repeated and _holds(target, data)):
                files.write_durable(target, data)
        except ChargePkiError as error:
            fix = error.fix or "repeat this command: it writes the same certificate"
            unwritten = replace(answer, state=FileState.UNWRITTEN, code=error.code)
            return replace(unwritten, what=error.what, why=error.why, fix=fix)
        return answer


def _refused(path: Path, error: ChargePkiError) -> FileAnswer:
    return FileAnswer(path.name, FileState.REFUSED, code=error.code, what=error.what, why=error.why, fix=error.fix)


def _check_regular(path: Path) -> None:
    """Refuse what is no file: a pipe in the folder would hold the run up for ever."""
    try:
        mode = path.stat().st_mode
    except OSError as exc:
        raise UnavailableError(f"cannot read {path}", why=exc.strerror or type(exc).__name__) from exc
    if not stat.S_ISREG(mode):
        raise InputError(f"{path} is no file", why="each request is a file", fix="move it out of the folder")


def _check_replaceable(target: Path) -> None:
    """Refuse to write over a private key or over what is no file.

    Raises:
        Conflict: *target* must stay.
    """
    if target.is_file():
        if b"PRIVATE KEY" in target.read_bytes()[:_MAX_RESULT_BYTES]:
            raise Conflict(
                f"{target} holds a private key", why="a key is never overwritten", fix="name another --out-dir"
            )
    elif target.exists():
        raise Conflict(f"{target} is no file", why="the certificate would be written there", fix="move it away")


def _holds(target: Path, data: bytes) -> bool:
    try:
        return files.read_limited(target, _MAX_RESULT_BYTES, "certificate") == data
    except ChargePkiError:
        return False
