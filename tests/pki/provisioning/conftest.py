"""Worlds of contracts, made once for a module; every test has a vehicle and contracts of its own."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chargepki.pki.exi import MessageSet
from testkit.contracts import ContractWorld, Vehicle, make_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ContractWorld]:
    made = make_world(_folder(tmp_path_factory))
    made.build(MessageSet.ISO15118_2)
    yield made
    made.authority.inventory.close()


def _folder(factory: pytest.TempPathFactory) -> Path:
    return factory.mktemp("contracts")


_numbers = itertools.count(1)


@pytest.fixture
def new_vehicle(world: ContractWorld) -> Callable[..., Vehicle]:
    """Make a vehicle with so many contracts."""

    def make(message_set: MessageSet = MessageSet.ISO15118_2, contracts: int = 1) -> Vehicle:
        number = next(_numbers)
        vehicle = world.vehicle(message_set, f"WAUABC{number:011d}D")
        for index in range(contracts):
            world.contract(vehicle, f"DE8AA{number:05d}{index:04d}", priority=index)
        return vehicle

    return make


@pytest.fixture
def vehicle(new_vehicle: Callable[..., Vehicle]) -> Vehicle:
    """A vehicle of ISO 15118-2 with one contract."""
    return new_vehicle()
