"""Variables of the simulated station: what may be read and written, in the words of each version (pure)."""

from __future__ import annotations

from typing import Any

import pytest

from chargepki.ocpp_security.station.device import PRIORITY, DeviceModel

SECRET = "correct-horse-16"


def device() -> DeviceModel:
    return DeviceModel({}, takes_password=lambda value: value == SECRET, takes_order=lambda value: value == "2,1")


def write(made: DeviceModel, component: str, name: str, value: str) -> tuple[str, str | None]:
    item = {"component": {"name": component}, "variable": {"name": name}, "attributeValue": value}
    answer, password = made.set_variables({"setVariableData": [item]})
    return answer["setVariableResult"][0]["attributeStatus"], password


def test_a01_fr_01_the_password_is_written_and_never_read() -> None:
    """Fact sheet 2.13 and 8.1: write-only, whatever asks for it."""
    made = device()
    assert write(made, "SecurityCtrlr", "BasicAuthPassword", SECRET) == ("Accepted", SECRET)
    assert made.change_configuration({"key": "AuthorizationKey", "value": SECRET}) == ("Accepted", SECRET)
    asked = {"component": {"name": "SecurityCtrlr"}, "variable": {"name": "BasicAuthPassword"}}
    (read,) = made.get_variables({"getVariableData": [asked]})["getVariableResult"]
    assert (read["attributeStatus"], "attributeValue" in read) == ("Rejected", False)
    assert SECRET not in str((made.get_configuration({}), made.values()))


@pytest.mark.parametrize("value", ["", "short", "x" * 501])
def test_tc_a_10_cs_a_password_that_cannot_be_used_is_rejected(value: str) -> None:
    """And none is handed on, so that the old one stays in use."""
    made = device()
    assert write(made, "SecurityCtrlr", "BasicAuthPassword", value) == ("Rejected", None)
    assert made.change_configuration({"key": "AuthorizationKey", "value": value}) == ("Rejected", None)


def test_the_profile_is_a_key_of_1_6_and_read_only_in_2_x() -> None:
    made = device()
    assert write(made, "SecurityCtrlr", "SecurityProfile", "3") == ("Rejected", None)
    (read,) = made.get_configuration({"key": ["SecurityProfile"]})["configurationKey"]
    assert read["readonly"] is False


@pytest.mark.parametrize(("value", "status"), [("2,1", "Accepted"), ("3", "Rejected"), ("", "Rejected")])
def test_b10_fr_01_and_fr_02_the_order_is_judged_before_it_is_kept(value: str, status: str) -> None:
    made = device()
    assert write(made, "OCPPCommCtrlr", "NetworkConfigurationPriority", value) == (status, None)
    assert made.values()[PRIORITY] == (value if status == "Accepted" else "")


@pytest.mark.parametrize("value", ["0", "101", "-1", "x", ""])
def test_attempts_without_end_or_none_are_refused(value: Any) -> None:
    assert write(device(), "OCPPCommCtrlr", "NetworkProfileConnectionAttempts", value)[0] == "Rejected"
