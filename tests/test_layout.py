"""The packages lie where their names say, are typed, export what they claim, and name no machine."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from testkit.layout import PACKAGES, ROOT, module_names, tracked_files

# Written with a bar inside, which is taken out below, so that this file does not contain what it forbids.
REGISTRY_HOSTS = tuple(
    host.replace("|", "")
    for host in ("py|pi.org", "python|hosted.org", "npm|js.org", "deb.deb|ian.org", "maven.apa|che")
)
MACHINE_PATHS = re.compile(r"(?<![\w.<>-])/(?:w%ork|f%arm|r%oot)/|/t%mp/[a-z]".replace("%", ""))
FOREIGN_TEXTS = {Path("LICENSE")}


def test_no_bare_package_is_imported_in_this_process() -> None:
    assert not {name.partition(".")[0] for name in sys.modules} & set(PACKAGES)


def test_importing_every_module_imports_no_bare_package() -> None:
    script = (
        "import importlib, json, sys\n"
        f"for name in {list(module_names())!r}: importlib.import_module(name)\n"
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not set(json.loads(done.stdout)) & set(PACKAGES)


def test_chargepki_itself_is_a_namespace_without_code() -> None:
    spec = find_spec("chargepki")
    assert spec is not None
    assert spec.origin is None, f"{spec.origin} would shadow or replace another distribution's part of the namespace"
    assert not (ROOT / "chargepki").exists()


@pytest.mark.parametrize("package", PACKAGES)
def test_package_is_marked_as_typed(package: str) -> None:
    assert (ROOT / package / "py.typed").is_file()


@pytest.mark.parametrize("name", module_names())
def test_exported_names_are_present_and_documented(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__, f"{name} does not say its responsibility in a docstring"
    exported = getattr(module, "__all__", None)
    if exported is None:
        return
    # Their order is ruff's business (RUF022: constants, classes, functions).
    assert len(set(exported)) == len(exported)
    missing = [entry for entry in exported if not hasattr(module, entry)]
    assert not missing, f"{name}.__all__ names what is not there: {missing}"
    undocumented = [
        entry
        for entry in exported
        if (inspect.isfunction(value := getattr(module, entry)) or inspect.isclass(value))
        and value.__module__.startswith("chargepki.")
        and not (value.__doc__ or "").strip()
    ]
    assert not undocumented, f"public names of {name} without a docstring: {undocumented}"


def test_code_and_tests_import_the_long_name() -> None:
    bare = []
    # To parse what cannot hold one takes seconds.
    suspicious = re.compile(rf"\b(?:import|from)\b.*(?<![.\w])(?:{'|'.join(PACKAGES)})\b")
    for path in (path for path in tracked_files() if path.suffix == ".py"):
        text = (ROOT / path).read_text(encoding="utf-8")
        if suspicious.search(text.replace("\\\n", " ")) is None:
            continue
        for node in ast.walk(ast.parse(text)):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            bare += [f"{path}: {name}" for name in names if name.partition(".")[0] in PACKAGES]
    assert not bare


def test_tracked_files_name_no_machine_and_no_registry() -> None:
    found = []
    for path in tracked_files():
        content = (ROOT / path).read_bytes()
        if path in FOREIGN_TEXTS or b"\0" in content:
            continue
        for number, line in enumerate(content.decode("utf-8", "replace").splitlines(), start=1):
            if MACHINE_PATHS.search(line) or any(host in line for host in REGISTRY_HOSTS):
                found.append(f"{path}:{number}: {line.strip()[:120]}")
    assert not found, "\n".join(found)


def test_no_private_key_is_in_the_repository() -> None:
    """Keys that everybody has end up in production: ours are made at run time."""
    block = re.compile(rb"BEGIN [A-Z ]*PRIVATE KEY-----(?:\\[rn]|\s)+(?:[A-Za-z0-9+/=]|\\[rn]|\s){60,}-----END")
    assert block.search(b"-----BEGIN EC PRIVATE KEY-----\n" + b"M" * 64 + b"\n-----END EC PRIVATE KEY-----")
    kept = {".key", ".p12", ".pfx", ".jks"}
    found = [path for path in tracked_files() if path.suffix in kept or block.search((ROOT / path).read_bytes())]
    assert found == []


def test_links_of_an_editable_install_are_never_committed() -> None:
    assert not [path for path in tracked_files() if path.parts[0] == ".editable" or (ROOT / path).is_symlink()]
