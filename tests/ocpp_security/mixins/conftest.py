"""One workspace for all of these tests: making the hierarchy costs more than most of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from chargepki.pki.inventory import verify_log
from testkit.csms_rig import Rig


@pytest.fixture(scope="session")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with Rig(tmp_path_factory.mktemp("csms")) as opened:
        yield opened
        # Whatever the tests did, the log explains every row.
        assert verify_log(opened.inventory, checkpoint=None, pinned_keys=[opened.log_key.public]).findings == ()
