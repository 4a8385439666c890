"""The work of ``cert issue-batch``: share the request files between processes, show progress, sum up."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import asdict
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from chargepki.cli.globals import GlobalState
from chargepki.cli.output import counted
from chargepki.cli.progress import progress
from chargepki.pki import files
from chargepki.pki.authority.folder import FileAnswer, FileState, FolderIssuer, find_requests
from chargepki.pki.authority.orders import IssueOrder
from chargepki.pki.errors import ChargePkiError, Conflict, NotFound, UnavailableError

if TYPE_CHECKING:
    from chargepki.pki.workspace import Workspace

__all__ = ["issue_folder"]

_CHUNK: Final = 64
"""Files that share their two commits at least; as many as an interrupted run repeats at most in each process."""
_MOST_CHUNK: Final = 512
"""Files that share their two commits in a large folder, where repeating some is the smaller cost."""
_CHUNKS_A_PROCESS: Final = 8
"""More than this many, so that all processes end at about the same time and progress is seen."""
_MIN_FILES_A_PROCESS: Final = 2 * _CHUNK
"""Fewer are done before another process would have begun."""
_MAX_JOBS: Final = 64
_SHOWN: Final = (FileState.ACCEPTED, FileState.REFUSED, FileState.UNWRITTEN)
"""What a person wants to see line by line; of the rest the number is enough."""
_REASONS: Final = ("what", "why", "fix")

Answers = Generator[list[FileAnswer], None, None]
FolderWork = Callable[[FolderIssuer, Sequence[Path]], list[FileAnswer]]


def issue_folder(state: GlobalState, order: IssueOrder, options: dict[str, Any]) -> None:
    """Answer every request file of ``--csr-dir`` with a file in ``--out-dir``, and print what became of each.

    Raises:
        click.exceptions.Exit: 3 when requests were refused, 4 when files could not be written.
        NotFound: the folder holds no request.
        Conflict: both folders are one.
        UnavailableError: inventory or folders; what was issued until then is on record and in its files.
    """
    folder, out_folder = Path(options["csr_dir"]), Path(options["out_dir"])
    found = find_requests(folder)
    if not found.files:
        raise NotFound(
            f"there is no request in {folder}",
            why="requests are files that end in .csr, .der, .p10, .pem or .req",
            fix="name the folder of the CSRs with --csr-dir",
        )
    if out_folder.exists() and out_folder.samefile(folder):
        raise Conflict("--out-dir is --csr-dir", why="requests would be overwritten", fix="name another --out-dir")
    if found.others:
        state.output.say(f"{counted(found.others, 'other entry', 'other entries')} of {folder} left alone")
    workspace = state.workspace
    # One clear refusal in place of one for each file; and the passphrase is asked for once, before the processes part.
    workspace.authority.open_issuer(order.ca)
    if options["dry_run"]:
        answers = _in_this_process(_issuer(workspace, order, options, found.files), found.files, FolderIssuer.judge)
    else:
        files.make_folder(out_folder)
        # What a crash left reserved is completed first, so that the inventory is whole before it grows.
        workspace.authority.recover(order.ca)
        jobs = _jobs(options["jobs"], len(found.files))
        if jobs == 1:
            answers = _in_this_process(_issuer(workspace, order, options, found.files), found.files, FolderIssuer.issue)
        else:
            answers = _in_processes(workspace, order, options, found.files, jobs)
    _report(state, answers, len(found.files))


def _issuer(workspace: Workspace, order: IssueOrder, options: dict[str, Any], requests: Sequence[Path]) -> FolderIssuer:
    out_folder = Path(options["out_dir"])
    return FolderIssuer(workspace.authority, order, out_folder, with_chain=options["chain"], requests=requests)


def _jobs(wanted: int | None, requests: int) -> int:
    if not hasattr(os, "fork"):
        return 1  # Windows: one process
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    jobs = wanted or max(1, min(available, requests // _MIN_FILES_A_PROCESS))
    return min(jobs, _MAX_JOBS, -(-requests // _CHUNK))


def _chunks(requests: Sequence[Path], jobs: int) -> list[Sequence[Path]]:
    size = max(_CHUNK, min(_MOST_CHUNK, len(requests) // (jobs * _CHUNKS_A_PROCESS)))
    return [requests[start : start + size] for start in range(0, len(requests), size)]


def _in_this_process(issuer: FolderIssuer, requests: Sequence[Path], work: FolderWork) -> Answers:
    for chunk in _chunks(requests, 1):
        yield work(issuer, chunk)


def _in_processes(
    workspace: Workspace, order: IssueOrder, options: dict[str, Any], requests: Sequence[Path], jobs: int
) -> Answers:
    """Give each of *jobs* processes every jobs-th chunk, and pass their answers on as they come."""
    # A connection that two processes share would mix their statements; each opens its own.
    workspace.forget_inventory()
    forked = multiprocessing.get_context("fork")
    chunks = _chunks(requests, jobs)
    readers: list[Connection] = []
    processes: list[ForkProcess] = []
    for number in range(jobs):
        reader, writer = forked.Pipe(duplex=False)
        readers.append(reader)
        arguments = (workspace, order, options, requests, chunks[number::jobs], writer, tuple(readers))
        process = forked.Process(target=_work, args=arguments, name=f"issue-batch-{number}", daemon=True)
        process.start()
        processes.append(process)
        writer.close()
    try:
        yield from _received(readers)
    finally:
        for reader in readers:
            # A process that has something to say finds nobody to say it to, and ends after the chunk it is at.
            reader.close()
        for process in processes:
            process.join()


def _work(
    workspace: Workspace,
    order: IssueOrder,
    options: dict[str, Any],
    requests: Sequence[Path],
    chunks: Sequence[Sequence[Path]],
    writer: Connection,
    readers: Sequence[Connection],
) -> None:
    """One process: answer *chunks*, tell of each, end with ``None`` or with the error that ended it."""
    # The terminal interrupts everybody; here the chunk is finished, and then nobody reads.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for reader in readers:
        # Else the pipes would stay open when the reading process dies, and this one would never notice.
        reader.close()
    try:
        with closing(workspace):
            issuer = _issuer(workspace, order, options, requests)
            for chunk in chunks:
                writer.send(issuer.issue(chunk))
        writer.send(None)
    except BrokenPipeError:
        return
    except ChargePkiError as error:
        writer.send(error)


def _received(readers: Sequence[Connection]) -> Answers:
    """Yield the answers of all processes as they come.

    Raises:
        ChargePkiError: what ended a process, once all others have ended.
        UnavailableError: a process died.
    """
    waiting = list(readers)
    failure: ChargePkiError | None = None
    while waiting:
        for reader in wait(waiting):
            assert isinstance(reader, Connection)
            try:
                received = reader.recv()
            except (EOFError, ConnectionResetError):
                received = UnavailableError(
                    "a process of this run died",
                    why="somebody killed it, or there was no memory left",
                    fix="repeat this command: it goes on where this one ended",
                )
            if isinstance(received, list):
                yield received
                continue
            waiting.remove(reader)
            failure = failure or received
    if failure is not None:
        raise failure


def _report(state: GlobalState, answers: Answers, total: int) -> None:
    """Print the answers as they come (``--json-lines``) or at the end, and exit with what they amount to."""
    counts: Counter[FileState] = Counter()
    kept: list[dict[str, Any]] = []
    output = state.output
    # Closed whatever happens: the processes end when nobody reads any more.
    with closing(answers), progress(state, "issuing") as show:
        show(0, total)
        for chunk in answers:
            for answer in chunk:
                counts[answer.state] += 1
                row = _row(answer)
                if output.is_json_lines:
                    output.document("chargepki/issue-batch-item", row)
                elif output.is_json or answer.state in _SHOWN:
                    kept.append(row)
            show(counts.total(), total)
    kept.sort(key=lambda row: str(row["file"]))
    if output.is_json:
        summed = {each.value: counts[each] for each in FileState}
        output.document("chargepki/issue-batch", {"requests": total, **summed, "items": kept})
    elif not output.is_json_lines:
        if kept:
            output.rows("chargepki/issue-batch", _columns(counts), kept)
        said = ", ".join(f"{counts[each]} {each.value}" for each in FileState if counts[each])
        output.say(f"{counted(total, 'request')}: {said}")
    if counts[FileState.UNWRITTEN]:
        raise click.exceptions.Exit(4)
    if counts[FileState.REFUSED]:
        raise click.exceptions.Exit(3)


def _columns(counts: Counter[FileState]) -> tuple[str, ...]:
    failed = counts[FileState.REFUSED] or counts[FileState.UNWRITTEN]
    rehearsed = counts[FileState.ACCEPTED]
    return ("file", "state", *(("subject", "not_after") if rehearsed else ()), *(_REASONS if failed else ()))


def _row(answer: FileAnswer) -> dict[str, Any]:
    row = {name: value for name, value in asdict(answer).items() if name not in ("code", "what", "why", "fix")}
    failed = {"code": answer.code, "what": answer.what, "why": answer.why, "fix": answer.fix}
    return row | ({name: value or None for name, value in failed.items()} if answer.code else {})
