"""Run lint rules over one object: the rule type, the registry, the dispatch per profile, the report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, TypeAlias, TypeVar

from chargepki.pki.certificate_view import CertificateView
from chargepki.pki.errors import printable
from chargepki.pki.findings import Finding, Severity
from chargepki.pki.profiles.base import Profile, Standard

if TYPE_CHECKING:
    from chargepki.pki.lint.weak_keys import WeakKeys

__all__ = [
    "ALL",
    "CERTIFICATES",
    "NO_DATA",
    "CertificateContext",
    "LintData",
    "LintReport",
    "Needs",
    "NotEvaluated",
    "Override",
    "Plan",
    "Problem",
    "Registry",
    "Rule",
    "Unjudged",
    "Verdict",
    "available_data",
    "findings_of",
    "judge",
    "list_rules",
    "rule",
    "severity_of",
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


@dataclass(frozen=True, slots=True)
class NotEvaluated:
    """What a check returns when the object, or what came with it, does not let it judge: neither broken nor passed."""

    reason: str


Verdict: TypeAlias = "str | Sequence[Problem] | NotEvaluated | None"
"""What a check returns: ``None`` (nothing wrong), one message, several problems, or that it could not judge."""


@dataclass(frozen=True, slots=True)
class LintData:
    """What the operator knows and the object does not say. A rule whose datum is missing is not evaluated."""

    weak_keys: WeakKeys | None = None
    serial_number: str | None = None
    """Of the charging station; the CN of its certificate is compared with it."""
    organization: str | None = None
    """The charging station operator, as configured on the station (``OrganizationName``, 1.6: ``CpoName``)."""

    @property
    def available(self) -> frozenset[str]:
        """Names of the data that are there, as `Needs` calls them."""
        return frozenset(each.name for each in fields(self) if getattr(self, each.name) is not None)


NO_DATA: Final = LintData()


class CertificateContext(NamedTuple):
    """Everything that a certificate rule may look at."""

    view: CertificateView
    profile: Profile | None
    issuer: CertificateView | None = None
    now: datetime | None = None
    data: LintData = NO_DATA

    @property
    def standard(self) -> Standard | None:
        """The document that the certificate is held against, if one is known."""
        return None if self.profile is None else self.profile.standard

    @property
    def role(self) -> str:
        """Role of the profile, or the empty string."""
        return "" if self.profile is None else self.profile.role


class Needs(NamedTuple):
    """What a rule cannot do without; it is reported as not evaluated, never as passed, when it is missing."""

    issuer: bool = False
    now: bool = False
    signature: bool = False
    """The whole certificate; not available for to-be-signed bytes."""
    weak_keys: bool = False
    serial_number: bool = False
    organization: bool = False

    def missing(self, available: frozenset[str]) -> str:
        """Return why a rule with these needs cannot be evaluated, or the empty string."""
        return "; ".join(reason for name, reason in _REASONS.items() if getattr(self, name) and name not in available)


_REASONS: Final = {
    "issuer": "no issuer certificate was given",
    "now": "no time was given",
    "signature": "there is no signature yet",
    "weak_keys": "no list of weak keys is configured",
    "serial_number": "the station's serial number was not given",
    "organization": "the charging station operator's name was not given",
}


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
    subject: str = "certificate"
    """The kind of object that it judges."""
    unverified: str = ""
    """Why the demand is not settled by a public text; such a rule is a warning at most and can be switched off."""

    def severity_for(self, standard: Standard | None) -> Severity:
        """Severity under *standard*."""
        return self.severity if standard is None else self.severity_by_standard.get(standard, self.severity)


class Unjudged(NamedTuple):
    """A rule that applies to the object and could not be evaluated."""

    rule: str
    reason: str


@dataclass(frozen=True, slots=True)
class Override:
    """A severity that is not the rule's own."""

    rule: str
    default: Severity
    severity: Severity | None
    """``None`` switches the rule off."""
    source: str
    """Where the override was made."""


@dataclass(frozen=True, slots=True)
class LintReport:
    """What the rules found on one object."""

    kind: str
    """``certificate``, ``tbs-certificate`` or ``crl``."""
    findings: tuple[Finding, ...]
    rules_run: tuple[str, ...]
    """Rules that came to a verdict."""
    profile_id: str | None = None
    not_evaluated: tuple[Unjudged, ...] = ()
    """Rules that apply, but could not judge; none of them counts as passed."""
    overrides: tuple[Override, ...] = ()
    """Severities that the configuration changed."""

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
            "not_evaluated": [{"rule": each.rule, "reason": each.reason} for each in self.not_evaluated],
            "overrides": [
                {
                    "rule": each.rule,
                    "default": each.default.value,
                    "severity": "off" if each.severity is None else each.severity.value,
                    "source": each.source,
                }
                for each in self.overrides
            ],
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


def severity_of(rule_id: str) -> Severity:
    """Return the severity that the prefix of *rule_id* names."""
    return _SEVERITY_BY_PREFIX[rule_id[:2]]


@dataclass(frozen=True, slots=True)
class Plan(Generic[ContextT]):
    """The rules for one kind of object, chosen once, so that judging it does not look at the others."""

    checks: tuple[tuple[Rule[ContextT], Severity], ...]
    ids: tuple[str, ...]
    unjudged: tuple[Unjudged, ...]


class Registry(Generic[ContextT]):
    """The rules about one kind of object, in the order in which their modules were imported."""

    def __init__(self, subject: str) -> None:
        self.subject = subject
        self._rules: dict[str, Rule[ContextT]] = {}
        self._plans: dict[tuple[Standard | None, frozenset[str], frozenset[str]], Plan[ContextT]] = {}

    def add(self, entry: Rule[ContextT]) -> None:
        """Add *entry*; a second rule of the same id is a programming error (ValueError)."""
        if entry.id in self._rules:
            raise ValueError(f"two rules are called {entry.id}")
        self._rules[entry.id] = entry
        self._plans.clear()

    def rule(
        self,
        rule_id: str,
        clause: str,
        title: str,
        *,
        hint: str,
        standards: Iterable[Standard] = ALL,
        applies: Sequence[str] = ("any",),
        where: str = "",
        severity_by_standard: Mapping[Standard, Severity] | None = None,
        needs: Needs | None = None,
        severity: Severity | None = None,
        unverified: str = "",
    ) -> Callable[[Callable[[ContextT], Verdict]], Callable[[ContextT], Verdict]]:
        """Register the decorated function as *rule_id*; *severity* overrides what the prefix says."""

        def decorate(check: Callable[[ContextT], Verdict]) -> Callable[[ContextT], Verdict]:
            self.add(
                Rule(
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
                    needs=needs or _NOTHING,
                    subject=self.subject,
                    unverified=unverified,
                )
            )
            return check

        return decorate

    def rules(self) -> tuple[Rule[ContextT], ...]:
        """Return every rule, sorted by id."""
        return tuple(sorted(self._rules.values(), key=lambda entry: entry.id))

    def plan(self, standard: Standard | None, tokens: frozenset[str], available: frozenset[str]) -> Plan[ContextT]:
        """Choose the rules of *standard* that apply to an object with *tokens*, in registration order."""
        key = (standard, tokens, available)
        found = self._plans.get(key)
        if found is None:
            found = self._plans[key] = self._choose(standard, tokens, available)
        return found

    def _choose(self, standard: Standard | None, tokens: frozenset[str], available: frozenset[str]) -> Plan[ContextT]:
        chosen = [
            (entry, entry.needs.missing(available))
            for entry in self._rules.values()
            if (entry.standards == ALL if standard is None else standard in entry.standards)
            and not tokens.isdisjoint(entry.applies)
        ]
        checks = tuple((entry, entry.severity_for(standard)) for entry, missing in chosen if not missing)
        return Plan(
            checks=checks,
            ids=tuple(entry.id for entry, _ in checks),
            unjudged=tuple(Unjudged(entry.id, missing) for entry, missing in chosen if missing),
        )


CERTIFICATES: Final[Registry[CertificateContext]] = Registry("certificate")
rule: Final = CERTIFICATES.rule
"""Register a rule about certificates."""


def list_rules() -> tuple[Rule[CertificateContext], ...]:
    """Return every certificate rule, sorted by id; `chargepki.pki.lint.catalogue` has those about other objects too."""
    return CERTIFICATES.rules()


def tokens_of(profile: Profile | None, *, is_ca: bool) -> frozenset[str]:
    """Return what `Rule.applies` is compared with. Without a profile only the certificate's own cA bit is known."""
    if profile is None:
        return _ANY_CA if is_ca else _ANY_LEAF
    return _profile_tokens(profile.is_ca, profile.kind.value, profile.role)


_ANY_CA: Final = frozenset({"any", "ca"})
_ANY_LEAF: Final = frozenset({"any", "leaf"})


@cache
def _profile_tokens(is_ca: bool, kind: str, role: str) -> frozenset[str]:  # a cache key, not an option
    return frozenset({"any", "ca" if is_ca else "leaf", kind, role})


@cache
def available_data(data: LintData, *, issuer: bool, now: bool, signature: bool) -> frozenset[str]:
    """Return what `Needs` may ask for."""
    given = {"issuer": issuer, "now": now, "signature": signature}
    return data.available | {name for name, present in given.items() if present}


_MOST_PER_RULE: Final = 100


def findings_of(entry: Rule[ContextT], severity: Severity, verdict: str | Sequence[Problem]) -> list[Finding]:
    """Return what *entry* says as findings."""
    problems = (Problem(verdict),) if isinstance(verdict, str) else verdict
    if len(problems) > _MOST_PER_RULE:
        # A hostile object can break a rule at each of its octets; a report of megabytes helps nobody.
        left = len(problems) - _MOST_PER_RULE
        problems = (*problems[:_MOST_PER_RULE], Problem(f"and {left} more of the kind"))
    return [
        Finding(
            rule=entry.id,
            severity=problem.severity or severity,
            message=printable(problem.message),
            clause=entry.clause,
            hint=entry.hint,
            where=problem.where or entry.where,
        )
        for problem in problems
    ]


def judge(plan: Plan[ContextT], context: ContextT, kind: str, profile_id: str | None = None) -> LintReport:
    """Run the rules of *plan* on *context*."""
    findings: list[Finding] = []
    skipped: list[Unjudged] = []
    for entry, severity in plan.checks:
        verdict = entry.check(context)
        if not verdict:
            continue
        if isinstance(verdict, NotEvaluated):
            skipped.append(Unjudged(entry.id, verdict.reason))
        else:
            findings += findings_of(entry, severity, verdict)
    run = plan.ids
    if skipped:
        left_out = {each.rule for each in skipped}
        run = tuple(rule_id for rule_id in run if rule_id not in left_out)
    return LintReport(kind, tuple(findings), run, profile_id, (*plan.unjudged, *skipped))
