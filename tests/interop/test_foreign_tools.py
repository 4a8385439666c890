"""The harness asks each foreign tool what it means to ask: what must be refused is refused, for the right reason."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from testkit.foreign import ChainCase, CrlCase, Tool, Verdict, judge_chains, judge_crls, need
from testkit.hierarchy import Node, make_crl, make_node

pytestmark = pytest.mark.foreign

CLIENT = ExtendedKeyUsageOID.CLIENT_AUTH.dotted_string
SERVER = ExtendedKeyUsageOID.SERVER_AUTH.dotted_string


@pytest.fixture(scope="module")
def cases() -> tuple[ChainCase, ...]:
    root = make_node("root", None, ca=True)
    sub = make_node("sub", root, ca=True, path_length=0)
    client = [(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), False)]
    good = make_node("good", sub, ca=False, extensions=client)
    revoked = make_node("revoked", sub, ca=False, extensions=client)
    other_root = make_node("root", None, ca=True)
    strange = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.55555.1"), b"\x05\x00")
    critical = make_node("strange", sub, ca=False, extensions=[(strange, True)])
    lists = (make_crl(root), make_crl(sub, [revoked]))

    def case(name: str, *chain: Node, crls: tuple[bytes, ...] | None = None, eku: str | None = None) -> ChainCase:
        return ChainCase(name, tuple(node.der for node in chain), root.der, crls, eku)

    return (
        case("good", good, sub),
        case("good for its purpose", good, sub, eku=CLIENT),
        case("good and not revoked", good, sub, crls=lists),
        case("root alone", root),
        case("revoked, lists not asked for", revoked, sub),
        case("revoked", revoked, sub, crls=lists),
        case("good for another purpose only", good, sub, eku=SERVER),
        case("issuer missing", good),
        case("unknown critical extension", critical, sub),
        ChainCase("another root of the same name", (good.der, sub.der), other_root.der),
        ChainCase("changed signature", (good.der[:-1] + bytes([good.der[-1] ^ 1]), sub.der), root.der),
    )


ACCEPTED = {
    "good",
    "good for its purpose",
    "good and not revoked",
    "root alone",
    "revoked, lists not asked for",
}


@pytest.mark.parametrize("tool", Tool)
def test_tool_accepts_what_is_valid_and_refuses_what_is_not(tool: Tool, cases: tuple[ChainCase, ...]) -> None:
    need(tool)
    verdicts = judge_chains(tool, cases)
    assert {name for name, verdict in verdicts.items() if verdict.accepted} == ACCEPTED, verdicts
    assert "revo" in verdicts["revoked"].reason.lower()


@pytest.mark.parametrize("tool", [Tool.OPENSSL, Tool.JAVA, Tool.PYHANKO])
def test_tool_that_was_given_lists_refuses_a_certificate_whose_list_is_missing(tool: Tool) -> None:
    need(tool)
    root = make_node("root", None, ca=True)
    sub = make_node("sub", root, ca=True)
    leaf = make_node("leaf", sub, ca=False)
    case = ChainCase("one list missing", (leaf.der, sub.der), root.der, (make_crl(root),))
    assert not judge_chains(tool, [case])[case.id].accepted


@pytest.mark.parametrize("tool", [Tool.OPENSSL, Tool.GNUTLS, Tool.JAVA])
def test_tool_verifies_the_signature_of_a_list(tool: Tool) -> None:
    need(tool)
    root = make_node("root", None, ca=True)
    crl = make_crl(root)
    other = make_node("root", None, ca=True)
    verdicts = judge_crls(tool, [CrlCase("right", crl, (root.der,)), CrlCase("other key", crl, (other.der,))])
    assert verdicts["right"] == Verdict(True, verdicts["right"].reason)
    assert not verdicts["other key"].accepted
