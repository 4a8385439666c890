"""Contracts for vehicles (ISO 15118-2 and -20): admission of vehicles, contracts, and the answer to their requests."""

from chargepki.pki.provisioning.anchors import NoCommonRoot
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
from chargepki.pki.provisioning.keeping import Admission, identify_vehicle, remove_vehicle, store_vehicle
from chargepki.pki.provisioning.request import RequestKind, SignedRequest, verify_request
from chargepki.pki.provisioning.response import AnswerTooLong
from chargepki.pki.provisioning.service import Answer, Channel, NoContract, Provisioner, Replayed
from chargepki.pki.provisioning.trust import Question, Standing
from chargepki.pki.provisioning.vehicle_certificates import admit_vehicle_certificate, is_vehicle_certificate
from chargepki.pki.provisioning.vehicles import RoleRoot, add_root, admit_vehicle, withdraw_root

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
    "NoCommonRoot",
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
    "admit_vehicle_certificate",
    "create_contract",
    "identify_vehicle",
    "is_vehicle_certificate",
    "list_live",
    "offer_contract",
    "remove_vehicle",
    "revoke_contract",
    "store_vehicle",
    "verify_request",
    "withdraw_offer",
    "withdraw_root",
]
