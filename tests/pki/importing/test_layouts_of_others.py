"""What each file is for, under the names that the repositories of four charging stacks really have.

The names were read in the public repositories EcoG-io/iso15118 (``iso15118/shared/pki/create_certs.sh``: what it
writes, ``--keysight`` included), EVerest (``libevse-security``, ``everest-demo``), thoughtworks/maeve-csms
(``config/certificates``, its end-to-end tests) and citrineos/citrineos-core (``Server/src/assets/certificates``).
"""

from __future__ import annotations

import pytest

from chargepki.pki.importing.layouts import role_of

ECOG = {
    "ca/v2g/V2G_ROOT_CA.pem": "v2g-root",
    "ca/v2g/V2G_ROOT_CA.der": "v2g-root",
    "ca/csms/CPO_SUB_CA1.pem": "cpo-sub1",
    "ca/csms/CPO_SUB_CA1_LEAF.der": "cpo-sub1",
    "ca/csms/CPO_SUB_CA2_LEAF.der": "cpo-sub2",
    "ca/cso/CPO_SUB_CA2.pem": "cpo-sub2",
    "client/cso/SECC_LEAF.pem": "secc",
    "client/cso/CPO_CERT_CHAIN.pem": "secc-chain",
    "ca/oem/OEM_ROOT_CA.pem": "oem-root",
    "ca/oem/OEM_SUB_CA1.der": "oem-sub1",
    "ca/oem/OEM_SUB_CA2.pem": "oem-sub2",
    "client/oem/OEM_LEAF.pem": "oem-provisioning",
    "ca/oem/OEM_CERT_CHAIN.pem": "oem-chain",
    "client/oem/OEM_CERT_CHAIN.p12": "oem-chain",
    "ca/oem/INTERMEDIATE_OEM_CA.pem": "oem-sub-cas",
    "client/oem/EVCC_KEYSTORE.jks": "oem-chain",
    "client/oem/EVCC_TRUSTSTORE.jks": "ev-trust",
    "ca/mo/MO_ROOT_CA.pem": "mo-root",
    "ca/mo/MO_SUB_CA1.pem": "mo-sub1",
    "ca/mo/MO_SUB_CA2.der": "mo-sub2",
    "ca/mo/INTERMEDIATE_MO_CA_CERTS.pem": "mo-sub-cas",
    "client/mo/MO_LEAF.der": "contract",
    "client/mo/MO_CERT_CHAIN.p12": "contract-chain",
    "ca/cps/CPS_SUB_CA1.pem": "cps-sub1",
    "ca/cps/CPS_SUB_CA2.pem": "cps-sub2",
    "ca/cps/INTERMEDIATE_CPS_CA_CERTS.pem": "cps-sub-cas",
    "client/cps/CPS_LEAF.pem": "cps",
    "client/cps/CPS_CERT_CHAIN.p12": "cps-chain",
    "pki-ext/certs/sut_secc/PKI-Ext_CRT_V2G_ROOT_VALID.pem": "v2g-root",
    "pki-ext/certs/sut_secc/PKI-Ext_CRT_CPS_SUB1_VALID.der": "cps-sub1",
    "pki-ext/certs/sut_secc/PKI-Ext_CRT_CPO_SUB2_VALID.pem": "cpo-sub2",
    "pki-ext/certs/sut_secc/PKI-Ext_CRT_EVSE_LEAF_VALID.pem": "secc",
    "pki-ext/certs/sut_secc/PKI-Ext_CRT_OEM_ROOT_VALID.pem": "oem-root",
    "pki-ext/certs/sut_secc/PKI-Ext_CRT_MO_SUB1_VALID.pem": "mo-sub1",
    "pki-ext/certs/sut_secc/PKI-Ext_CRT_CONTRACT_LEAF_VALID.pem": "contract",
    "certs/v2gRootCACert.pem": "v2g-root",
    "certs/cpoSubCA1Cert.der": "cpo-sub1",
    "certs/seccLeafCert.pem": "secc",
    "certs/contractLeafCert.der": "contract",
    "certs/IntermediateOEMCACerts.pem": "oem-sub-cas",
}
EVEREST = {
    "ca/v2g/V2G_ROOT_CA.pem": "v2g-root",
    "ca/mo/MO_ROOT_CA.pem": "mo-root",
    "ca/csms/CSMS_ROOT_CA.pem": "csms-root",
    "ca/csms/SOMETHING_ELSE.pem": "csms-trust",
    "ca/mf/MF_ROOT_CA.pem": "manufacturer-root",
    "client/csms/CSMS_LEAF.pem": "charging-station",
    "client/csms/csms.pem": "csms-client",
    "client/cso/SECC_LEAF_20260101.pem": "secc",
    "ca/vehicle/VEHICLE_SUB_CA1.pem": "vehicle-sub1",
    "ca/vehicle/VEHICLE_SUB_CA2.pem": "vehicle-sub2",
    "client/vehicle/VEHICLE_LEAF.pem": "vehicle",
    "client/vehicle/VEHICLE_CERT_CHAIN.pem": "vehicle-chain",
    "client/vehicle/trust.pem": "vehicle-client",
    # Of a file whose name says nothing the folder tells.
    **{
        f"ca/{folder}/17642_0.pem": f"{role}-trust"
        for folder, role in (("v2g", "v2g"), ("cso", "cso"), ("mf", "manufacturer"), ("mo", "mo"), ("oem", "oem"))
    },
    **{f"ca/{folder}/17642_0.pem": f"{folder}-trust" for folder in ("csms", "cps", "vehicle")},
    **{f"client/{folder}/17642_0.pem": f"{folder}-client" for folder in ("csms", "v2g", "mo", "oem", "cps")},
    "client/cso/17642_0.pem": "secc",
}
MAEVE = {
    "config/certificates/csms.pem": "csms",
    "config/certificates/cpo_sub_ca1.pem": "cpo-sub1",
    "config/certificates/cpo_sub_ca2.pem": "cpo-sub2",
    "config/certificates/root-V2G-cert.pem": "v2g-root",
    "config/certificates/root-MO-cert.pem": "mo-root",
    "config/certificates/trust.pem": "station-trust",
    "config/certificates/HUBOpenProvCert001.pem": "oem-provisioning",
    "config/certificates/HUBOpenProvCert005-EMP77TWTW99999-Revoked.pem": "oem-provisioning",
}
CITRINEOS = {
    "Server/src/assets/certificates/certChain.pem": "csms-chain",
    "Server/src/assets/certificates/rootCertificate.pem": "csms-root",
    "Server/src/assets/certificates/mtlsCARootCrtSample.pem": "station-root",
    "Server/src/assets/certificates/tlsCertificateSample.pem": "csms",
}
NOBODY = ("trust.pem", "etc/ssl/trust.pem", "csms.pem", "a/certChain.pem", "x/rootCertificate.pem", "hub/x.pem")


@pytest.mark.parametrize("names", [ECOG, EVEREST, MAEVE, CITRINEOS], ids=["ecog", "everest", "maeve", "citrineos"])
def test_each_file_of_a_stack_has_its_role(names: dict[str, str]) -> None:
    for form in ("{}", "/opt/stack/{}", "backup.tar.xz!dist/etc/everest/certs/{}"):
        assert {name: role_of(form.format(name)) for name in names} == names


@pytest.mark.parametrize("name", NOBODY)
def test_name_that_is_common_elsewhere_says_nothing_there(name: str) -> None:
    assert role_of(name) is None
