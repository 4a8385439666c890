"""The request policy: what of a request is granted, what is ignored, what is refused, rule by rule."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from cryptography import x509

from chargepki.pki import der, names, oids
from chargepki.pki.csr import CertificateRequest, RequestedExtension, check_possession
from chargepki.pki.errors import ChargePkiError, InputError, PolicyRefusal
from chargepki.pki.profiles.base import AttributeRule, KeyUsageBit, Presence, Profile, Syntax
from chargepki.pki.profiles.syntax import check_dns_name, check_value

__all__ = [
    "Outcome",
    "RequestVerdict",
    "RuleVerdict",
    "choose_dns_names",
    "choose_subject",
    "judge_request",
]

_EMITTED: Final = (Presence.REQUIRED, Presence.RECOMMENDED)
_MAX_NOTICES: Final = 32
_MAX_SHOWN: Final = 80


class Outcome(StrEnum):
    """What one rule says about one request."""

    PASS = "pass"  # noqa: S105 - an outcome, not a password
    NOTICE = "notice"
    REFUSE = "refuse"
    NOT_EVALUATED = "not-evaluated"


@dataclass(frozen=True, slots=True)
class RuleVerdict:
    """One rule's verdict; `fix` is empty unless there is something to do."""

    rule: str
    """Stable id: ``possession``, ``key-algorithm``, ``ca-request``, ``extension``, ``subject``, ``subject-CN`` …"""
    outcome: Outcome
    message: str
    clause: str
    fix: str = ""

    def to_json(self) -> dict[str, str]:
        """Return the verdict as JSON-able data."""
        return {
            "rule": self.rule,
            "outcome": self.outcome.value,
            "message": self.message,
            "clause": self.clause,
            "fix": self.fix,
        }


@dataclass(frozen=True, slots=True)
class RequestVerdict:
    """Every rule's verdict on one request for one profile."""

    profile: str
    rules: tuple[RuleVerdict, ...]
    subject: x509.Name | None
    """The subject that a certificate would get; ``None`` when it is refused."""

    @property
    def accepted(self) -> bool:
        """Whether no rule refuses."""
        return not self.refusals

    @property
    def refusals(self) -> tuple[RuleVerdict, ...]:
        """The rules that refuse, in the order of evaluation."""
        return tuple(rule for rule in self.rules if rule.outcome is Outcome.REFUSE)

    @property
    def notices(self) -> tuple[RuleVerdict, ...]:
        """What the requester should know although it stops nothing."""
        return tuple(rule for rule in self.rules if rule.outcome is Outcome.NOTICE)

    def to_json(self) -> dict[str, object]:
        """Return the verdict as JSON-able data."""
        return {
            "profile": self.profile,
            "accepted": self.accepted,
            "subject": None if self.subject is None else names.text(self.subject),
            "rules": [rule.to_json() for rule in self.rules],
        }


def judge_request(
    request: CertificateRequest,
    profile: Profile,
    *,
    subject_defaults: Mapping[str, str] | None = None,
    subject_override: x509.Name | None = None,
) -> RequestVerdict:
    """Judge *request* against *profile*; every rule is evaluated, so that one look shows all that is wrong.

    Args:
        subject_defaults: short name to value, for fields that the request leaves out (the station's record).
        subject_override: an operator's subject, which takes the place of the requested one.
    """
    planned = _plan_subject(profile, request, subject_override, subject_defaults or {})
    rules = (
        _judge_possession(request),
        _judge_key(request, profile),
        *_judge_extensions(request.extensions, profile),
        *planned.rules,
    )
    return RequestVerdict(profile.id, rules, planned.name)


def choose_subject(
    profile: Profile,
    request: CertificateRequest | None,
    *,
    override: x509.Name | None = None,
    defaults: Mapping[str, str] | None = None,
) -> x509.Name:
    """Return the subject of a certificate, its attributes in the profile's order.

    A value comes from *override* as a whole, else from the request, else from *defaults*; what the profile fixes stays
    fixed. Attributes outside a closed profile are left out of a request and refused in an override.

    Raises:
        PolicyRefusal: a demanded attribute is missing, doubled, or breaks its syntax.
    """
    planned = _plan_subject(profile, request, override, defaults or {})
    refused = [rule for rule in planned.rules if rule.outcome is Outcome.REFUSE]
    if refused or planned.name is None:
        raise PolicyRefusal(
            "; ".join(rule.message for rule in refused) or "no subject can be made",
            why="; ".join(dict.fromkeys(rule.clause for rule in refused)),
            fix="; ".join(dict.fromkeys(rule.fix for rule in refused if rule.fix)),
        )
    return planned.name


def choose_dns_names(profile: Profile, subject: x509.Name, requested: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the dNSName values for a certificate of *profile*: the CN first, then *requested*, each once.

    Stations and libraries disagree on whether CN or subjectAltName counts, so a CSMS certificate has the name in both.

    Raises:
        PolicyRefusal: the profile has no subjectAltName, or a name is a wildcard, an address or no host name.

    Clause: OCPP A00.FR.510, A00.FR.511 note; RFC 9525 6.3.
    """
    if profile.dns_names is Presence.FORBIDDEN:
        if requested:
            raise PolicyRefusal(
                f"{profile.id} has no subjectAltName", why=profile.clause, fix="leave --dns out; it is for ocpp/csms"
            )
        return ()
    common_name = names.get(subject, "CN")
    wanted = ([common_name] if common_name else []) + list(requested)
    for name in wanted:
        fault = check_dns_name(name)
        if fault:
            raise PolicyRefusal(fault.what, why=fault.clause, fix=fault.fix)
    # Host names are compared without case (RFC 9525 6.3): one spelling of each is enough.
    return tuple(
        {name.lower(): name for name in reversed(wanted)}[key] for key in dict.fromkeys(map(str.lower, wanted))
    )


# ---------------------------------------------------------------- possession, key, extensions


def _judge_possession(request: CertificateRequest) -> RuleVerdict:
    try:
        check_possession(request)
    except PolicyRefusal as exc:
        return RuleVerdict("possession", Outcome.REFUSE, exc.what, "RFC 2986 3", exc.fix)
    return RuleVerdict("possession", Outcome.PASS, "the request is signed with its own key", "RFC 2986 3")


def _judge_key(request: CertificateRequest, profile: Profile) -> RuleVerdict:
    algorithm = request.key_algorithm
    if algorithm in profile.keys.algorithms:
        return RuleVerdict("key-algorithm", Outcome.PASS, f"{algorithm.value} is allowed", profile.keys.clause)
    return RuleVerdict(
        "key-algorithm",
        Outcome.REFUSE,
        f"{algorithm.value} is not allowed in {profile.id}",
        profile.keys.clause,
        "make a key of " + " or ".join(each.value for each in profile.keys.algorithms),
    )


def _judge_extensions(extensions: tuple[RequestedExtension, ...], profile: Profile) -> Iterator[RuleVerdict]:
    clause = "RFC 5280 4.2.1.9, 4.2.1.3: the CA decides who is a CA"
    asked = [reason for extension in extensions if (reason := _asks_for_ca(extension))]
    if not asked:
        yield RuleVerdict("ca-request", Outcome.PASS, "the request does not ask to be a CA", clause)
    elif profile.is_ca:
        yield RuleVerdict("ca-request", Outcome.PASS, f"{', '.join(asked)}: {profile.id} is a CA profile", clause)
    else:
        yield RuleVerdict(
            "ca-request",
            Outcome.REFUSE,
            f"the request asks for {' and '.join(dict.fromkeys(asked))}",
            clause,
            "make the request without basicConstraints CA:TRUE and without keyCertSign",
        )
    ignored = list(dict.fromkeys(_extension_name(extension.oid) for extension in extensions))
    for name in ignored[:_MAX_NOTICES]:
        yield RuleVerdict(
            "extension", Outcome.NOTICE, f"the requested {name} is ignored", "the profile alone decides on extensions"
        )
    if len(ignored) > _MAX_NOTICES:
        more = len(ignored) - _MAX_NOTICES
        yield RuleVerdict(
            "extension", Outcome.NOTICE, f"{more} more are ignored", "the profile alone decides on extensions"
        )


def _asks_for_ca(extension: RequestedExtension) -> str | None:
    """Return what makes *extension* a request to be a CA, or ``None``; undecodable counts as asking."""
    try:
        if extension.oid == oids.BASIC_CONSTRAINTS:
            fields = der.parse(extension.value).children(der.SEQUENCE)
            return "CA:TRUE" if any(field.tag == der.BOOLEAN and field.as_boolean() for field in fields) else None
        if extension.oid == oids.KEY_USAGE:
            bits = der.parse(extension.value).as_bits()
            return KeyUsageBit.KEY_CERT_SIGN.value if KeyUsageBit.KEY_CERT_SIGN.bit in bits else None
    except InputError:
        return f"an unreadable {_extension_name(extension.oid)}"
    return None


def _extension_name(dotted: str) -> str:
    return oids.name_of(dotted)


# ---------------------------------------------------------------- subject


@dataclass(frozen=True, slots=True)
class _Planned:
    """A subject in the making: the name, unless a rule refuses, and what every rule says."""

    name: x509.Name | None
    rules: tuple[RuleVerdict, ...]


def _plan_subject(
    profile: Profile, request: CertificateRequest | None, override: x509.Name | None, defaults: Mapping[str, str]
) -> _Planned:
    if override is not None:
        given, source = names.attributes(override), "the subject given"
    elif request is not None:
        given, source = list(request.subject), "the request"
    else:
        given, source = [], "the subject"
    rules: list[RuleVerdict] = []
    pairs: list[tuple[str, str]] = []
    for rule in profile.subject.attributes:
        value, verdicts = _plan_attribute(profile, rule, given, defaults, explicit=override is not None, source=source)
        rules += verdicts
        if value is not None:
            pairs.append((rule.attribute, value))
    rules += _judge_leftovers(profile, given, explicit=override is not None, source=source)
    if any(rule.outcome is Outcome.REFUSE for rule in rules):
        return _Planned(None, tuple(rules))
    try:
        name = _take_open(profile, request, override) or names.build_name(pairs)
    except ChargePkiError as exc:
        return _Planned(None, (*rules, RuleVerdict("subject", Outcome.REFUSE, exc.what, exc.why or "X.520", exc.fix)))
    return _Planned(name, tuple(rules))


def _take_open(profile: Profile, request: CertificateRequest | None, override: x509.Name | None) -> x509.Name | None:
    """Return the subject unchanged where the profile is open: a cross-certificate repeats the certified CA's name."""
    if profile.subject.closed:
        return None
    if override is not None:
        return override
    return names.name_from_der(request.subject_der) if request is not None else None


def _plan_attribute(
    profile: Profile,
    rule: AttributeRule,
    given: Sequence[tuple[str, str]],
    defaults: Mapping[str, str],
    *,
    explicit: bool,
    source: str,
) -> tuple[str | None, list[RuleVerdict]]:
    """Return the value of one attribute (``None``: left out) and the verdicts on it."""
    identifier = f"subject-{rule.attribute}"
    found = [value for attribute, value in given if attribute == rule.attribute]
    if rule.fixed is not None:
        return _plan_fixed(profile, rule, found, explicit=explicit, source=source)
    if len(found) > 1 and profile.subject.closed:
        message = f"{source} has {rule.attribute} {len(found)} times: which one counts is not ours to guess"
        return None, [RuleVerdict(identifier, Outcome.REFUSE, message, rule.clause, f"give one {rule.attribute}")]
    value = found[0] if found else defaults.get(rule.attribute)
    if value is None:
        return None, _judge_absent(profile, rule, source)
    value_used = value.upper() if rule.syntax is Syntax.COUNTRY else value
    faults = check_value(rule.syntax, value, profile.standard)
    verdicts = [
        RuleVerdict(
            identifier,
            Outcome.REFUSE if fault.fatal else Outcome.NOTICE,
            f"{rule.attribute}: {fault.what}",
            fault.clause,
            fault.fix,
        )
        for fault in faults
    ]
    if any(fault.fatal for fault in faults):
        return None, verdicts
    origin = f"from {source}" if found else "from the record"
    verdicts.append(
        RuleVerdict(identifier, Outcome.PASS, f"{rule.attribute}={_shown(value_used)} {origin}", rule.clause)
    )
    return value_used, verdicts


def _plan_fixed(
    profile: Profile, rule: AttributeRule, found: Sequence[str], *, explicit: bool, source: str
) -> tuple[str | None, list[RuleVerdict]]:
    """Return the profile's own value, unless an operator may and does say otherwise."""
    assert rule.fixed is not None
    identifier = f"subject-{rule.attribute}"
    theirs = found[0] if len(found) == 1 else None
    accepted = theirs is not None and (theirs == rule.fixed or theirs in rule.also_accepted)
    if explicit and found and not accepted:
        if rule.presence is Presence.REQUIRED or theirs is None:
            message = f"{rule.attribute} must be {rule.fixed} in {profile.id}, not {_shown(', '.join(found))}"
            fix = f"leave {rule.attribute} out, it is added"
            return None, [RuleVerdict(identifier, Outcome.REFUSE, message, rule.clause, fix)]
        message = f"{rule.attribute}={_shown(theirs)} instead of the usual {rule.fixed}"
        return theirs, [RuleVerdict(identifier, Outcome.NOTICE, message, rule.clause)]
    if explicit and theirs is not None:
        return theirs, [RuleVerdict(identifier, Outcome.PASS, f"{rule.attribute}={theirs}", rule.clause)]
    if rule.presence not in _EMITTED:
        return None, []
    if found and theirs != rule.fixed:
        message = f"{rule.attribute}={_shown(', '.join(found))} of {source} is replaced by {rule.fixed}"
        return rule.fixed, [RuleVerdict(identifier, Outcome.NOTICE, message, rule.clause)]
    message = f"{rule.attribute}={rule.fixed} by the profile"
    return rule.fixed, [RuleVerdict(identifier, Outcome.PASS, message, rule.clause)]


def _judge_absent(profile: Profile, rule: AttributeRule, source: str) -> list[RuleVerdict]:
    identifier = f"subject-{rule.attribute}"
    if rule.presence is Presence.REQUIRED:
        message = f"{source} has no {rule.attribute}, which {profile.id} demands"
        fix = f"add {rule.attribute} to the request, or give the subject with --subject"
        return [RuleVerdict(identifier, Outcome.REFUSE, message, rule.clause, fix)]
    outcome = Outcome.NOTICE if rule.presence is Presence.RECOMMENDED else Outcome.NOT_EVALUATED
    return [RuleVerdict(identifier, outcome, f"{source} has no {rule.attribute}", rule.clause)]


def _judge_leftovers(
    profile: Profile, given: Sequence[tuple[str, str]], *, explicit: bool, source: str
) -> Iterator[RuleVerdict]:
    """Yield a verdict for each attribute that the profile does not know."""
    if not profile.subject.closed:
        return
    unknown = dict.fromkeys(attribute for attribute, _ in given if profile.subject.find(attribute) is None)
    known = ", ".join(rule.attribute for rule in profile.subject.attributes)
    for attribute in list(unknown)[:_MAX_NOTICES]:
        message = f"{attribute} is not part of the subject of {profile.id}"
        if explicit:
            yield RuleVerdict("subject", Outcome.REFUSE, message, profile.clause, f"its attributes are {known}")
        else:
            yield RuleVerdict("subject", Outcome.NOTICE, f"{message}: left out of {source}", profile.clause)


def _shown(value: str) -> str:
    return value if len(value) <= _MAX_SHOWN else value[:_MAX_SHOWN] + "…"
