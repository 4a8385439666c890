"""The request policy: what of a request is granted, what is ignored, what is refused, rule by rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Final, NamedTuple

from cryptography import x509

from chargepki.pki import der, names, oids
from chargepki.pki.csr import CertificateRequest, RequestedExtension, check_possession
from chargepki.pki.errors import InputError, PolicyRefusal
from chargepki.pki.keys import KeyAlgorithm
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
        _judge_key(request.key_algorithm, profile),
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


# Verdicts are values, and a fleet's requests differ in little but the CN: what is the same each time is remembered.
# Only small inputs are, so that hostile requests cannot fill the memory.
_MAX_REMEMBERED: Final = 256


# ---------------------------------------------------------------- possession, key, extensions

_POSSESSION: Final = RuleVerdict("possession", Outcome.PASS, "the request is signed with its own key", "RFC 2986 3")


def _judge_possession(request: CertificateRequest) -> RuleVerdict:
    try:
        check_possession(request)
    except PolicyRefusal as exc:
        return RuleVerdict("possession", Outcome.REFUSE, exc.what, "RFC 2986 3", exc.fix)
    return _POSSESSION


@lru_cache(maxsize=512)
def _judge_key(algorithm: KeyAlgorithm, profile: Profile) -> RuleVerdict:
    if algorithm in profile.keys.algorithms:
        return RuleVerdict("key-algorithm", Outcome.PASS, f"{algorithm.value} is allowed", profile.keys.clause)
    return RuleVerdict(
        "key-algorithm",
        Outcome.REFUSE,
        f"{algorithm.value} is not allowed in {profile.id}",
        profile.keys.clause,
        "make a key of " + " or ".join(each.value for each in profile.keys.algorithms),
    )


def _judge_extensions(extensions: tuple[RequestedExtension, ...], profile: Profile) -> tuple[RuleVerdict, ...]:
    small = sum(len(extension.value) + 32 for extension in extensions) <= _MAX_REMEMBERED
    return (_remembered_extensions if small else _judge_each_extension)(extensions, profile)


def _judge_each_extension(extensions: tuple[RequestedExtension, ...], profile: Profile) -> tuple[RuleVerdict, ...]:
    ignored = list(dict.fromkeys(_extension_name(extension.oid) for extension in extensions))
    notices = [f"the requested {name} is ignored" for name in ignored[:_MAX_NOTICES]]
    if len(ignored) > _MAX_NOTICES:
        notices.append(f"{len(ignored) - _MAX_NOTICES} more are ignored")
    clause = "the profile alone decides on extensions"
    return (
        _judge_ca_request(extensions, profile),
        *(RuleVerdict("extension", Outcome.NOTICE, notice, clause) for notice in notices),
    )


_remembered_extensions = lru_cache(maxsize=256)(_judge_each_extension)


def _judge_ca_request(extensions: tuple[RequestedExtension, ...], profile: Profile) -> RuleVerdict:
    clause = "RFC 5280 4.2.1.9, 4.2.1.3: the CA decides who is a CA"
    asked = list(dict.fromkeys(reason for extension in extensions if (reason := _asks_for_ca(extension))))
    if not asked:
        return RuleVerdict("ca-request", Outcome.PASS, "the request does not ask to be a CA", clause)
    if profile.is_ca:
        return RuleVerdict("ca-request", Outcome.PASS, f"{', '.join(asked)}: {profile.id} is a CA profile", clause)
    return RuleVerdict(
        "ca-request",
        Outcome.REFUSE,
        f"the request asks for {' and '.join(asked)}",
        clause,
        "make the request without basicConstraints CA:TRUE and without keyCertSign",
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


class _Planned(NamedTuple):
    """A subject in the making: the name, unless a rule refuses, and what every rule says."""

    name: x509.Name | None
    rules: tuple[RuleVerdict, ...]


class _Attribute(NamedTuple):
    """One attribute in the making: its value (``None``: left out) and the verdicts on it."""

    value: str | None
    rules: tuple[RuleVerdict, ...]
    refused: bool = False


class _Source(NamedTuple):
    """Where the subject comes from, in words, and whether an operator gave it explicitly."""

    text: str
    explicit: bool


_OVERRIDE: Final = _Source("the subject given", explicit=True)
_REQUEST: Final = _Source("the request", explicit=False)
_NOTHING: Final = _Source("the subject", explicit=False)


def _plan_subject(
    profile: Profile, request: CertificateRequest | None, override: x509.Name | None, defaults: Mapping[str, str]
) -> _Planned:
    given: Sequence[tuple[str, str]] = ()
    source = _NOTHING
    if override is not None:
        given, source = names.attributes(override), _OVERRIDE
    elif request is not None:
        given, source = request.subject, _REQUEST
    rules: list[RuleVerdict] = []
    pairs: list[tuple[str, str]] = []
    refused = False
    for rule in profile.subject.attributes:
        attribute = rule.attribute
        found = tuple([value for name, value in given if name == attribute])
        planned = _plan_attribute(profile, rule, found, defaults.get(attribute), source)
        rules += planned.rules
        refused |= planned.refused
        if planned.value is not None:
            pairs.append((attribute, planned.value))
    if profile.subject.closed:
        known = [rule.attribute for rule in profile.subject.attributes]
        leftovers = [
            _judge_leftover(profile, attribute, source)
            for attribute in dict.fromkeys([name for name, _ in given if name not in known])
        ]
        rules += leftovers[:_MAX_NOTICES]
        refused |= source.explicit and bool(leftovers)
    if refused:
        return _Planned(None, tuple(rules))
    try:
        name = _take_open(profile, request, override) or x509.Name([_rdn(*pair) for pair in pairs])
    except InputError as exc:
        return _Planned(None, (*rules, RuleVerdict("subject", Outcome.REFUSE, exc.what, exc.why or "X.520", exc.fix)))
    return _Planned(name, tuple(rules))


@lru_cache(maxsize=1024)
def _rdn(attribute: str, value: str) -> x509.RelativeDistinguishedName:
    # Values that are refused for their length raise, and what raises is not remembered.
    return names.build_name([(attribute, value)]).rdns[0]


def _take_open(profile: Profile, request: CertificateRequest | None, override: x509.Name | None) -> x509.Name | None:
    """Return the subject unchanged where the profile is open: a cross-certificate repeats the certified CA's name."""
    if profile.subject.closed:
        return None
    if override is not None:
        return override
    return names.name_from_der(request.subject_der) if request is not None else None


def _plan_attribute(
    profile: Profile, rule: AttributeRule, found: tuple[str, ...], default: str | None, source: _Source
) -> _Attribute:
    """Plan one attribute from the values *found* in the source, else from *default*."""
    small = sum(map(len, found)) + len(default or "") <= _MAX_REMEMBERED and len(found) <= 2
    return (_remembered_attribute if small else _plan_one)(profile, rule, found, default, source)


def _plan_one(
    profile: Profile, rule: AttributeRule, found: tuple[str, ...], default: str | None, source: _Source
) -> _Attribute:
    if rule.fixed is not None:
        return _plan_fixed(profile, rule, rule.fixed, found, source)
    identifier = f"subject-{rule.attribute}"
    if len(found) > 1 and profile.subject.closed:
        message = f"{source.text} has {rule.attribute} {len(found)} times: which one counts is not ours to guess"
        return _refuse(RuleVerdict(identifier, Outcome.REFUSE, message, rule.clause, f"give one {rule.attribute}"))
    value = found[0] if found else default
    if value is None:
        return _judge_absent(profile, rule, source)
    faults = check_value(rule.syntax, value, profile.standard)
    verdicts = tuple(
        RuleVerdict(
            identifier,
            Outcome.REFUSE if fault.fatal else Outcome.NOTICE,
            f"{rule.attribute}: {fault.what}",
            fault.clause,
            fault.fix,
        )
        for fault in faults
    )
    if any(fault.fatal for fault in faults):
        return _refuse(*verdicts)
    if rule.syntax is Syntax.COUNTRY:
        value = value.upper()
    origin = f"from {source.text}" if found else "from the record"
    taken = RuleVerdict(identifier, Outcome.PASS, f"{rule.attribute}={_shown(value)} {origin}", rule.clause)
    return _Attribute(value, (*verdicts, taken))


_remembered_attribute = lru_cache(maxsize=2048)(_plan_one)


def _plan_fixed(
    profile: Profile, rule: AttributeRule, fixed: str, found: tuple[str, ...], source: _Source
) -> _Attribute:
    """Plan the profile's own value, unless an operator may and does say otherwise."""
    identifier = f"subject-{rule.attribute}"
    theirs = found[0] if len(found) == 1 else None
    if source.explicit and found:
        if theirs is not None and (theirs == fixed or theirs in rule.also_accepted):
            return _Attribute(
                theirs, (RuleVerdict(identifier, Outcome.PASS, f"{rule.attribute}={theirs}", rule.clause),)
            )
        if rule.presence is Presence.REQUIRED or theirs is None:
            message = f"{rule.attribute} must be {fixed} in {profile.id}, not {_shown(', '.join(found))}"
            fix = f"leave {rule.attribute} out, it is added"
            return _refuse(RuleVerdict(identifier, Outcome.REFUSE, message, rule.clause, fix))
        message = f"{rule.attribute}={_shown(theirs)} instead of the usual {fixed}"
        return _Attribute(theirs, (RuleVerdict(identifier, Outcome.NOTICE, message, rule.clause),))
    if rule.presence not in _EMITTED:
        return _Attribute(None, ())
    if found and theirs != fixed:
        message = f"{rule.attribute}={_shown(', '.join(found))} of {source.text} is replaced by {fixed}"
        return _Attribute(fixed, (RuleVerdict(identifier, Outcome.NOTICE, message, rule.clause),))
    message = f"{rule.attribute}={fixed} by the profile"
    return _Attribute(fixed, (RuleVerdict(identifier, Outcome.PASS, message, rule.clause),))


def _judge_absent(profile: Profile, rule: AttributeRule, source: _Source) -> _Attribute:
    identifier = f"subject-{rule.attribute}"
    if rule.presence is Presence.REQUIRED:
        message = f"{source.text} has no {rule.attribute}, which {profile.id} demands"
        fix = f"add {rule.attribute} to the request, or give the subject with --subject"
        return _refuse(RuleVerdict(identifier, Outcome.REFUSE, message, rule.clause, fix))
    outcome = Outcome.NOTICE if rule.presence is Presence.RECOMMENDED else Outcome.NOT_EVALUATED
    return _Attribute(None, (RuleVerdict(identifier, outcome, f"{source.text} has no {rule.attribute}", rule.clause),))


def _judge_leftover(profile: Profile, attribute: str, source: _Source) -> RuleVerdict:
    """Judge an attribute that the profile does not know: an operator's is refused, a request's left out."""
    message = f"{attribute} is not part of the subject of {profile.id}"
    if source.explicit:
        known = ", ".join(rule.attribute for rule in profile.subject.attributes)
        return RuleVerdict("subject", Outcome.REFUSE, message, profile.clause, f"its attributes are {known}")
    return RuleVerdict("subject", Outcome.NOTICE, f"{message}: left out of {source.text}", profile.clause)


def _refuse(*verdicts: RuleVerdict) -> _Attribute:
    return _Attribute(None, verdicts, refused=True)


def _shown(value: str) -> str:
    return value if len(value) <= _MAX_SHOWN else value[:_MAX_SHOWN] + "…"
