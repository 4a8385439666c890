"""Examine a heap: what each object is, which chains they form, what fits, what is missing, who will object."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime

from chargepki.pki.certificate_view import view_certificate
from chargepki.pki.der import DerError
from chargepki.pki.doctor.complaints import (
    chain_findings,
    file_findings,
    key_findings,
    namesakes,
    request_finding,
    stem,
)
from chargepki.pki.doctor.graph import Chain, Graph, Node
from chargepki.pki.doctor.intake import Heap, HeapFile
from chargepki.pki.doctor.keyring import RingKey
from chargepki.pki.doctor.parties import Opinion, Party, opinions_of
from chargepki.pki.errors import InputError
from chargepki.pki.findings import Finding, Severity
from chargepki.pki.lint.csr_view import view_csr
from chargepki.pki.lint.guess import guess_profile
from chargepki.pki.lint.reading import LintInput
from chargepki.pki.lint.session import LintSession, ObjectReport
from chargepki.pki.lint.sniff import ObjectKind

__all__ = ["ChainReport", "Diagnosis", "ObjectDiagnosis", "examine"]

_TOOLS = (Party.OPENSSL, Party.JAVA)


@dataclass(frozen=True, slots=True)
class ObjectDiagnosis:
    """One object of the heap."""

    name: str
    file: str
    kind: str
    says: str
    """One line for people: subject, or how it is kept."""
    profile: str | None
    reason: str
    """Why it is taken for that profile, or for none."""
    copies: tuple[str, ...]
    """Where the same certificate lies again."""
    fits: tuple[str, ...]
    """Of a key: the certificates and requests of its public key; of a request: the certificates of its key."""
    findings: tuple[Finding, ...]
    node: Node | None = None


@dataclass(frozen=True, slots=True)
class ChainReport:
    """One chain, its key, and who objects to it."""

    chain: Chain
    keys: tuple[str, ...]
    """Names of the private keys of its leaf."""
    requests: tuple[str, ...]
    """Names of requests for the key of its leaf."""
    findings: tuple[Finding, ...]
    opinions: tuple[Opinion, ...]

    @property
    def is_refused(self) -> bool:
        """Whether every party of charging that meets it objects; what openssl and Java say does not count."""
        own = [opinion for opinion in self.opinions if opinion.party not in _TOOLS]
        return bool(own) and not any(opinion.accepts for opinion in own)


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What the doctor has to say."""

    at: datetime
    files: tuple[HeapFile, ...]
    objects: tuple[ObjectDiagnosis, ...]
    chains: tuple[ChainReport, ...]
    together: tuple[Finding, ...]
    """About all certificates together, as keys that two of them share."""
    skipped: tuple[tuple[str, str], ...]

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Everything but the objections of relying parties."""
        found = [finding for file in self.files for finding in file.findings]
        found += [finding for each in self.objects for finding in each.findings]
        found += [finding for each in self.chains for finding in each.findings]
        return (*found, *self.together)

    @property
    def is_sound(self) -> bool:
        """Whether nothing is an error and nobody of charging refuses a chain."""
        errors = any(finding.severity is Severity.ERROR for finding in self.findings)
        return not errors and not any(each.is_refused for each in self.chains)

    def is_chain_sound(self, report: ChainReport) -> bool:
        """Whether nothing is wrong with one chain and its certificates, however the files are that it lies in."""
        nodes = {id(node) for node in report.chain.path}
        found = [*report.findings]
        found += [finding for each in self.objects if id(each.node) in nodes for finding in each.findings]
        return not report.is_refused and not any(finding.severity is Severity.ERROR for finding in found)


@dataclass(frozen=True, slots=True)
class _Index:
    """What is looked up many times."""

    nodes: Mapping[bytes, Node]
    reports: Mapping[str, Sequence[ObjectReport]]
    files_of: Mapping[bytes, Set[str]]
    by_spki: Mapping[bytes, Sequence[Node]]
    by_stem: Mapping[str, Sequence[Node]]
    """Leaves by the name of their files."""
    requests: Mapping[str, bytes]
    """Public keys (DER) of the requests by name."""

    @classmethod
    def of(cls, inputs: Sequence[LintInput], reports: Sequence[ObjectReport]) -> _Index:
        nodes = _nodes(inputs)
        by_name: dict[str, list[ObjectReport]] = defaultdict(list)
        files_of: dict[bytes, set[str]] = defaultdict(set)
        by_spki: dict[bytes, list[Node]] = defaultdict(list)
        by_stem: dict[str, list[Node]] = defaultdict(list)
        for report in reports:
            by_name[report.name].append(report)
        for each in inputs:
            files_of[each.der].add(each.file)
        for node in nodes.values():
            by_spki[node.view.key.der].append(node)
            for name in {stem(name) for name in node.names if not node.view.is_ca}:
                by_stem[name].append(node)
        return cls(nodes, by_name, files_of, by_spki, by_stem, _requests(inputs))

    def about(self, name: str) -> list[Finding]:
        """Return what the linter says of several certificates together, or of a file."""
        kinds = {"bundle", "store", "set", "container", "file"}
        found = [each.report for each in self.reports.get(name, ()) if each.report.kind in kinds]
        return [finding for report in found for finding in report.findings]


def examine(heap: Heap, *, at: datetime) -> Diagnosis:
    """Diagnose *heap* as of the instant *at*.

    Raises:
        InputError: many certificates of equal names would cost too many signature checks.
        TypeError: *at* is naive.
    """
    inputs = heap.inputs
    blocks = {file.name: file.blocks for file in heap.files if file.blocks}
    index = _Index.of(inputs, LintSession(now=at).judge(inputs, blocks))
    graph = Graph(list(index.nodes.values()))
    for file in heap.files:
        file.findings += index.about(file.name)
        nodes = [index.nodes[each.der] for each in file.inputs if each.der in index.nodes]
        file.findings += file_findings(file, nodes, graph)
    ring = heap.keys.keys
    chains = tuple([_report(chain, index, ring, at) for chain in graph.chains])
    objects = [_object(each, index) for each in inputs if each.kind is not ObjectKind.PRIVATE_KEY]
    objects += [_key(key, index) for key in ring]
    together = (*index.about("all files"), *namesakes(graph))
    return Diagnosis(at, tuple(heap.files), tuple(objects), chains, together, tuple(heap.skipped))


def _nodes(inputs: Sequence[LintInput]) -> dict[bytes, Node]:
    """Return the distinct certificates by their DER; one that cannot be read is the linter's to report."""
    found: dict[bytes, Node] = {}
    for each in inputs:
        if each.kind is not ObjectKind.CERTIFICATE:
            continue
        known = found.get(each.der)
        if known is not None:
            known.names.append(each.name)
            continue
        try:
            view = view_certificate(each.der)
        except DerError:
            continue
        found[each.der] = Node([each.name], view, *guess_profile(view))
    return found


def _requests(inputs: Sequence[LintInput]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for each in inputs:
        if each.kind is ObjectKind.CSR:
            try:
                found[each.name] = view_csr(each.der).key.der
            except (DerError, InputError):
                continue
    return found


def _object(each: LintInput, index: _Index) -> ObjectDiagnosis:
    node = index.nodes.get(each.der) if each.kind is ObjectKind.CERTIFICATE else None
    kind = str(each.kind or "hash-data")
    report = next((one for one in index.reports.get(each.name, ()) if one.report.kind == kind), None)
    findings = [] if report is None else list(report.report.findings)
    profile = None if report is None else report.report.profile_id
    reason = "" if report is None else report.profile_reason
    copies = () if node is None else tuple([name for name in node.names if name != each.name])
    says = "" if node is None else node.subject
    fitting: list[Node] = []
    if each.name in index.requests:
        asked = index.requests[each.name]
        fitting = list(index.by_spki.get(asked, ()))
        wrong = request_finding(asked, fitting, index.by_stem.get(stem(each.name), ()))
        findings += [] if wrong is None else [wrong]
    fits = tuple([one.name for one in fitting])
    return ObjectDiagnosis(each.name, each.file, kind, says, profile, reason, copies, fits, tuple(findings), node)


def _key(key: RingKey, index: _Index) -> ObjectDiagnosis:
    fitting = [] if key.spki is None else list(index.by_spki.get(key.spki, ()))
    fits = [node.name for node in fitting] + [name for name, spki in index.requests.items() if spki == key.spki]
    kept = [one for one in index.reports.get(key.name, ()) if one.report.kind == "private-key"]
    findings = [finding for one in kept for finding in one.report.findings]
    findings += key_findings(key, fitting, index.by_stem.get(stem(key.name), ()))
    words = "encrypted" if key.is_encrypted else "not encrypted"
    says = f"{key.algorithm or 'private key'}, {words}{f': {key.closed}' if key.closed else ''}"
    file = key.name.partition("#")[0]
    return ObjectDiagnosis(key.name, file, "private-key", says, None, "", (), tuple(fits), tuple(findings))


def _report(chain: Chain, index: _Index, ring: Sequence[RingKey], at: datetime) -> ChainReport:
    spki = chain.leaf.view.key.der
    opinions = () if chain.leaf.view.is_ca and chain.leaf.looks_like_root else opinions_of(chain, at)
    return ChainReport(
        chain,
        tuple([key.name for key in ring if key.spki == spki]),
        tuple([name for name, key in index.requests.items() if key == spki]),
        tuple(chain_findings(chain, index.files_of)),
        opinions,
    )
