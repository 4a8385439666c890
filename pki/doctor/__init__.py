"""The chain doctor: takes a heap of certificates, keys and bundles, and tells what it is and what ails it."""

from __future__ import annotations

from chargepki.pki.doctor.bundle import choose_chain, corrected_bundle
from chargepki.pki.doctor.examine import ChainReport, Diagnosis, ObjectDiagnosis, examine
from chargepki.pki.doctor.graph import Chain, Gap, Node
from chargepki.pki.doctor.intake import Heap, HeapFile, Limits
from chargepki.pki.doctor.keyring import RingKey
from chargepki.pki.doctor.parties import Opinion, Party
from chargepki.pki.doctor.report import to_json

__all__ = [
    "Chain",
    "ChainReport",
    "Diagnosis",
    "Gap",
    "Heap",
    "HeapFile",
    "Limits",
    "Node",
    "ObjectDiagnosis",
    "Opinion",
    "Party",
    "RingKey",
    "choose_chain",
    "corrected_bundle",
    "examine",
    "to_json",
]
