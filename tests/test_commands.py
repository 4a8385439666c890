"""The program that stands for `chargepki` in many tests is a process as the installed one is (`testkit.commands`)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from chargepki.pki import names
from testkit.commands import INSTALLED, forked_program, forked_python
from testkit.requests import make_csr

CHECK = ("csr", "check", "-", "--profile", "ocpp/charging-station", "--json")


@pytest.fixture(params=["installed", "forked"])
def program(request: pytest.FixtureRequest) -> Path:
    """Each of the two, to be compared by the same expectations."""
    return INSTALLED if request.param == "installed" else forked_program()


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """The folder that the command works in, and nobody else."""
    folder = tmp_path / "here"
    folder.mkdir()
    return folder


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def at_work_in(folder: Path) -> set[int]:
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").readlink() == folder:
                found.add(int(process.name))
        except OSError:  # it has ended, or is somebody else's
            continue
    return found


def test_it_has_the_input_output_folder_variables_and_mask_of_its_caller(program: Path, here: Path) -> None:
    variables = {**os.environ, "CHARGEPKI_HOME": "made", "CHARGEPKI_PASSPHRASE_FILE": "pass"}
    (here / "pass").write_text("correct horse")
    (here / "pass").chmod(0o600)
    for arguments in (
        ("ca", "create", "r", "--profile", "ocpp/cso-root", "--subject", "CN=R,O=R"),
        ("ca", "chain", "r", "--out", "root.pem"),
    ):
        made = subprocess.run([str(program), *arguments], cwd=here, env=variables, check=False, umask=0o027)
        assert made.returncode == 0
    assert (here / "made" / "inventory.db").exists()
    assert (here / "root.pem").stat().st_mode & 0o777 == 0o640
    csr = make_csr(names.parse_rdns("CN=CS-0001,O=Acme Charging"))
    judge = [str(program), *CHECK]
    judged = subprocess.run(judge, cwd=here, env=variables, input=csr, capture_output=True, check=False)
    assert (judged.returncode, judged.stderr) == (0, b"")
    assert b"CS-0001" in judged.stdout


def test_it_ends_with_the_code_or_the_signal_of_the_command(program: Path, here: Path) -> None:
    refused = subprocess.run([program, *CHECK], cwd=here, input=b"no CSR", capture_output=True, check=False)
    assert refused.returncode not in (0, 70)
    assert b"Traceback" not in refused.stderr
    with subprocess.Popen([program, *CHECK], cwd=here, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as reading:
        reading.terminate()
        assert reading.wait(60) == -signal.SIGTERM


def test_nothing_is_left_of_it_when_it_is_killed(program: Path, here: Path) -> None:
    with subprocess.Popen([program, *CHECK], cwd=here, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as reading:
        # The program that stands for it, and the command itself.
        wait_for(lambda: len(at_work_in(here)) == (1 if program == INSTALLED else 2))
        reading.kill()
        assert reading.wait(60) == -signal.SIGKILL
        wait_for(lambda: not at_work_in(here))


@pytest.mark.parametrize("python", ["installed", "forked"])
def test_a_script_is_run_as_the_interpreter_runs_it(python: str, tmp_path: Path) -> None:
    interpreter = sys.executable if python == "installed" else str(forked_python())
    (tmp_path / "beside.py").write_text("print('beside')")
    (tmp_path / "file.py").write_text("import beside, sys; print(__name__, sys.argv[1:]); sys.exit('no')")
    for arguments, code, out, error in (
        (("-c", "import os; os.kill(os.getpid(), 9)"), -signal.SIGKILL, b"", b""),
        (("-c", "import sys; print(__name__, sys.argv); exit(7)", "a", "-b"), 7, b"__main__ ['-c', 'a', '-b']\n", b""),
        (("-c", "1 / 0"), 1, b"", b"ZeroDivisionError: division by zero\n"),
        ((str(tmp_path / "file.py"), "x"), 1, b"beside\n__main__ ['x']\n", b"no\n"),
        (("-m", "json.tool", "--help"), 0, b"", b""),
    ):
        done = subprocess.run([interpreter, *arguments], capture_output=True, check=False)
        assert done.returncode == code, done.stderr
        assert done.stdout == out or (arguments[0] == "-m" and done.stdout.startswith(b"usage: "))
        assert done.stderr.endswith(error)
