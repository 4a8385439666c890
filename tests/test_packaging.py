"""What a user installs: a wheel that holds the three packages under one name, the same however often it is built."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from testkit.layout import PACKAGES, ROOT, tracked_files

pytestmark = pytest.mark.slow

EPOCH = "1750000000"


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Build wheel and sdist with the tool of `make wheel`, which itself builds twice and compares."""
    folder = tmp_path_factory.mktemp("dist")
    done = subprocess.run(
        [sys.executable, "tools/build_dist.py", str(folder)],
        cwd=ROOT, env={**os.environ, "SOURCE_DATE_EPOCH": EPOCH}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "built twice, identical" in done.stderr
    return next(folder.glob("*.whl")), next(folder.glob("*.tar.gz"))


def test_wheel_holds_every_module_under_the_long_name_and_nothing_else(archives: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(archives[0]) as wheel:
        installed = {name for name in wheel.namelist() if ".dist-info/" not in name}
    expected = {
        f"chargepki/{path}"
        for path in tracked_files()
        if path.parts[0] in PACKAGES and path.suffix in {".py", ".typed"}
    }
    assert expected - installed == set()
    assert {name for name in installed if not name.startswith(tuple(f"chargepki/{p}/" for p in PACKAGES))} == set()


def test_wheel_declares_the_command_and_its_licence(archives: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(archives[0]) as wheel:
        texts = {name.partition(".dist-info/")[2]: name for name in wheel.namelist() if ".dist-info/" in name}
        assert "chargepki = chargepki.cli.main:main" in wheel.read(texts["entry_points.txt"]).decode()
        assert "licenses/LICENSE" in texts


def test_sdist_holds_what_its_tests_and_its_build_need_and_no_links(archives: tuple[Path, Path]) -> None:
    with tarfile.open(archives[1]) as sdist:
        members = sdist.getmembers()
    names = {member.name.partition("/")[2] for member in members}
    assert not [member.name for member in members if member.issym() or member.islnk()]
    assert {"Makefile", "hatch_build.py", "requirements/dev.txt", "pki/errors.py", "tests/conftest.py"} <= names
    assert not [
        name for name in names if name.startswith((".editable", ".venv", "chargepki/")) or "node_modules" in name
    ]


def test_wheel_built_from_the_sdist_is_the_same_wheel(archives: tuple[Path, Path], tmp_path: Path) -> None:
    wheel, sdist = archives
    with tarfile.open(sdist) as archive:
        # Our own archive; Debian's Python 3.11.2 does not know the filter argument yet.
        archive.extractall(tmp_path / "source")
    (unpacked,) = (tmp_path / "source").iterdir()
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", str(tmp_path / "dist"), str(unpacked)],
        env={**os.environ, "SOURCE_DATE_EPOCH": EPOCH}, stdout=subprocess.DEVNULL, check=True,
    )  # fmt: skip
    assert (tmp_path / "dist" / wheel.name).read_bytes() == wheel.read_bytes()


def test_installed_wheel_works_without_the_repository(archives: tuple[Path, Path], tmp_path: Path) -> None:
    with zipfile.ZipFile(archives[0]) as wheel:
        wheel.extractall(tmp_path)
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); "
        # The editable install's own path would otherwise be found as well.
        "sys.path[:] = [entry for entry in sys.path if not entry.endswith('.editable')]; "
        "import chargepki.pki, chargepki.ocpp_security, chargepki.cli.main as main; print(main.__file__)"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", script, str(tmp_path)],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert Path(done.stdout.strip()) == tmp_path / "chargepki" / "cli" / "main.py"


def test_this_environment_is_an_editable_install_of_this_repository() -> None:
    import chargepki.pki

    assert chargepki.pki.__file__ is not None
    assert Path(chargepki.pki.__file__).resolve() == ROOT / "pki" / "__init__.py"


def test_requirement_files_pin_with_hashes_and_name_no_index() -> None:
    for name in ("boot", "dev", "runtime"):
        text = (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
        pins = [line for line in text.splitlines() if line and not line.startswith((" ", "#"))]
        assert pins
        assert all("==" in line and line.endswith("\\") for line in pins), name
        assert text.count("--hash=sha256:") >= len(pins)
        assert "index-url" not in text
        assert "://" not in text
