"""Works that are handed to a thread in groups: nobody is forgotten, nobody pays for another's error."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest

from chargepki.ocpp_security.csms.offload import Offload, Together


def test_a_lone_work_goes_at_once_and_many_go_together_in_their_order() -> None:
    groups: list[list[int]] = []

    def do(works: Sequence[int]) -> list[int | Exception]:
        groups.append(list(works))
        return [ValueError(work) if work == 3 else work * 2 for work in works]

    async def story() -> None:
        offload = Offload(threads=2)
        together = Together(offload, do, pause=0.02, most=4)
        # All in one turn of the loop: the first is alone when it comes, whatever time its thread takes.
        results = await asyncio.gather(*(together.run(work) for work in range(1, 9)), return_exceptions=True)
        assert [str(result) if isinstance(result, ValueError) else result for result in results] == [
            2, 4, "3", 8, 10, 12, 14, 16,
        ]  # fmt: skip
        assert await together.run(9) == 18
        offload.close()

    asyncio.run(story())
    assert groups == [[1], [2, 3, 4, 5], [6, 7, 8], [9]]


def test_in_turn_no_group_starts_before_the_one_before_it_is_through() -> None:
    running, most = 0, 0
    lock = threading.Lock()

    def do(works: Sequence[int]) -> list[int | Exception]:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        threading.Event().wait(0.03)
        with lock:
            running -= 1
        return list(works)

    async def story() -> None:
        offload = Offload()
        together = Together(offload, do, pause=0.001, in_turn=True, most=2)
        assert await asyncio.gather(*(together.run(work) for work in range(7))) == list(range(7))
        offload.close()

    asyncio.run(story())
    assert most == 1


def test_an_error_of_the_whole_group_and_a_closed_pool_reach_everybody_and_a_cancelled_caller_harms_nobody() -> None:
    def do(works: Sequence[int]) -> list[int | Exception]:
        if 0 in works:
            raise LookupError("no group")
        return list(works)

    async def story() -> None:
        offload = Offload()
        together = Together(offload, do, pause=0.01)
        first = asyncio.create_task(together.run(1))
        await asyncio.sleep(0)
        gone, kept = asyncio.create_task(together.run(2)), asyncio.create_task(together.run(3))
        await asyncio.sleep(0)
        gone.cancel()
        assert (await first, await kept) == (1, 3)
        waiting = await asyncio.gather(together.run(0), together.run(4), return_exceptions=True)
        assert isinstance(waiting[0], LookupError)
        assert isinstance(waiting[1], LookupError) or waiting[1] == 4
        offload.close()
        with pytest.raises(RuntimeError):
            await together.run(5)

    asyncio.run(story())
