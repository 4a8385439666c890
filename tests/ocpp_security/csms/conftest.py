"""One CSMS workspace per test module: making the hierarchy costs more than most tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from testkit.csms_rig import Rig


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with Rig(tmp_path_factory.mktemp("csms")) as opened:
        yield opened


@pytest.fixture(params=["asyncio", "uvloop"])
def loop(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name
