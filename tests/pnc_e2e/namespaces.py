"""Two private network namespaces with a cable between them: the charge point and its back end, and the vehicle."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from testkit.layout import ROOT

__all__ = ["CHARGE_POINT", "SIMULATORS", "VEHICLE", "enter", "hindrance", "plug_in", "vehicle_command"]

CHARGE_POINT: Final = "v-secc"
VEHICLE: Final = "v-ev"
SIMULATORS: Final = ROOT / ".pnc" / "bin" / "python"
_ADDRESS_SECONDS: Final = 30.0
_COMMANDS: Final = {"java": "default-jre-headless", "unshare": "util-linux", "nsenter": "util-linux", "ip": "iproute2"}


def _unshare() -> list[str]:
    return ["unshare", *(() if os.geteuid() == 0 else ("--user", "--map-root-user")), "--net"]


def hindrance() -> str | None:
    """Return why no session can run on this machine, or ``None``."""
    for command, package in _COMMANDS.items():
        if shutil.which(command) is None:
            return f"{command} is not installed; on Debian: apt-get install {package}"
    if not SIMULATORS.is_file():
        return "the simulators are not there; run: make pnc-e2e"
    trial = "ip link set lo up && ip link add v-a type veth peer name v-b && ip link set v-a up && ip -6 route show"
    done = subprocess.run([*_unshare(), "sh", "-c", trial], capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        return f"no private network namespace: {said[-1] if said else 'unshare fails'}"
    if not Path("/proc/net/if_inet6").exists():
        return "this kernel has no IPv6, which ISO 15118 needs"
    return None


def enter(arguments: Sequence[str]) -> None:
    """Go on in a namespace of our own; does not return."""
    os.execvp("unshare", [*_unshare(), "--", sys.executable, "-m", "tests.pnc_e2e", "--inside", *arguments])


def vehicle_command(*command: str) -> list[str]:
    """Return the command that runs *command* in a second namespace, with a loopback of its own."""
    return ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh", *command]


def plug_in(vehicle: int) -> None:
    """Lay the cable to the namespace of the process *vehicle*, and wait until both ends have their address."""
    inside = ["nsenter", f"--net=/proc/{vehicle}/ns/net"]
    _run("ip", "link", "add", "name", CHARGE_POINT, "type", "veth", "peer", "name", VEHICLE, "netns", str(vehicle))
    for command, interface in (((), CHARGE_POINT), (inside, VEHICLE)):
        _run(*command, "ip", "link", "set", interface, "up")
    for command, interface in (((), CHARGE_POINT), (inside, VEHICLE)):
        _await_address(list(command), interface)


def own_loopback() -> None:
    """Bring up the loopback of this namespace."""
    _run("ip", "link", "set", "lo", "up")


def _await_address(command: list[str], interface: str) -> None:
    """Wait for a link-local address that no neighbour can object to any more."""
    until = time.monotonic() + _ADDRESS_SECONDS
    while time.monotonic() < until:
        said = _run(*command, "ip", "-6", "-o", "addr", "show", "dev", interface)
        if "fe80:" in said and "tentative" not in said:
            return
        time.sleep(0.05)
    raise RuntimeError(f"{interface} got no link-local address")


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
