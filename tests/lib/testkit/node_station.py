"""Start and follow the charging station of tests/interop/node: npm's ocpp-rpc in strict mode."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from testkit.foreign import missing
from testkit.layout import ROOT

__all__ = ["NodeStation", "need_node", "node_station"]

FOLDER = ROOT / "tests" / "interop" / "node"


def need_node() -> None:
    """Skip the calling test, visibly, when Node.js or its packages are not there."""
    if reason := missing("node", "nodejs"):
        pytest.skip(reason)
    if not (FOLDER / "node_modules" / "ocpp-rpc").is_dir():
        pytest.skip("ocpp-rpc is not installed; run: npm ci --prefix tests/interop/node")


class NodeStation:
    """The running station and what it has told so far."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.events: list[dict[str, Any]] = []

    async def expect(self, event: str, *, timeout: float = 20) -> dict[str, Any]:
        """Read on until the station tells *event*; fail with all that it told when it ends or falls silent before."""
        async with self._patience(timeout):
            while line := await self._next_line():
                self.events.append(json.loads(line))
                if self.events[-1]["event"] == event:
                    return self.events[-1]
        raise AssertionError(f"the station ended before {event!r}; it told: {self.events}; {await self._complaint()}")

    async def exit_code(self, *, timeout: float = 20) -> int:
        """Read what remains and return the exit code: 0 when the station got as far as it was told to."""
        async with self._patience(timeout):
            while line := await self._next_line():
                self.events.append(json.loads(line))
            return await self._process.wait()

    def told(self, event: str) -> list[dict[str, Any]]:
        """Return what has been read of one kind; ``told("invalid")`` are our breaches of a schema."""
        return [entry for entry in self.events if entry["event"] == event]

    @asynccontextmanager
    async def _patience(self, seconds: float) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(seconds):
                yield
        except TimeoutError:
            raise AssertionError(f"nothing more from the station for {seconds} s; it told: {self.events}") from None

    async def _next_line(self) -> bytes:
        assert self._process.stdout is not None
        return await self._process.stdout.readline()

    async def _complaint(self) -> str:
        assert self._process.stderr is not None
        return (await self._process.stderr.read()).decode(errors="replace")[-2000:]


@asynccontextmanager
async def node_station(
    url: str, identity: str, protocol: str, *, until: str, options: Mapping[str, str | Path], ask: bool = False
) -> AsyncIterator[NodeStation]:
    """Run the station for the length of the block.

    Args:
        url: the endpoint without the identity, for example ``wss://127.0.0.1:9443/ocpp``.
        until: ``booted``, ``certificate`` or ``closed``: where the station ends by itself with exit code 0.
        options: the program's other options: ``password_file``, ``trust``, ``cert``, ``key``, ``csr``, ``csr_key``,
            ``out``, ``serial``, ``timeout``.
        ask: send the CSR at once instead of waiting for a trigger.
    """
    arguments = ["--url", url, "--id", identity, "--protocol", protocol, "--until", until]
    for name, value in options.items():
        arguments += [f"--{name.replace('_', '-')}", str(value)]
    if ask:
        arguments.append("--ask")
    process = await asyncio.create_subprocess_exec(
        "node", str(FOLDER / "station.mjs"), *arguments,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        yield NodeStation(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
