"""A server process of `benchmarks.fleet`, and what the kernel says that it takes."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Server"]


@dataclass(frozen=True, slots=True)
class Server:
    """A process that serves the fleet."""

    process: subprocess.Popen[str]
    port: int

    @property
    def cpu(self) -> float:
        """CPU seconds that it has used."""
        folder = Path(f"/proc/{self.process.pid}")
        # Nanoseconds where the kernel counts them: a tick of its clock is as long as five connections take.
        counts = [int((task / "schedstat").read_text().split()[0]) for task in (folder / "task").iterdir()]
        if any(counts):
            return sum(counts) / 1e9
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def resident(self) -> int:
        """Resident memory, octets."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) * 1024

    def stop(self) -> None:
        """End it."""
        self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)
        if self.process.stdout is not None:
            self.process.stdout.close()
