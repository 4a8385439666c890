"""Messages about certificates, made up: Hypothesis strategies, and the XML that a foreign codec reads and writes."""

from __future__ import annotations

import base64
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from xml.sax.saxutils import escape

from hypothesis import strategies as st

from chargepki.pki.exi import Message, MessageSet, Tree, Value
from chargepki.pki.exi.states import SETS

__all__ = ["facts_of_message", "facts_of_xml", "form", "messages", "to_xml"]

XMLDSIG = "http://www.w3.org/2000/09/xmldsig#"
CANONICAL_EXI = "http://www.w3.org/TR/canonical-exi/"

CODES = {name: SETS[name].simple_types["responseCodeType"].values for name in ("iso15118-2", "iso15118-20")}

# -- strategies --------------------------------------------------------------------------------------------------------

# What XML 1.0 can hold. The carriage return is left out of texts for the judge: the parser in front of it, not the
# codec, turns some of them into line feeds.
_characters = st.characters(
    codec="utf-8", exclude_categories=("Cs", "Cc"), exclude_characters="\ufffe\uffff", include_characters="\t\n"
)
_words = st.sampled_from(["id1", "id2", "CN=V2GRootCA,O=A", "DE12AB34CD56EF7", "#id1", CANONICAL_EXI, "\U0001f50c"])


def texts(minimum: int = 0, maximum: int = 40) -> st.SearchStrategy[str]:
    """Return strings, often the same ones again: a codec with string tables would refer back to the first."""
    fitting = _words.filter(lambda word: minimum <= len(word) <= maximum)
    free = st.text(_characters, min_size=minimum, max_size=maximum)
    return fitting | free | st.just("x" * maximum)


def binaries(minimum: int, maximum: int) -> st.SearchStrategy[bytes]:
    """Return byte strings, mostly short, and the longest."""
    short = st.binary(min_size=minimum, max_size=max(minimum, min(maximum, 24)))
    return short | st.sampled_from([bytes(maximum), b"\xff" * maximum, bytes(range(256)) * 7][: 2 + (maximum > 2000)])


serials = st.integers(0, 300) | st.integers(-(1 << 160), 1 << 160) | st.sampled_from([127, 128, (1 << 159) - 1, -1])
ids = texts(0, 20)


def optional(values: st.SearchStrategy[Value]) -> st.SearchStrategy[Any]:
    return st.none() | values


def record(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Tree]:
    """Return trees with these fields, in this order; those that come out as ``None`` are absent."""

    def present(tree: dict[str, Any]) -> Tree:
        return {name: tree[name] for name in fields if tree[name] is not None}

    return st.fixed_dictionaries(fields).map(present)


def algorithm() -> st.SearchStrategy[Tree]:
    return record(Algorithm=texts(0, 60))


def references() -> st.SearchStrategy[Tree]:
    return record(
        Id=optional(ids),
        Type=optional(texts()),
        URI=optional(texts()),
        Transforms=optional(record(Transform=st.lists(algorithm(), min_size=1, max_size=2))),
        DigestMethod=algorithm(),
        DigestValue=binaries(0, 64),
    )


def signed_infos() -> st.SearchStrategy[Tree]:
    return record(
        Id=optional(ids),
        CanonicalizationMethod=algorithm(),
        SignatureMethod=algorithm(),
        Reference=st.lists(references(), min_size=1, max_size=4),
    )


def signatures() -> st.SearchStrategy[Tree]:
    value = record(Id=optional(ids), value=binaries(0, 132))
    return record(Id=optional(ids), SignedInfo=signed_infos(), SignatureValue=value)


def root_ids() -> st.SearchStrategy[Tree]:
    each = record(X509IssuerName=texts(), X509SerialNumber=serials)
    return record(RootCertificateID=st.lists(each, min_size=1, max_size=3) | st.lists(each, min_size=20, max_size=20))


def chains(
    longest: int, sub: int, *, with_id: st.SearchStrategy[Any] | None, sub_needed: bool = False
) -> st.SearchStrategy[Tree]:
    certificates = binaries(0, longest)
    below: st.SearchStrategy[Value] = record(Certificate=st.lists(certificates, min_size=1, max_size=sub))
    fields: dict[str, st.SearchStrategy[Any]] = {} if with_id is None else {"Id": with_id}
    return record(**fields, Certificate=certificates, SubCertificates=below if sub_needed else optional(below))


def signed(value: st.SearchStrategy[Any]) -> st.SearchStrategy[Tree]:
    return record(Id=ids, value=value)


emaids = texts(14, 15)


def bodies() -> dict[str, st.SearchStrategy[Tree]]:
    """Return what each message of -2 holds."""
    chain = chains(800, 4, with_id=optional(ids))
    response = {
        "ResponseCode": st.sampled_from(CODES["iso15118-2"]),
        "SAProvisioningCertificateChain": chain,
        "ContractSignatureCertChain": chain,
        "ContractSignatureEncryptedPrivateKey": signed(binaries(0, 48)),
        "DHpublickey": signed(binaries(0, 65)),
        "eMAID": signed(emaids),
    }
    return {
        "CertificateInstallationReq": record(
            Id=ids, OEMProvisioningCert=binaries(0, 800), ListOfRootCertificateIDs=root_ids()
        ),
        "CertificateInstallationRes": record(**response),
        "CertificateUpdateReq": record(
            Id=ids, ContractSignatureCertChain=chain, eMAID=emaids, ListOfRootCertificateIDs=root_ids()
        ),
        "CertificateUpdateRes": record(**response, RetryCounter=optional(st.integers(-32768, 32767))),
    }


def _v2g_messages() -> st.SearchStrategy[Tree]:
    faults = record(
        FaultCode=st.sampled_from(SETS["iso15118-2"].simple_types["faultCodeType"].values),
        FaultMsg=optional(texts(0, 64)),
    )
    header = record(SessionID=binaries(0, 8), Notification=optional(faults), Signature=optional(signatures()))
    return st.one_of([record(Header=header, Body=record(**{name: body})) for name, body in bodies().items()])


def _installation_data() -> st.SearchStrategy[Tree]:
    keys = {
        "SECP521_EncryptedPrivateKey": binaries(94, 94),
        "X448_EncryptedPrivateKey": binaries(84, 84),
        "TPM_EncryptedPrivateKey": binaries(0, 206),
    }
    return st.one_of(
        [
            record(
                Id=ids,
                ContractCertificateChain=chains(1600, 3, with_id=None, sub_needed=True),
                ECDHCurve=st.sampled_from(["SECP521", "X448"]),
                DHPublicKey=binaries(0, 133),
                **{name: key},
            )
            for name, key in keys.items()
        ]
    )


def _v20_messages() -> dict[str, st.SearchStrategy[Tree]]:
    header = record(
        SessionID=st.binary(min_size=8, max_size=8),
        TimeStamp=st.integers(0, (1 << 64) - 1),
        Signature=optional(signatures()),
    )
    return {
        "CertificateInstallationReq": record(
            Header=header,
            OEMProvisioningCertificateChain=chains(1600, 3, with_id=ids),
            ListOfRootCertificateIDs=root_ids(),
            MaximumContractCertificateChains=st.integers(0, 255),
            PrioritizedEMAIDs=optional(record(EMAID=st.lists(texts(0, 255), min_size=1, max_size=8))),
        ),
        "CertificateInstallationRes": record(
            Header=header,
            ResponseCode=st.sampled_from(CODES["iso15118-20"]),
            EVSEProcessing=st.sampled_from(SETS["iso15118-20"].simple_types["processingType"].values),
            CPSCertificateChain=chains(1600, 3, with_id=None),
            SignedInstallationData=_installation_data(),
            RemainingContractCertificateChains=st.integers(0, 255),
        ),
    }


def messages() -> st.SearchStrategy[Message]:
    """Return messages of every kind that the codec knows, whole ones and elements to be signed."""
    of_2 = bodies()
    kinds: dict[tuple[MessageSet, str], st.SearchStrategy[Tree]] = {
        (MessageSet.ISO15118_2, "V2G_Message"): _v2g_messages(),
        (MessageSet.ISO15118_2, "CertificateInstallationReq"): of_2["CertificateInstallationReq"],
        (MessageSet.ISO15118_2, "CertificateUpdateReq"): of_2["CertificateUpdateReq"],
        (MessageSet.ISO15118_2, "ContractSignatureCertChain"): chains(800, 4, with_id=optional(ids)),
        (MessageSet.ISO15118_2, "ContractSignatureEncryptedPrivateKey"): signed(binaries(0, 48)),
        (MessageSet.ISO15118_2, "DHpublickey"): signed(binaries(0, 65)),
        (MessageSet.ISO15118_2, "eMAID"): signed(emaids),
        (MessageSet.ISO15118_20, "OEMProvisioningCertificateChain"): chains(1600, 3, with_id=ids),
        (MessageSet.ISO15118_20, "SignedInstallationData"): _installation_data(),
        (MessageSet.XMLDSIG, "SignedInfo"): signed_infos(),
    }
    for name, tree in _v20_messages().items():
        kinds[MessageSet.ISO15118_20, name] = tree
    return st.one_of([trees.map(_message(*key)) for key, trees in kinds.items()])


def _message(message_set: MessageSet, name: str) -> Callable[[Tree], Message]:
    return lambda tree: Message(message_set, name, tree, _has_full_list(message_set, tree))


def _has_full_list(message_set: MessageSet, value: object) -> bool:
    """Return whether the foreign codec will write the list of root certificates otherwise than the schema."""
    if message_set is not MessageSet.ISO15118_2 or not isinstance(value, dict):
        return False
    roots = value.get("RootCertificateID")
    return (isinstance(roots, list) and len(roots) == 20) or any(
        _has_full_list(message_set, each) for each in value.values()
    )


# -- as XML ------------------------------------------------------------------------------------------------------------

MSG_DEF, MSG_HEADER = "urn:iso:15118:2:2013:MsgDef", "urn:iso:15118:2:2013:MsgHeader"
MSG_BODY, MSG_TYPES = "urn:iso:15118:2:2013:MsgBody", "urn:iso:15118:2:2013:MsgDataTypes"
COMMON_MESSAGES, COMMON_TYPES = "urn:iso:std:iso:15118:-20:CommonMessages", "urn:iso:std:iso:15118:-20:CommonTypes"

# Where an element is not declared with the message itself (MsgBody, CommonMessages).
ELSEWHERE: Mapping[str, Mapping[str, str]] = {
    "iso15118-2": {
        **dict.fromkeys(("V2G_Message", "Header", "Body"), MSG_DEF),
        **dict.fromkeys(("SessionID", "Notification"), MSG_HEADER),
        **dict.fromkeys(("FaultCode", "FaultMsg", "RootCertificateID", "Certificate", "SubCertificates"), MSG_TYPES),
    },
    "iso15118-20": dict.fromkeys(
        ("Header", "SessionID", "TimeStamp", "ResponseCode", "RootCertificateID"), COMMON_TYPES
    ),
    "xmldsig": {},
}
OWN = {"iso15118-2": MSG_BODY, "iso15118-20": COMMON_MESSAGES, "xmldsig": XMLDSIG}
ATTRIBUTES = frozenset({"Id", "Type", "URI", "Algorithm"})


def form(message: Message) -> str:
    """Return how the judge calls the operations for *message*: as a whole, or as an element on its own."""
    is_whole = message.name == "V2G_Message" or "Header" in message.tree
    return "" if is_whole else "-fragment"


def to_xml(message: Message) -> bytes:
    """Return *message* as an XML document."""
    return "".join(_xml(str(message.message_set), message.name, message.tree, in_signature=False)).encode()


def _xml(message_set: str, name: str, value: object, *, in_signature: bool) -> Iterator[str]:
    in_signature = in_signature or name in {"Signature", "SignedInfo", "X509IssuerName", "X509SerialNumber"}
    namespace = XMLDSIG if in_signature else ELSEWHERE[message_set].get(name, OWN[message_set])
    yield f'<n:{name} xmlns:n="{namespace}"'
    if isinstance(value, dict):
        for key in ATTRIBUTES & value.keys():
            # Attributes of ISO 15118 are qualified: Id has the namespace of the type that declares it.
            of = MSG_TYPES if message_set == "iso15118-2" and not name.endswith("Req") else OWN[message_set]
            prefix = "" if in_signature else f' xmlns:a="{of}" a:'
            yield f"{prefix or ' '}{key}={_quoted(str(value[key]))}"
    yield ">"
    if not isinstance(value, dict):
        yield escape(_text(name, value))
    else:
        for key, each in value.items():
            if key == "value":
                yield escape(_text(name, each))
            elif key not in ATTRIBUTES:
                for one in each if isinstance(each, list) else [each]:
                    yield from _xml(message_set, key, one, in_signature=in_signature)
    yield f"</n:{name}>"


def _quoted(text: str) -> str:
    return '"' + escape(text, {'"': "&quot;", "\t": "&#9;", "\n": "&#10;"}) + '"'


def _text(name: str, value: object) -> str:
    if isinstance(value, bytes):
        return value.hex().upper() if name == "SessionID" else base64.b64encode(value).decode()
    return str(value)


Facts = list[tuple[str, str]]
"""Every attribute and text of a message with its path, attributes of an element sorted before its content."""


def facts_of_message(message: Message) -> Facts:
    """Return what *message* says."""
    return list(_facts(message.name, message.name, message.tree))


def _facts(path: str, name: str, value: object) -> Iterator[tuple[str, str]]:
    if not isinstance(value, dict):
        yield path, _text(name, value)
        return
    for key in sorted(ATTRIBUTES & value.keys()):
        yield f"{path}@{key}", str(value[key])
    if not value.keys() - ATTRIBUTES:
        yield path, ""
    for key, each in value.items():
        if key == "value":
            yield path, _text(name, each)
        elif key not in ATTRIBUTES:
            for one in each if isinstance(each, list) else [each]:
                yield from _facts(f"{path}/{key}", key, one)


def facts_of_xml(xml: bytes) -> Facts:
    """Return what an XML document says, without its namespaces."""
    return list(_facts_of_element("", ET.fromstring(xml)))


def _facts_of_element(path: str, element: ET.Element) -> Iterator[tuple[str, str]]:
    path = f"{path}/{_local(element.tag)}".removeprefix("/")
    for key in sorted(element.attrib):
        yield f"{path}@{_local(key)}", element.attrib[key]
    if len(element) == 0:
        yield path, element.text or ""
    for child in element:
        yield from _facts_of_element(path, child)


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]
