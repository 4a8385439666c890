"""Tests of chargepki.ocpp_security.versions."""

from __future__ import annotations

import pytest

from chargepki.ocpp_security import schemas
from chargepki.ocpp_security.errors import RpcErrorCode
from chargepki.ocpp_security.versions import OcppVersion, Role, rules_of, spell_error, takes_call

CODES_16 = {
    "NotImplemented", "NotSupported", "InternalError", "ProtocolError", "SecurityError", "FormationViolation",
    "PropertyConstraintViolation", "OccurenceConstraintViolation", "TypeConstraintViolation", "GenericError",
}  # fmt: skip


@pytest.mark.parametrize("code", RpcErrorCode)
def test_every_error_code_has_a_spelling_that_1_6_knows(code: RpcErrorCode) -> None:
    assert spell_error(OcppVersion.V16, code) in CODES_16


@pytest.mark.parametrize("code", RpcErrorCode)
def test_every_error_code_is_2_x_as_it_stands(code: RpcErrorCode) -> None:
    assert spell_error(OcppVersion.V201, code) == spell_error(OcppVersion.V21, code) == code.value


@pytest.mark.parametrize("version", OcppVersion)
def test_every_action_in_the_direction_tables_has_a_schema(version: OcppVersion) -> None:
    rules = rules_of(version)
    assert rules.from_station | rules.both_ways | rules.sends <= schemas.actions(version)


@pytest.mark.parametrize("version", OcppVersion)
def test_every_action_is_taken_by_one_end_only_except_data_transfer(version: OcppVersion) -> None:
    for action in schemas.actions(version):
        ends = [role for role in Role if takes_call(version, role, action)]
        assert len(ends) == (2 if action == "DataTransfer" else 1), action


@pytest.mark.parametrize("version", OcppVersion)
def test_certificates_are_asked_for_by_stations_and_given_by_the_csms(version: OcppVersion) -> None:
    assert takes_call(version, Role.CSMS, "SignCertificate")
    assert takes_call(version, Role.STATION, "CertificateSigned")
    assert not takes_call(version, Role.STATION, "SignCertificate")


def test_only_2_1_has_the_message_types_5_and_6() -> None:
    assert [{5, 6} <= rules_of(version).message_types for version in OcppVersion] == [False, False, True]
