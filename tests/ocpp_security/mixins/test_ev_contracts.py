"""A CSMS of a team's own gets contracts for vehicles answered by its provider, without a handler."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest

from chargepki.ocpp_security import pnc_transfer
from chargepki.ocpp_security.ev_certificate import ContractAnswer, ContractRequest
from chargepki.ocpp_security.status import StatusGateway
from testkit.csms_rig import PASSWORD, Rig, run_on
from testkit.ocpp_peers import open_socket
from testkit.own_csms import own_csms


class Pool:
    """A contract certificate pool of somebody else's."""

    async def provide(self, request: ContractRequest, status: StatusGateway) -> ContractAnswer:
        return ContractAnswer(b"for " + request.station.encode(), 1)


PAYLOAD = {
    "iso15118SchemaVersion": "urn:iso:15118:2:2013:MsgDef",
    "action": "Install",
    "exiRequest": base64.b64encode(b"\x80").decode(),
}


@pytest.mark.parametrize("version", ["ocpp1.6", "ocpp2.0.1", "ocpp2.1"])
def test_the_mixin_asks_the_provider(rig: Rig, version: str) -> None:
    identity = f"EV-{version}"
    rig.add_station(identity)
    action, payload = "Get15118EVCertificate", dict[str, Any](PAYLOAD)
    if version == "ocpp1.6":
        action, payload = "DataTransfer", pnc_transfer.wrap(action, payload)

    async def ask(provider: Pool | None) -> Any:
        async with own_csms(rig, provider=provider) as team:
            socket = await open_socket(
                team.url, identity, protocols=(version,), password=PASSWORD, tls=rig.client_tls()
            )
            await socket.send(json.dumps([2, "1", action, payload]))
            answer = json.loads(await asyncio.wait_for(socket.recv(), 60))
            await socket.close()
            return answer

    async def story() -> None:
        answer = (await ask(Pool()))[2]
        if version == "ocpp1.6":
            answer = json.loads(answer["data"])
        assert answer["status"] == "Accepted"
        assert base64.b64decode(answer["exiResponse"]) == b"for " + identity.encode()
        assert answer.get("remainingContracts") == (1 if version == "ocpp2.1" else None)
        # Without one it is the team's own affair, and this team has no handler.
        assert (await ask(None))[0] == 4

    run_on("asyncio", story())
