"""The plain `ocpp` package, which logs whole messages, logs no secret through `RedactingFilter`."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from typing import Any

import ocpp.messages
import ocpp.v16
import ocpp.v201
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ocpp.routing import on

from chargepki.ocpp_security.redacting import RedactingFilter, install_redaction

SECRET = "correct-horse-battery"


class Lines(logging.Handler):
    """Keeps what would be written to a log file, tracebacks included."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@pytest.fixture
def lines() -> Iterator[Lines]:
    handler = Lines()
    logger = logging.getLogger("redacting-test")
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


def logger_with_filter() -> logging.Logger:
    logger = logging.getLogger("redacting-test")
    install_redaction(logger)
    install_redaction(logging.LoggerAdapter(logger, {}))
    assert sum(isinstance(one, RedactingFilter) for one in logger.filters) == 1
    return logger


class Wire:
    """A connection of the package that answers nothing."""

    async def send(self, message: str) -> None:
        del message


class Handlers(ocpp.v201.ChargePoint):  # type: ignore[misc]  # untyped base
    @on("DataTransfer")  # type: ignore[untyped-decorator]  # no types
    async def on_data(self, **fields: Any) -> Any:
        raise ValueError(f"cannot digest {fields}")


FRAMES = (
    json.dumps([2, "1", "ChangeConfiguration", {"key": "AuthorizationKey", "value": SECRET}]),
    json.dumps([2, "1", "BootNotification", {"reason": "PowerUp", "basicAuthPassword": SECRET}]),
    json.dumps([2, "1", "DataTransfer", {"vendorId": "v", "data": json.dumps({"password": SECRET})}]),
    json.dumps([2, "1", "NoSuchAction", {"password": SECRET}]),
    json.dumps([3, "1", {"password": SECRET}]),
    json.dumps([4, "1", "InternalError", "no", {"password": SECRET}]),
    json.dumps([9, "1", {"password": SECRET}]),
    json.dumps({"password": SECRET}),
    '[2,"1","ChangeConfiguration",{"key":"AuthorizationKey","value":"' + SECRET,
)


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("kind", [Handlers, ocpp.v16.ChargePoint])
def test_no_message_shows_its_secret_in_the_package_s_own_log(kind: Any, frame: str, lines: Lines) -> None:
    ocpp.messages.ASYNC_VALIDATION = False
    logger = logger_with_filter()
    charge_point = kind("CS1", Wire(), logger=logger)
    logger.info("%s: receive message %s", "CS1", frame)
    asyncio.run(charge_point.route_message(frame))
    assert lines.lines
    assert SECRET not in "\n".join(lines.lines)


def test_a_call_that_is_never_answered_hides_its_password(lines: Lines) -> None:
    ocpp.messages.ASYNC_VALIDATION = False
    logger = logger_with_filter()
    charge_point = ocpp.v16.ChargePoint("CS1", Wire(), response_timeout=0.01, logger=logger)
    request = ocpp.v16.call.ChangeConfiguration(key="AuthorizationKey", value=SECRET)
    logger.info("calling %s", request)
    with pytest.raises(asyncio.TimeoutError):
        asyncio.run(charge_point.call(request))
    text = "\n".join(lines.lines)
    assert "AuthorizationKey" in text and "[secret]" in text
    assert SECRET not in text


PLACES = st.sampled_from(
    [
        lambda secret: {"key": "AuthorizationKey", "value": secret},
        lambda secret: {"basic_auth_password": secret},
        lambda secret: {"set_variable_data": [{"attribute_value": secret, "variable": {"name": "BasicAuthPassword"}}]},
        lambda secret: {"setVariableData": [{"attributeValue": secret, "variable": {"name": "BasicAuthPassword"}}]},
        lambda secret: {"connection_data": {"vpn": {"server": "s", "password": secret, "key": "k"}}},
        lambda secret: {"apn": {"apn_password": secret, "sim_pin": 1}},
    ]
)


@settings(max_examples=150)
@given(place=PLACES, rest=st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=5, max_size=30))
def test_every_secret_is_hidden_wherever_and_however_a_payload_is_logged(place: Any, rest: str) -> None:
    secret = f"Zq9{rest}"
    payload = place(secret)
    handler = Lines()
    logger = logging.Logger("apart")
    logger.addHandler(handler)
    install_redaction(logger)
    logger.info("handled %s for %s", payload, f"station with {secret}")
    logger.info("only %s", payload)
    logger.info("%s", json.dumps([2, "1", "SetVariables", payload]))
    logger.info(json.dumps(payload))
    try:
        raise ValueError(f"cannot digest {payload}")
    except ValueError:
        logger.exception("failed on %s", payload)
    assert len(handler.lines) == 5
    assert secret not in "\n".join(handler.lines)


def test_what_holds_no_secret_stays_readable(lines: Lines) -> None:
    logger = logger_with_filter()
    logger.info("%s: %d of %s (%.1f)", "CS1", 5, {"status": "Accepted"}, 0.5)
    logger.info("%(station)s is %(state)s", {"station": "CS1", "state": "up"})
    logger.info("100% plain")
    logger.info("nothing")
    assert lines.lines == ['CS1: 5 of {"status":"Accepted"} (0.5)', "CS1 is up", "100% plain", "nothing"]
