"""The container file of docs/deploy: its words fit the program, and its steps give an image that serves."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from testkit.command_line import CommandLine
from testkit.containerfile import Image, build, parse_containerfile
from testkit.layout import ROOT

CONTAINERFILE = ROOT / "docs" / "deploy" / "Containerfile"


def test_the_container_file_names_what_there_is(tmp_path: Path) -> None:
    instructions = parse_containerfile(CONTAINERFILE.read_text())
    by_name = {each.name: each for each in instructions}
    copied = [each.words()[:-1] for each in instructions if each.name == "COPY" and "--from" not in each.rest]
    assert all((ROOT / name).exists() for names in copied for name in names)
    # Every package, and everything that building a wheel reads.
    assert {"pki", "ocpp_security", "cli", "pyproject.toml", "hatch_build.py"} <= {n for names in copied for n in names}
    words = [*by_name["ENTRYPOINT"].words(), *by_name["CMD"].words()]
    assert Path(words[0]).name == "chargepki"
    # An unknown option would be refused before the help is shown.
    CommandLine(tmp_path)(*words[1:], "--help")
    compile(parse_health(by_name["HEALTHCHECK"].rest)[-1], "healthcheck", "exec")


def parse_health(rest: str) -> list[str]:
    (command,) = parse_containerfile("X " + rest.partition(" CMD ")[2])
    return command.words()


@pytest.fixture
def image(tmp_path: Path) -> Image:
    if os.getuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("a mount namespace needs root and unshare (Debian: util-linux)")
    return build(parse_containerfile(CONTAINERFILE.read_text()), ROOT, tmp_path / "image")


@pytest.mark.campaign
@pytest.mark.foreign
def test_campaign_the_steps_of_the_container_file_give_an_image_that_serves(image: Image, tmp_path: Path) -> None:
    home, secrets = image.path("/var/lib/chargepki"), image.path("/run/secrets")
    assert home.stat().st_uid == 10001
    shutil.rmtree(home)
    secrets.mkdir(parents=True)
    (secrets / "passphrase").write_text("a passphrase")
    # Volume and secret come from outside, as the first lines of the file say.
    run = CommandLine(tmp_path / "home", {"CHARGEPKI_PASSPHRASE_FILE": str(secrets / "passphrase")})
    (secrets / "passphrase").chmod(0o600)
    run("ca", "create", "c", "--profile", "ocpp/cso-root", "--subject", "CN=C,O=Acme,C=DE")
    shutil.copytree(tmp_path / "home", home)
    for path in (home, *home.rglob("*"), secrets / "passphrase"):
        os.chown(path, 10001, 10001)
    log = tmp_path / "log"
    with log.open("wb") as output:
        words = [*image.entrypoint, *image.command]
        process = subprocess.Popen(image.words(words), stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + 120
        while "every published artefact is there" not in log.read_text():
            assert time.monotonic() < deadline and process.poll() is None, log.read_text()
            time.sleep(0.2)
        image.run(image.health)
        status = Path(f"/proc/{process.pid}/status").read_text()
        assert "\nUid:\t10001\t10001" in status and "\nCapEff:\t0000000000000000" in status
    finally:
        process.terminate()  # the signal of STOPSIGNAL
        assert process.wait(60) == 0
    assert "Traceback" not in log.read_text()
