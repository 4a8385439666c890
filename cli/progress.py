"""A progress line on stderr for long work, only on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from chargepki.cli.globals import GlobalState

__all__ = ["progress"]


@contextmanager
def progress(state: GlobalState, title: str) -> Iterator[Callable[[int, int], None]]:
    """Yield a function to call with (done, total); it draws a bar on a terminal and nothing elsewhere."""
    if state.quiet or state.json or state.json_lines or not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
