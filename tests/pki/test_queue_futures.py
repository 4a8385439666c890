"""What the authority answers when nobody waits for it any more is no error of the event loop."""

from __future__ import annotations

import asyncio
import gc
from types import SimpleNamespace
from typing import Any, cast

import pytest

from chargepki.pki import aio
from chargepki.pki.errors import PolicyRefusal


def test_a_refusal_that_nobody_waits_for_any_more_is_not_called_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    complaints: list[str] = []

    def refused(*_: object) -> None:
        raise PolicyRefusal("the template does not allow it")

    monkeypatch.setattr(aio, "answer_of", refused)
    watcher = SimpleNamespace(wait=lambda _seconds: False, close=lambda: None)
    inventory = cast("Any", SimpleNamespace(watch=lambda: watcher))

    async def story() -> None:
        asyncio.get_running_loop().set_exception_handler(
            lambda _loop, context: complaints.append(str(context["message"]))
        )
        queue = aio._Queue(inventory, lambda _order: cast("Any", SimpleNamespace(id="1")))
        ticket = await queue.submit(cast("Any", None))
        # As a station's flow does that is cancelled before it comes to its certificate.
        await asyncio.wait([ticket])
        assert ticket.done()
        del ticket
        await queue.aclose()
        gc.collect()
        await asyncio.sleep(0)

    asyncio.run(story())
    assert complaints == []
