"""What the first certificate of a template teaches, and the view of the next ones that is made from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import FunctionType, MethodType
from typing import Any, Final, NamedTuple, cast

from chargepki.pki import oids
from chargepki.pki.certificate_view import AttributeView, CertificateView, TimeView, read_validity, view_tbs
from chargepki.pki.der import DerError
from chargepki.pki.der_tree import PRINTABLE_OCTETS, DerProblem, decode_integer, read_part
from chargepki.pki.extension_view import ExtensionView
from chargepki.pki.findings import Finding, Severity
from chargepki.pki.lint.engine import (
    CERTIFICATES,
    NO_DATA,
    CertificateContext,
    LintReport,
    NotEvaluated,
    Plan,
    Rule,
    Unjudged,
    Verdict,
    available_data,
    findings_of,
    tokens_of,
)
from chargepki.pki.lint.issuance_frame import Frame, Layout, layout_of
from chargepki.pki.lint.run import view_issuer
from chargepki.pki.profiles.base import Profile

__all__ = ["MOST_WINDOWS", "Check", "Template", "learn", "patched_view"]

MOST_WINDOWS: Final = 64
"""Validities that a template remembers."""
_UTF8, _PRINTABLE_TAG = 0x0C, 0x13


class Check(NamedTuple):
    """A rule that runs for each certificate."""

    place: int
    """In the plan."""
    entry: Rule[CertificateContext]
    severity: Severity
    check: Callable[[CertificateContext], Verdict]


class Template(NamedTuple):
    """One kind of certificate: a profile, an issuer, and all octets but the variable fields."""

    profile: Profile
    view: CertificateView
    frame: Frame
    layout: Layout | None
    plan: Plan[CertificateContext]
    fixed: tuple[tuple[int, list[Finding]], ...]
    """Findings of rules that looked at nothing variable, with the rule's place in the plan."""
    skipped: tuple[Unjudged, ...]
    variable: tuple[Check, ...]
    dated: tuple[Check, ...]
    """Rules that looked at the validity alone."""
    windows: dict[bytes, tuple[tuple[tuple[int, list[Finding]], ...], LintReport]]
    """What `dated` rules found, by the encoding of the validity, and the report if no other variable rule finds
    anything: a busy CA issues many certificates a second."""
    times: dict[bytes, tuple[TimeView, TimeView]]
    one_name: bool
    """The CN that varies is the only one."""
    make_view: Callable[[], Any]
    make_key: Callable[[], Any]
    make_known: Callable[[], Any]
    make_context: Callable[[], Any]


def patched_view(data: bytes, frame: Frame, template: Template) -> CertificateView | None:
    """Return the view of *data*, made from the template and the variable fields; ``None`` if one has a fault."""
    problems: list[DerProblem] = []
    _, _, content, end = frame.serial
    serial = data[content:end]
    if not serial or (len(serial) > 1 and (serial[0] in (0, 0xFF)) and (serial[0] ^ serial[1]) < 0x80):
        return None
    attributes = template.view.subject_attributes
    renamed = None
    if frame.name is not None:
        number, content, end = frame.name
        renamed = _renamed(attributes[number], data[content:end])
        if renamed is None:
            return None
        attributes = (*attributes[:number], renamed, *attributes[number + 1 :])
    window = data[frame.validity[1] : frame.validity[3]]
    times = template.times.get(window)
    if times is None:
        try:
            times = read_part(data, frame.validity[1], frame.validity[3], read_validity, problems)
        except DerError:
            return None
        if problems:
            return None
        if len(template.times) >= MOST_WINDOWS:
            template.times.clear()
        template.times[window] = times
    key = template.make_key()
    key.der = data[frame.spki[1] : frame.spki[3]]
    key.bits = data[frame.bits : frame.spki[3]]
    known = template.make_known()
    if frame.key_id is None:
        known.subject_key_id = template.view.known.subject_key_id
    else:
        known.subject_key_id = data[frame.key_id[2] : frame.key_id[3]]
    view = template.make_view()
    view.der = None
    view.tbs = data
    view.serial = decode_integer(serial)
    view.serial_content = serial
    view.subject = data[frame.subject[1] : frame.subject[3]]
    view.subject_attributes = attributes
    view.common_name = renamed.text if renamed is not None and template.one_name else template.view.common_name
    view.not_before, view.not_after = times
    view.key = key
    view.known = known
    view.source = (data, frame, template)
    return cast("CertificateView", view)


def _renamed(old: AttributeView, value: bytes) -> AttributeView | None:
    """Return the CN with another value, ``None`` when its characters do not belong into its string type."""
    if old.tag == _UTF8:
        if not value.isascii():
            try:
                value.decode("utf-8")
            except UnicodeDecodeError:
                return None
    elif old.tag != _PRINTABLE_TAG or not PRINTABLE_OCTETS.issuperset(value):
        return None
    return AttributeView(old.oid, old.tag, value)


def _placed(data: bytes, frame: Frame, template: Template) -> tuple[ExtensionView, ...]:
    """Return the template's extensions at the places that they have in *data*, with its key identifier."""
    placed = template.view.extensions
    shift = frame.extensions - template.frame.extensions
    if shift:
        placed = tuple(
            [
                ExtensionView(each.oid, each.critical, each.value, each.offset + shift, each.value_offset + shift)
                for each in placed
            ]
        )
    if frame.key_id is None:
        return placed
    number, value, _, end = frame.key_id
    each = placed[number]
    changed = ExtensionView(each.oid, each.critical, data[value:end], each.offset, each.value_offset)
    return (*placed[:number], changed, *placed[number + 1 :])


def _maker(value: Any, variable: frozenset[str], **computed: property) -> Callable[[], Any]:
    """Return a class with the fields, properties and methods of *value* of which only the *variable* ones are set.

    Filling a frozen view of two dozen fields would cost as much as judging it.
    """
    kind = type(value)
    methods = {name: each for name, each in vars(kind).items() if isinstance(each, property | FunctionType)}
    own = {name: each for name, each in methods.items() if not name.startswith("_") and name not in variable}
    fixed = {each: getattr(value, each) for each in value._fields if each not in variable}
    return type(
        f"Fixed{kind.__name__}", (), {**own, **fixed, **computed, "__slots__": tuple(variable - computed.keys())}
    )


class _Traced:
    """Stands for a view and notes which of its variable fields are read, also by its own methods and properties."""

    __slots__ = ("_seen", "_target", "_variable", "_wrapped")

    def __init__(
        self, target: object, variable: frozenset[str], seen: set[str], wrapped: Mapping[str, object] | None = None
    ) -> None:
        self._target = target
        self._variable = variable
        self._seen = seen
        self._wrapped = wrapped or {}

    def __getattr__(self, name: str) -> Any:
        found = type(self._target).__dict__.get(name)
        if isinstance(found, property) and found.fget is not None:
            return found.fget(self)
        if isinstance(found, FunctionType):
            return MethodType(found, self)
        if name in self._variable:
            self._seen.add(name)
        return self._wrapped[name] if name in self._wrapped else getattr(self._target, name)


_WINDOW: Final = frozenset({"not_before", "not_after"})
_VIEW_VARIABLE: Final = _WINDOW | {"tbs", "der", "serial", "serial_content", "subject"}
_VIEW_PARTS: Final = _VIEW_VARIABLE | {"subject_attributes", "common_name", "source", "extensions", "key", "known"}
_KEY_VARIABLE: Final = frozenset({"der", "bits"})
_KNOWN_VARIABLE: Final = frozenset({"subject_key_id"})
_PLACE: Final = frozenset({"offset", "value_offset"})
_VALUE: Final = frozenset({"content"})
_NOTHING: Final[frozenset[str]] = frozenset()


def _traced(view: CertificateView, frame: Frame, seen: set[str]) -> CertificateView:
    key_id = None if frame.key_id is None else frame.key_id[0]
    name = None if frame.name is None else frame.name[0]
    wrapped = {
        "key": _Traced(view.key, _KEY_VARIABLE, seen),
        "known": _Traced(view.known, _KNOWN_VARIABLE, seen),
        "extensions": tuple(
            _Traced(each, _PLACE | {"value"} if number == key_id else _PLACE, seen)
            for number, each in enumerate(view.extensions)
        ),
        "subject_attributes": tuple(
            _Traced(each, _VALUE if number == name else _NOTHING, seen)
            for number, each in enumerate(view.subject_attributes)
        ),
    }
    return cast("CertificateView", _Traced(view, _VIEW_VARIABLE, seen, wrapped))


def learn(tbs: bytes, frame: Frame, profile: Profile, issuer_der: bytes | None) -> Template | None:
    """Judge the first certificate of a template and find out what is fixed; ``None`` when it is not well-formed."""
    issuer = None if issuer_der is None else view_issuer(issuer_der)
    try:
        view = view_tbs(tbs)
    except DerError:
        return None
    # An RDN of several attributes shifts the places of those behind it.
    if view.problems or len(view.subject_attributes) != frame.rdns:
        return None
    available = available_data(NO_DATA, issuer=issuer is not None, now=False, signature=False)
    plan = CERTIFICATES.plan(profile.standard, tokens_of(profile, is_ca=view.is_ca), available)
    fixed: list[tuple[int, list[Finding]]] = []
    skipped: list[Unjudged] = []
    variable: list[Check] = []
    dated: list[Check] = []
    for place, (entry, severity) in enumerate(plan.checks):
        seen: set[str] = set()
        verdict = entry.check(CertificateContext(_traced(view, frame, seen), profile, issuer))
        if seen:
            (dated if seen <= _WINDOW else variable).append(Check(place, entry, severity, entry.check))
        elif isinstance(verdict, NotEvaluated):
            skipped.append(Unjudged(entry.id, verdict.reason))
        elif verdict:
            fixed.append((place, findings_of(entry, severity, verdict)))
    return Template(
        profile, view, frame, layout_of(tbs, frame), plan, tuple(fixed), tuple(skipped), tuple(variable), tuple(dated),
        {}, {},
        len(view.subject_values(oids.COMMON_NAME)) == 1,
        _maker(view, _VIEW_PARTS, extensions=property(lambda self: _placed(*self.source))),
        _maker(view.key, _KEY_VARIABLE),
        _maker(view.known, _KNOWN_VARIABLE),
        _maker(CertificateContext(view, profile, issuer), frozenset({"view"})),
    )  # fmt: skip
