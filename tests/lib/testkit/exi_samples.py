"""Messages about certificates as they look in the field, random bytes in place of certificates and keys."""

from __future__ import annotations

from random import Random

from chargepki.pki.exi import Message, MessageSet, Tree, Value

__all__ = ["samples"]

CANONICAL_EXI = "http://www.w3.org/TR/canonical-exi/"
SHA256, SHA512 = "http://www.w3.org/2001/04/xmlenc#sha256", "http://www.w3.org/2001/04/xmlenc#sha512"
ECDSA = "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha"


def samples(seed: int = 15118) -> list[Message]:
    """Return one message of each kind, whole ones first; the same for the same seed."""
    make = _Maker(Random(seed))
    return [*make.of_2(), *make.of_20(), Message(MessageSet.XMLDSIG, "SignedInfo", make.signed_info(4))]


class _Maker:
    def __init__(self, random: Random) -> None:
        self._random = random
        self.octets = random.randbytes

    def signed_info(self, references: int, *, bits: int = 256) -> Tree:
        digest = SHA256 if bits == 256 else SHA512
        return {
            "CanonicalizationMethod": {"Algorithm": CANONICAL_EXI},
            "SignatureMethod": {"Algorithm": f"{ECDSA}{bits}"},
            "Reference": [
                {
                    "URI": f"#id{number + 1}",
                    "Transforms": {"Transform": [{"Algorithm": CANONICAL_EXI}]},
                    "DigestMethod": {"Algorithm": digest},
                    "DigestValue": self.octets(bits // 8),
                }
                for number in range(references)
            ],
        }

    def signature(self, references: int, *, bits: int = 256) -> Tree:
        value = self.octets(64 if bits == 256 else 132)
        return {"SignedInfo": self.signed_info(references, bits=bits), "SignatureValue": {"value": value}}

    def chain(self, size: int, **attributes: Value) -> Tree:
        below: Tree = {"Certificate": [self.octets(size), self.octets(size)]}
        return {**attributes, "Certificate": self.octets(size), "SubCertificates": below}

    def roots(self, count: int) -> Tree:
        return {
            "RootCertificateID": [
                {"X509IssuerName": f"CN=V2GRootCA{number},O=Org,C=DE,DC=V2G", "X509SerialNumber": self._serial()}
                for number in range(count)
            ]
        }

    def _serial(self) -> int:
        return self._random.getrandbits(159)

    def of_2(self) -> list[Message]:
        chain = self.chain(555, Id="id1")
        key: Tree = {"Id": "id2", "value": self.octets(48)}
        point: Tree = {"Id": "id3", "value": self.octets(65)}
        emaid: Tree = {"Id": "id4", "value": "DE8AA1A2B3C4D59"}
        response: Tree = {
            "ResponseCode": "OK",
            "SAProvisioningCertificateChain": self.chain(555),
            "ContractSignatureCertChain": chain,
            "ContractSignatureEncryptedPrivateKey": key,
            "DHpublickey": point,
            "eMAID": emaid,
        }
        installation: Tree = {
            "Id": "id1",
            "OEMProvisioningCert": self.octets(555),
            "ListOfRootCertificateIDs": self.roots(2),
        }
        update: Tree = {
            "Id": "id1",
            "ContractSignatureCertChain": self.chain(555),
            "eMAID": "DE8AA1A2B3C4D59",
            "ListOfRootCertificateIDs": self.roots(1),
        }
        bodies = {
            "CertificateInstallationReq": (installation, 1),
            "CertificateInstallationRes": (response, 4),
            "CertificateUpdateReq": (update, 1),
            "CertificateUpdateRes": ({**response, "RetryCounter": -1}, 4),
        }
        whole: list[Tree] = [
            {"Header": {"SessionID": self.octets(8), "Signature": self.signature(references)}, "Body": {name: body}}
            for name, (body, references) in bodies.items()
        ]
        parts = {
            "CertificateInstallationReq": installation,
            "CertificateUpdateReq": update,
            "ContractSignatureCertChain": chain,
            "ContractSignatureEncryptedPrivateKey": key,
            "DHpublickey": point,
            "eMAID": emaid,
        }
        of_2 = MessageSet.ISO15118_2
        return [
            *(Message(of_2, "V2G_Message", tree) for tree in whole),
            *(Message(of_2, name, tree) for name, tree in parts.items()),
        ]

    def of_20(self) -> list[Message]:
        header: Tree = {
            "SessionID": self.octets(8),
            "TimeStamp": 1_767_225_600,
            "Signature": self.signature(1, bits=512),
        }
        provisioning = self.chain(900, Id="id1")
        data: Tree = {
            "Id": "id1",
            "ContractCertificateChain": self.chain(900),
            "ECDHCurve": "SECP521",
            "DHPublicKey": b"\x04" + self.octets(132),
            "SECP521_EncryptedPrivateKey": self.octets(94),
        }
        request: Tree = {
            "Header": header,
            "OEMProvisioningCertificateChain": provisioning,
            "ListOfRootCertificateIDs": self.roots(2),
            "MaximumContractCertificateChains": 3,
            "PrioritizedEMAIDs": {"EMAID": ["DE8AA1A2B3C4D59"]},
        }
        response: Tree = {
            "Header": header,
            "ResponseCode": "OK",
            "EVSEProcessing": "Finished",
            "CPSCertificateChain": self.chain(900),
            "SignedInstallationData": data,
            "RemainingContractCertificateChains": 1,
        }
        of_20 = MessageSet.ISO15118_20
        return [
            Message(of_20, "CertificateInstallationReq", request),
            Message(of_20, "CertificateInstallationRes", response),
            Message(of_20, "OEMProvisioningCertificateChain", provisioning),
            Message(of_20, "SignedInstallationData", data),
        ]
