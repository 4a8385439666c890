"""Run lint rules over one object: the rule type, the registry, the dispatch per profile, the report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import Final, Generic, NamedTuple, TypeAlias, TypeVar

from chargepki.pki.certificate_view import CertificateView
from chargepki.pki.errors import printable
from chargepki.pki.findings import Finding, Severity
from chargepki.pki.profiles.base import Profile, Standard

__all__ = [
    "ALL",
    "CertificateContext",
    "LintReport",
    "Needs",
    "Problem",
    "Rule",
    "Verdict",
    "certificate_rules",
    "collect",
    "list_rules",
    "register",
    "rule",
    "tokens_of",
]

ALL: Final = frozenset(Standard)
"""A rule for every standard also judges objects of which no profile is known."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One complaint of a rule, when the rule's own `where` is not precise enough."""

    message: str
    where: str = ""
    severity: Severity | None = None
    """Milder (or harsher) than the rule in general, where the catalogue distinguishes cases."""


Verdict: TypeAlias = "str | Sequence[Problem] | None"
"""What a check returns: ``None`` (nothing wrong), one message, or several problems."""


class CertificateContext(NamedTuple):
    """Everything that a certificate rule may look at."""

    view: CertificateView
    profile: Profile | None
    issuer: CertificateView | None = None
    now: datetime | None = None

    @property
    def standard(self) -> Standard | None:
        """The document that the certificate is held against, if one is known."""
        return None if self.profile is None else self.profile.standard

    @property
    def role(self) -> str:
        """Role of the profile, or the empty string."""
        return "" if self.profile is None else self.profile.role


class Needs(NamedTuple):
    """What a rule cannot do without; it is left out, and not counted as run, when it is missing."""

    issuer: bool = False
    now: bool = False
    signature: bool = False
    """The whole certificate; not available for to-be-signed bytes."""


_NOTHING: Final = Needs()

ContextT = TypeVar("ContextT")


@dataclass(frozen=True, slots=True)
class Rule(Generic[ContextT]):
    """One rule: what it says, where it is written, to what it applies, and the function that judges."""

    id: str
    """Stable; ``e_``, ``w_``, ``n_`` name the severity that the rule has unless a standard changes it."""
    severity: Severity
    title: str
    clause: str
    hint: str
    standards: frozenset[Standard]
    applies: frozenset[str]
    """``any``, ``ca``, ``leaf``, a kind (``root``, ``sub1``, …), an exact role (``secc``), or ``crl``."""
    check: Callable[[ContextT], Verdict]
    where: str = ""
    severity_by_standard: Mapping[Standard, Severity] = field(default_factory=dict)
    needs: Needs = _NOTHING

    def severity_for(self, standard: Standard | None) -> Severity:
        """Severity under *standard*."""
        return self.severity if standard is None else self.severity_by_standard.get(standard, self.severity)


@dataclass(frozen=True, slots=True)
class LintReport:
    """What the rules found on one object."""

    kind: str
    """``certificate``, ``tbs-certificate`` or ``crl``."""
    findings: tuple[Finding, ...]
    rules_run: tuple[str, ...]
    profile_id: str | None = None

    @property
    def errors(self) -> tuple[Finding, ...]:
        """Findings that stop an issuance."""
        return tuple(finding for finding in self.findings if finding.severity is Severity.ERROR)

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """Findings that deserve a look."""
        return tuple(finding for finding in self.findings if finding.severity is Severity.WARNING)

    @property
    def notices(self) -> tuple[Finding, ...]:
        """Findings that are merely worth knowing."""
        return tuple(finding for finding in self.findings if finding.severity is Severity.NOTICE)

    @property
    def ok(self) -> bool:
        """No error; warnings and notices do not count."""
        return not self.errors

    def to_json(self) -> dict[str, object]:
        """Return the report as JSON-able values."""
        return {
            "kind": self.kind,
            "profile": self.profile_id,
            "ok": self.ok,
            "rules_run": list(self.rules_run),
            "findings": [
                {
                    "rule": finding.rule,
                    "severity": finding.severity.value,
                    "message": finding.message,
                    "clause": finding.clause,
                    "hint": finding.hint,
                    "where": finding.where,
                }
                for finding in self.findings
            ],
        }


_SEVERITY_BY_PREFIX: Final = {"e_": Severity.ERROR, "w_": Severity.WARNING, "n_": Severity.NOTICE}

_certificate_rules: dict[str, Rule[CertificateContext]] = {}


def register(registry: dict[str, Rule[ContextT]], entry: Rule[ContextT]) -> None:
    """Add *entry* to *registry*; a second rule of the same id is a programming error (ValueError)."""
    if entry.id in registry:
        raise ValueError(f"two rules are called {entry.id}")
    registry[entry.id] = entry


def severity_of(rule_id: str) -> Severity:
    """Return the severity that the prefix of *rule_id* names."""
    return _SEVERITY_BY_PREFIX[rule_id[:2]]


def rule(
    rule_id: str,
    clause: str,
    title: str,
    *,
    hint: str,
    standards: Iterator[Standard] | Sequence[Standard] | frozenset[Standard] = ALL,
    applies: Sequence[str] = ("any",),
    where: str = "",
    severity_by_standard: Mapping[Standard, Severity] | None = None,
    needs: Needs | None = None,
    severity: Severity | None = None,
) -> Callable[[Callable[[CertificateContext], Verdict]], Callable[[CertificateContext], Verdict]]:
    """Register the decorated function as the certificate rule *rule_id*; *severity* overrides what the prefix says."""

    def decorate(check: Callable[[CertificateContext], Verdict]) -> Callable[[CertificateContext], Verdict]:
        entry = Rule(
            id=rule_id,
            severity=severity or severity_of(rule_id),
            title=title,
            clause=clause,
            hint=hint,
            standards=frozenset(standards),
            applies=frozenset(applies),
            check=check,
            where=where,
            severity_by_standard=dict(severity_by_standard or {}),
            needs=needs or Needs(),
        )
        register(_certificate_rules, entry)
        return check

    return decorate


def list_rules() -> tuple[Rule[CertificateContext], ...]:
    """Return every certificate rule, sorted by id."""
    return tuple(sorted(_certificate_rules.values(), key=lambda entry: entry.id))


def tokens_of(profile: Profile | None, *, is_ca: bool) -> frozenset[str]:
    """Return what `Rule.applies` is compared with. Without a profile only the certificate's own cA bit is known."""
    if profile is None:
        return frozenset({"any", "ca" if is_ca else "leaf"})
    return frozenset({"any", "ca" if profile.is_ca else "leaf", profile.kind.value, profile.role})


class _Plan(NamedTuple):
    """The rules for one kind of object, chosen once, so that judging a certificate does not look at the others."""

    checks: tuple[tuple[Rule[CertificateContext], Severity], ...]
    ids: tuple[str, ...]


def certificate_rules(
    profile: Profile | None, *, is_ca: bool, with_issuer: bool, with_now: bool, with_signature: bool
) -> _Plan:
    """Choose the rules that apply, in registration order."""
    # A profile is a deep value and slow to hash, so the plans are filed under the two values that decide.
    standard = None if profile is None else profile.standard
    return _plan(standard, tokens_of(profile, is_ca=is_ca), with_issuer, with_now, with_signature)


@cache
def _plan(
    standard: Standard | None, tokens: frozenset[str], with_issuer: bool, with_now: bool, with_signature: bool
) -> _Plan:
    chosen = [
        entry
        for entry in _certificate_rules.values()
        if (entry.standards == ALL if standard is None else standard in entry.standards)
        and not tokens.isdisjoint(entry.applies)
        and (with_issuer or not entry.needs.issuer)
        and (with_now or not entry.needs.now)
        and (with_signature or not entry.needs.signature)
    ]
    return _Plan(
        checks=tuple((entry, entry.severity_for(standard)) for entry in chosen), ids=tuple(entry.id for entry in chosen)
    )


def collect(checks: Sequence[tuple[Rule[ContextT], Severity]], context: ContextT) -> tuple[Finding, ...]:
    """Run *checks* and turn what they say into findings."""
    findings: list[Finding] = []
    for entry, severity in checks:
        verdict = entry.check(context)
        if not verdict:
            continue
        problems = (Problem(verdict),) if isinstance(verdict, str) else verdict
        findings.extend(
            Finding(
                rule=entry.id,
                severity=problem.severity or severity,
                message=printable(problem.message),
                clause=entry.clause,
                hint=entry.hint,
                where=problem.where or entry.where,
            )
            for problem in problems
        )
    return tuple(findings)
