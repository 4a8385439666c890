"""The lists that `serve` answers: full, shard and delta, and none whose time is over."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from chargepki.pki.authority import Authority, IssueOrder, utc_now
from chargepki.pki.authority.artefacts import find_artefact
from chargepki.pki.authority.shards import CrlSettings
from chargepki.pki.services.artefacts import Artefacts
from chargepki.pki.services.http import Request
from testkit.authorities import make_csr


@pytest.mark.parametrize("path", ["/crl/t-sub@1.crl", "/crl/t-sub@1/1.crl", "/crl/t-sub@1-delta.crl"])
def test_every_kind_of_list_is_answered_with_its_bytes(authority: Authority, path: str) -> None:
    authority.configure_crls("t-sub", CrlSettings(10, 24))
    authority.issue(IssueOrder(ca="t-sub", profile="ocpp/charging-station", csr=make_csr()))
    authority.publish_lists("t-sub")
    answers = Artefacts(authority.inventory)
    request = Request(method="GET", target=path.encode())
    response = asyncio.run(answers.answer(request, path.encode(), is_current=True))
    found = find_artefact(authority.inventory, path, utc_now())
    assert found is not None and (response.status, response.body) == (200, found.data)
    assert ("Content-Type", "application/pkix-crl") in response.headers
    assert find_artefact(authority.inventory, path, utc_now() + timedelta(days=8)) is None
    assert find_artefact(authority.inventory, path, None) == found
    nothing = path.replace("t-sub", "t-none").encode()
    assert asyncio.run(answers.answer(request, nothing, is_current=True)).status == 404
