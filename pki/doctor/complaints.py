"""What people lose weeks over: pieces that are missing, keys that do not fit, roots in the wrong place."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import PurePath
from typing import Final

from chargepki.pki.doctor.graph import Chain, Gap, Graph, Node
from chargepki.pki.doctor.intake import HeapFile
from chargepki.pki.doctor.keyring import RingKey
from chargepki.pki.findings import Finding, Severity

__all__ = ["chain_findings", "file_findings", "key_findings", "namesakes", "request_finding", "stem"]

_WRITE: Final = "write the chain: chargepki doctor PATH --write FILE"
_ORDER: Final = "RFC 8446 4.4.2; OCPP CertificateSigned.certificateChain"


def file_findings(file: HeapFile, nodes: Sequence[Node], graph: Graph) -> Iterator[Finding]:
    """Yield what is wrong with a file as a bundle or a trust store, beyond the linter's rules for bundles."""
    leaves = [node for node in nodes if not node.view.is_ca]
    if len({id(node) for node in leaves}) == 1:
        chain = graph.chain_of[id(leaves[0])]
        yield from _wrong_roots(nodes, chain)
        yield from _first(file, nodes, chain)
    elif not leaves and nodes and not any(node.looks_like_root for node in nodes):
        yield Finding(
            "no-root-among-cas",
            Severity.NOTICE,
            "it holds sub-CAs and no root: as a trust store it is of no use to openssl, and a sub-CA that is installed "
            "as a root is found by no hash of itself again",
            "RFC 5280 6.1.1 (d); OCPP M04",
            "install the root; send sub-CAs with the leaf",
        )


def _wrong_roots(nodes: Sequence[Node], chain: Chain) -> Iterator[Finding]:
    path = {id(node) for node in chain.path}
    for node in nodes:
        if not node.is_root or id(node) in path or node is chain.leaf:
            continue
        if chain.root is None:
            missing = "" if chain.gap is None else chain.gap.issuer
            yield Finding(
                "root-without-path",
                Severity.WARNING,
                f"{node.label} is a root; whether of this chain cannot be seen, since {missing} is missing",
                "RFC 5280 6.1",
                "put the missing certificate beside the others and ask again",
                node.name,
            )
            continue
        yield Finding(
            "wrong-root",
            Severity.ERROR,
            f"{node.label} is a root that has signed nothing of this chain; it belongs under {chain.root.subject}",
            "RFC 5280 6.1; RFC 8446 4.4.2",
            f"leave it out; {_WRITE}",
            node.name,
        )


def namesakes(graph: Graph) -> Iterator[Finding]:
    """Yield the roots of different files that have one name and different keys; of one file the linter tells."""
    by_name: dict[bytes, list[Node]] = defaultdict(list)
    for node in graph.nodes:
        if node.is_root:
            by_name[node.view.subject].append(node)
    for nodes in by_name.values():
        files = [{name.partition("#")[0] for name in node.names} for node in nodes]
        if len({node.view.key.der for node in nodes}) < 2 or set.intersection(*files):
            continue
        yield Finding(
            "same-name-roots",
            Severity.WARNING,
            f"{', '.join(node.label for node in nodes)} have one name and different keys: who looks for a root by its "
            "name may take either",
            "RFC 5280 6.1; ISO 15118-2 [V2G2-878]",
            "find out which is yours by its fingerprint; a second PKI was made, or somebody imitates yours",
            nodes[0].name,
        )


def _first(file: HeapFile, nodes: Sequence[Node], chain: Chain) -> Iterator[Finding]:
    """A server takes the first certificate of its file for its own, and compares its key with that one."""
    if file.is_container or len(nodes) < 2 or nodes[0] is chain.leaf:
        return
    yield Finding(
        "leaf-not-first",
        Severity.ERROR,
        f"it begins with {nodes[0].label}, and the leaf is {chain.leaf.label}: openssl takes the first for the "
        "server's own and finds that the private key does not match; Java refuses the path",
        _ORDER,
        _WRITE,
        nodes[0].name,
    )


def chain_findings(chain: Chain, files_of: Mapping[bytes, Set[str]]) -> Iterator[Finding]:
    """Yield what a chain lacks, and whether any file holds it whole.

    Args:
        files_of: the files in which each certificate (DER) lies.
    """
    if chain.gap is not None:
        yield from _gap(chain, chain.gap)
    if chain.leaf.view.is_ca or len(chain.to_send) < 2:
        return
    holders = frozenset.intersection(*(frozenset(files_of[node.der]) for node in chain.to_send))
    if not holders:
        pieces = ", ".join(node.name for node in chain.to_send)
        yield Finding(
            "chain-in-pieces",
            Severity.WARNING,
            f"no file holds the whole chain that is to be sent: its pieces are {pieces}",
            _ORDER,
            _WRITE,
            chain.leaf.name,
        )


def _gap(chain: Chain, gap: Gap) -> Iterator[Finding]:
    top = chain.path[-1]
    for other in gap.respelled:
        yield Finding(
            "issuer-respelled",
            Severity.ERROR,
            f"the key of {other.label} has signed {top.label}, but the issuer's name is encoded otherwise than its "
            "subject: who compares the octets, as OCPP's hashes and TLS libraries do, finds no issuer",
            "RFC 5280 4.1.2.4, 7.1; OCPP issuerNameHash",
            "issue it anew with the subject of the CA copied octet by octet",
            top.name,
        )
    for other in gap.impostors:
        yield Finding(
            "issuer-other-key",
            Severity.ERROR,
            f"{other.label} has the name of the issuer of {top.label}, but its key has not signed it: another "
            "generation of the CA, or a copy of the PKI that was made anew",
            "RFC 5280 6.1.3 (a) (1)",
            f"find the CA certificate whose SubjectKeyIdentifier is {gap.key_id or 'that of the issuing key'}",
            other.name,
        )
    for other in gap.no_ca:
        yield Finding(
            "issuer-no-ca",
            Severity.ERROR,
            f"the key of {other.label} has signed {top.label}, but its certificate is none of a CA: whoever has that "
            "key made a certificate that it must not make",
            "RFC 5280 6.1.4 (k), (n)",
            "trust nothing that it says; find out who has that key, and revoke its certificate",
            top.name,
        )
    for other in gap.unverifiable:
        yield Finding(
            "issuer-unverifiable",
            Severity.ERROR,
            f"{top.label} names the key of {other.label} as its issuer's, but is signed with an algorithm that is not "
            "verified any more",
            "RFC 5280 6.1.3 (a) (1)",
            "have it issued anew, signed with SHA-256 or better",
            top.name,
        )
    if gap.respelled or gap.no_ca or gap.unverifiable:
        return
    where = f"; it is said to be at {', '.join(gap.aia[:3])} (not fetched)" if gap.aia else ""
    key = f", SubjectKeyIdentifier {gap.key_id}" if gap.key_id else ""
    alone = len(chain.path) == 1 and not top.view.is_ca
    what = "no CA of it is here" if alone else "a root that relying parties have, or a sub-CA that is missing"
    yield Finding(
        "issuer-missing",
        Severity.ERROR if alone else Severity.WARNING,
        f"the issuer of {top.label} is not here: {gap.issuer}{key} ({what}){where}",
        "RFC 5280 6.1; RFC 5280 4.2.2.1",
        "put the issuer's certificate beside the others and ask again",
        top.name,
    )


def key_findings(key: RingKey, fitting: Sequence[Node], beside: Sequence[Node]) -> Iterator[Finding]:
    """Yield whether a key fits what lies with it.

    Args:
        fitting: the certificates of its public key.
        beside: leaves in the same file, or in a file of the same name (`stem`).
    """
    if key.spki is None:
        return
    if beside and not any(node in fitting for node in beside):
        fits = f"it fits {fitting[0].label}" if fitting else "it fits no certificate here"
        yield Finding(
            "key-does-not-fit",
            Severity.ERROR,
            f"it is not the key of {beside[0].label}, which lies with it; {fits}",
            "RFC 5280 4.1.2.7",
            "find the key that the request was made with, or request a certificate for this one",
            beside[0].name,
        )
    elif not fitting:
        yield Finding(
            "key-without-certificate",
            Severity.NOTICE,
            "it fits no certificate here",
            "RFC 5280 4.1.2.7",
            "keep it until its certificate is found, or a request for it is answered",
        )


def request_finding(spki: bytes, fitting: Sequence[Node], beside: Sequence[Node]) -> Finding | None:
    """Return what is wrong when the certificate beside a request has another key than the request.

    Args:
        spki: public key (DER) of the request.
        fitting: the certificates of that key.
        beside: leaves in a file of the same name (`stem`).
    """
    if not beside or any(node.view.key.der == spki for node in beside):
        return None
    fits = f"it was answered with {fitting[0].label}" if fitting else "no certificate here answers it"
    return Finding(
        "request-does-not-fit",
        Severity.ERROR,
        f"it asks for another key than {beside[0].label} has, which lies with it; {fits}",
        "RFC 2986 3; OCPP A02.FR.07",
        "refuse the certificate: whoever has its key is not the one that asked",
        beside[0].name,
    )


def stem(name: str) -> str:
    """Return the file's name without folder and suffixes, which pairs ``leaf.key`` with ``leaf.pem``."""
    return PurePath(name.partition("#")[0]).name.partition(".")[0]
