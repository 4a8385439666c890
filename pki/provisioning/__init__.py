"""Contracts for vehicles (ISO 15118-2 and -20): admission of vehicles, contracts, and the answer to their requests."""

from chargepki.pki.provisioning.contracts import (
    Revoked,
    create_contract,
    list_live,
    offer_contract,
    revoke_contract,
    withdraw_offer,
)
from chargepki.pki.provisioning.cps import CpsSigner, CpsSource, FixedCps, IssuedCps
from chargepki.pki.provisioning.judgement import Examined, UnknownVehicle
from chargepki.pki.provisioning.request import RequestKind, SignedRequest, verify_request
from chargepki.pki.provisioning.response import AnswerTooLong
from chargepki.pki.provisioning.service import Answer, Channel, NoContract, Provisioner, Replayed
from chargepki.pki.provisioning.trust import Question, Standing
from chargepki.pki.provisioning.vehicles import (
    Admission,
    RoleRoot,
    add_root,
    admit_vehicle,
    remove_vehicle,
    store_vehicle,
    withdraw_root,
)

__all__ = [
    "Admission",
    "Answer",
    "AnswerTooLong",
    "Channel",
    "CpsSigner",
    "CpsSource",
    "Examined",
    "FixedCps",
    "IssuedCps",
    "NoContract",
    "Provisioner",
    "Question",
    "Replayed",
    "RequestKind",
    "Revoked",
    "RoleRoot",
    "SignedRequest",
    "Standing",
    "UnknownVehicle",
    "add_root",
    "admit_vehicle",
    "create_contract",
    "list_live",
    "offer_contract",
    "remove_vehicle",
    "revoke_contract",
    "store_vehicle",
    "verify_request",
    "withdraw_offer",
    "withdraw_root",
]
