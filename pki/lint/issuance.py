"""Judge what is about to be signed, quickly: what the template fixes once per template, the rest per certificate.

No rule declares what it looks at. The first certificate of a template is judged through views that note which of the
variable fields each rule reads. A rule is a pure function: one that read none of them takes the same path, and comes
to the same verdict, for every certificate whose fixed fields have the same octets. The others run each time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from threading import Lock
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
from chargepki.pki.lint.run import lint_tbs, view_issuer
from chargepki.pki.profiles.base import Profile

__all__ = ["lint_issuance"]

_MOST_TEMPLATES: Final = 128
_MOST_WINDOWS: Final = 64
_TAGS: Final = (0xA0, 0x02, 0x30, 0x30, 0x30, 0x30, 0x30, 0xA3)
_SKI: Final = bytes.fromhex("0603551d0e")
_CN: Final = bytes.fromhex("0603550403")
_UTF8, _PRINTABLE_TAG = 0x0C, 0x13

_Element = tuple[int, int, int, int]  # tag, start, content, end


def lint_issuance(tbs: bytes, *, profile: Profile, issuer_der: bytes | None = None) -> LintReport:
    """Judge to-be-signed bytes exactly as `lint_tbs` does, at a fraction of its cost from the second one on.

    Meant for a CA that issues many certificates under few profiles: rules whose verdict the template fixes (profile,
    issuer, extensions, algorithms) are judged once per template.
    """
    template = _recent.get((id(profile), issuer_der))
    frame = None if template is None or template.profile is not profile else _match(tbs, template)
    if template is None or frame is None:
        frame = _frame(tbs)
        if frame is None:  # not as our templates are
            return lint_tbs(tbs, profile=profile, issuer_der=issuer_der)
        template = _find(tbs, frame, profile, issuer_der)
        if template is None:
            return lint_tbs(tbs, profile=profile, issuer_der=issuer_der)
    view = _patched(tbs, frame, template)
    if view is None:
        return lint_tbs(tbs, profile=profile, issuer_der=issuer_der)
    return _judge(view, tbs[frame.validity[1] : frame.validity[3]], template)


def _find(tbs: bytes, frame: _Frame, profile: Profile, issuer_der: bytes | None) -> _Template | None:
    """Return the template of *tbs*, learnt now if it is new; ``None`` when it cannot be one."""
    key = (profile.id, issuer_der, *frame.fixed)
    template = _templates.get(key)
    if template is None or template.profile is not profile:
        template = _learn(tbs, frame, profile, issuer_der)
        if template is None:
            return None
    with _lock:
        if len(_templates) >= _MOST_TEMPLATES or len(_recent) >= _MOST_TEMPLATES:
            _templates.clear()
            _recent.clear()
        _templates[key] = template
        _recent[id(profile), issuer_der] = template
    return template


class _Frame(NamedTuple):
    """Where the fields of a TBSCertificate lie, and the octets that a template fixes."""

    fixed: tuple[bytes, ...]
    serial: _Element
    validity: _Element
    subject: _Element
    name: tuple[int, int, int] | None
    """Of the common name: its place among the attributes, where its value begins, and where it ends."""
    rdns: int
    spki: _Element
    bits: int
    """Where the public key itself begins."""
    extensions: list[_Element]
    key_id: tuple[int, int, int] | None
    """Of SubjectKeyIdentifier: its place among the extensions, where its value begins, and where the identifier."""


class _Check(NamedTuple):
    """A rule that runs for each certificate."""

    place: int
    """In the plan."""
    entry: Rule[CertificateContext]
    severity: Severity
    check: Callable[[CertificateContext], Verdict]


class _Template(NamedTuple):
    profile: Profile
    view: CertificateView
    frame: _Frame
    layout: _Layout | None
    plan: Plan[CertificateContext]
    fixed: tuple[tuple[int, list[Finding]], ...]
    """Findings of rules that looked at nothing variable, with the rule's place in the plan."""
    skipped: tuple[Unjudged, ...]
    variable: tuple[_Check, ...]
    dated: tuple[_Check, ...]
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


_templates: dict[tuple[object, ...], _Template] = {}
_recent: dict[tuple[int, bytes | None], _Template] = {}
"""The template that was used last for a profile and an issuer: the next certificate most likely has it too."""
_lock: Final = Lock()


class _Layout(NamedTuple):
    """The octets of a template between its variable fields."""

    version: bytes
    signer: bytes
    """signature and issuer."""
    window: int
    """Length of validity."""
    before_name: bytes
    """RDNs before the CN, and after it."""
    after_name: bytes
    name_tag: int
    spki: bytes
    """Up to the public key itself, whose length follows."""
    bits: int
    before_key_id: bytes
    """Extensions up to the key identifier; its length, and what follows it."""
    key_id: int
    after_key_id: bytes


def _layout(data: bytes, frame: _Frame) -> _Layout | None:
    if frame.name is None or frame.key_id is None:
        return None
    number, value, end = frame.name
    own_id = frame.key_id[2]
    id_end = frame.extensions[frame.key_id[0]][3]
    before = data[frame.subject[2] : value - 11] if number else b""
    return _Layout(
        version=data[frame.serial[1] - 5 : frame.serial[1]],
        signer=data[frame.serial[3] : frame.validity[1]],
        window=frame.validity[3] - frame.validity[1],
        before_name=before,
        after_name=data[end : frame.subject[3]],
        name_tag=data[value - 2],
        spki=data[frame.spki[1] : frame.bits],
        bits=frame.spki[3] - frame.bits,
        before_key_id=data[frame.spki[3] : own_id],
        key_id=id_end - own_id,
        after_key_id=data[id_end:],
    )


def _match(data: bytes, template: _Template) -> _Frame | None:
    """Return where the variable fields of *data* lie if all else has the octets of *template*; ``None`` otherwise.

    Does what `_frame` does with a third of the work, for certificates of a template that is known already.
    """
    layout = template.layout
    size = len(data)
    if layout is None or size < 0x100:
        return None
    try:
        if data[:2] != b"\x30\x82" or (data[2] << 8 | data[3]) != size - 4 or not data.startswith(layout.version, 4):
            return None
        serial = 4 + len(layout.version)
        end = serial + 2 + data[serial + 1]
        if data[serial] != 0x02 or data[serial + 1] > 0x7F or not data.startswith(layout.signer, end):
            return None
        validity = end + len(layout.signer)
        subject = validity + layout.window
        length = data[subject + 1]
        content = subject + 2
        if length == 0x81:
            length, content = data[subject + 2], subject + 3
            if length < 0x80:
                return None
        elif length > 0x7F:
            return None
        stop = content + length
        rdn = content + len(layout.before_name)
        octets = data[rdn + 10]
        value = rdn + 11
        head = bytes((0x31, octets + 9, 0x30, octets + 7, 6, 3, 0x55, 4, 3, layout.name_tag)) if octets < 0x77 else b""
        key_id = stop + len(layout.spki) + layout.bits + len(layout.before_key_id)
        if (
            data[validity] != 0x30
            or data[subject] != 0x30
            or not head
            or not data.startswith(layout.before_name, content)
            or not data.startswith(head, rdn)
            or value + octets + len(layout.after_name) != stop
            or not data.startswith(layout.after_name, value + octets)
            or not data.startswith(layout.spki, stop)
            or not data.startswith(layout.before_key_id, stop + len(layout.spki) + layout.bits)
            or data[key_id + layout.key_id :] != layout.after_key_id
        ):
            return None
    except IndexError:
        return None
    learnt = template.frame
    spki_end = stop + len(layout.spki) + layout.bits
    extensions = learnt.extensions
    shift = spki_end - learnt.spki[3]
    if shift:
        extensions = [(tag, at + shift, inner + shift, until + shift) for tag, at, inner, until in extensions]
    number, own_value, own_id = learnt.key_id or (0, 0, 0)
    return _Frame(
        (),
        (0x02, serial, serial + 2, end),
        (0x30, validity, validity, subject),
        (0x30, subject, content, stop),
        (learnt.name[0] if learnt.name else 0, value, value + octets),
        learnt.rdns,
        (0x30, stop, stop, spki_end),
        stop + len(layout.spki),
        extensions,
        (number, own_value + shift, own_id + shift),
    )


def _frame(data: bytes) -> _Frame | None:
    """Take the bytes apart; ``None`` when they are not exactly of the form that is handled here."""
    try:
        roots = _level(data, 0, len(data))
        if roots is None or len(roots) != 1 or roots[0][0] != 0x30:
            return None
        parts = _level(data, roots[0][2], roots[0][3])
        if parts is None or tuple([part[0] for part in parts]) != _TAGS:
            return None
        version, serial, algorithm, issuer, validity, subject, spki, holder = parts
        lists = _level(data, holder[2], holder[3])
        halves = _level(data, spki[2], spki[3])
        if not lists or len(lists) != 1 or not halves or len(halves) != 2 or lists[0][0] != 0x30:
            return None
        extensions = _level(data, lists[0][2], lists[0][3])
        rdns = _level(data, subject[2], subject[3])
        if rdns is None or not extensions or halves[1][0] != 0x03 or data[halves[1][2]] != 0:
            return None
        key_id = None
        fixed = [data[version[1] : version[3]], data[algorithm[1] : algorithm[3]], data[issuer[1] : issuer[3]]]
        bits = halves[1][2] + 1
        fixed.append(data[spki[1] : bits])
        name = None
        for number, (_, start, content, end) in enumerate(rdns):
            # An RDN of one attribute, the CN, in short lengths; anything else is fixed.
            if name is None and data[content + 2 : content + 7] == _CN and data[start + 1] == end - content < 0x80:
                if data[start] != 0x31 or data[content] != 0x30:
                    return None
                if data[content + 1] != end - content - 2 or data[content + 8] != end - content - 9:
                    return None
                name = (number, content + 9, end)
                fixed.append(data[content + 7 : content + 8])
            else:
                fixed.append(data[start:end])
        for number, (_, start, content, end) in enumerate(extensions):
            if data[content : content + 5] != _SKI:
                fixed.append(data[start:end])
                continue
            found = _key_id(data, content + 5, end)
            if found is None or key_id is not None:
                return None
            key_id = (number, *found)
            fixed.append(data[start : found[1]])
    except IndexError:
        return None
    return _Frame(tuple(fixed), serial, validity, subject, name, len(rdns), spki, bits, extensions, key_id)


def _level(data: bytes, pos: int, end: int) -> list[_Element] | None:
    """Return the elements of ``data[pos:end]``, ``None`` when one is not DER or larger than 64 KiB."""
    elements = []
    while pos < end:
        length, content = data[pos + 1], pos + 2
        if length > 0x7F:
            if length == 0x81:
                length, content = data[pos + 2], pos + 3
                if length < 0x80:
                    return None
            elif length == 0x82:
                length, content = data[pos + 2] << 8 | data[pos + 3], pos + 4
                if length < 0x100:
                    return None
            else:
                return None
        stop = content + length
        if stop > end:
            return None
        elements.append((data[pos], pos, content, stop))
        pos = stop
    return elements


def _key_id(data: bytes, pos: int, end: int) -> tuple[int, int] | None:
    """Return where the value of SubjectKeyIdentifier and where the identifier in it begin."""
    if data[pos] == 0x01:
        if data[pos + 1 : pos + 3] != b"\x01\xff":
            return None
        pos += 3
    rest = end - pos - 2
    whole = data[pos] == 0x04 and data[pos + 1] == rest and data[pos + 2] == 0x04 and data[pos + 3] == rest - 2
    return (pos + 2, pos + 4) if whole and rest < 0x80 else None


def _patched(data: bytes, frame: _Frame, template: _Template) -> CertificateView | None:
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
        if len(template.times) >= _MOST_WINDOWS:
            template.times.clear()
        template.times[window] = times
    key = template.make_key()
    key.der = data[frame.spki[1] : frame.spki[3]]
    key.bits = data[frame.bits : frame.spki[3]]
    known = template.make_known()
    if frame.key_id is None:
        known.subject_key_id = template.view.known.subject_key_id
    else:
        known.subject_key_id = data[frame.key_id[2] : frame.extensions[frame.key_id[0]][3]]
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


def _placed(data: bytes, frame: _Frame, template: _Template) -> tuple[ExtensionView, ...]:
    """Return the template's extensions at the places that they have in *data*, with its key identifier."""
    placed = template.view.extensions
    shift = frame.extensions[0][1] - template.frame.extensions[0][1]
    if shift:
        placed = tuple(
            [
                ExtensionView(each.oid, each.critical, each.value, each.offset + shift, each.value_offset + shift)
                for each in placed
            ]
        )
    if frame.key_id is None:
        return placed
    number, value, _ = frame.key_id
    each = placed[number]
    changed = ExtensionView(
        each.oid, each.critical, data[value : frame.extensions[number][3]], each.offset, each.value_offset
    )
    return (*placed[:number], changed, *placed[number + 1 :])


def _judge(view: CertificateView, window: bytes, template: _Template) -> LintReport:
    context = template.make_context()
    context.view = view
    skipped: list[Unjudged] = []
    found = _run(template.variable, context, skipped)
    known = template.windows.get(window)
    if known is not None:
        dated, report = known
        return _report(template, (*dated, *found), skipped) if found or skipped else report
    skipped_dated: list[Unjudged] = []
    dated = tuple(_run(template.dated, context, skipped_dated))
    report = _report(template, dated, skipped_dated)
    if not skipped_dated:
        if len(template.windows) >= _MOST_WINDOWS:
            template.windows.clear()
        template.windows[window] = (dated, report)
    return _report(template, (*dated, *found), [*skipped_dated, *skipped]) if found or skipped else report


def _report(template: _Template, found: tuple[tuple[int, list[Finding]], ...], skipped: list[Unjudged]) -> LintReport:
    """Return the report in the order of the plan."""
    plan, run = template.plan, template.plan.ids
    listed = sorted((*template.fixed, *found), key=lambda pair: pair[0])
    if skipped or template.skipped:
        order = {rule_id: place for place, rule_id in enumerate(run)}
        skipped = sorted((*template.skipped, *skipped), key=lambda each: order[each.rule])
        left_out = {each.rule for each in skipped}
        run = tuple(rule_id for rule_id in run if rule_id not in left_out)
    findings = tuple([finding for _, several in listed for finding in several])
    return LintReport("tbs-certificate", findings, run, template.profile.id, (*plan.unjudged, *skipped))


def _run(
    checks: tuple[_Check, ...], context: CertificateContext, skipped: list[Unjudged]
) -> list[tuple[int, list[Finding]]]:
    found = []
    for place, entry, severity, check in checks:
        verdict = check(context)
        if not verdict:
            continue
        if isinstance(verdict, NotEvaluated):
            skipped.append(Unjudged(entry.id, verdict.reason))
        else:
            found.append((place, findings_of(entry, severity, verdict)))
    return found


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


def _traced(view: CertificateView, frame: _Frame, seen: set[str]) -> CertificateView:
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


def _learn(tbs: bytes, frame: _Frame, profile: Profile, issuer_der: bytes | None) -> _Template | None:
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
    variable: list[_Check] = []
    dated: list[_Check] = []
    for place, (entry, severity) in enumerate(plan.checks):
        seen: set[str] = set()
        verdict = entry.check(CertificateContext(_traced(view, frame, seen), profile, issuer))
        if seen:
            (dated if seen <= _WINDOW else variable).append(_Check(place, entry, severity, entry.check))
        elif isinstance(verdict, NotEvaluated):
            skipped.append(Unjudged(entry.id, verdict.reason))
        elif verdict:
            fixed.append((place, findings_of(entry, severity, verdict)))
    return _Template(
        profile, view, frame, _layout(tbs, frame), plan, tuple(fixed), tuple(skipped), tuple(variable), tuple(dated),
        {}, {},
        len(view.subject_values(oids.COMMON_NAME)) == 1,
        _maker(view, _VIEW_PARTS, extensions=property(lambda self: _placed(*self.source))),
        _maker(view.key, _KEY_VARIABLE),
        _maker(view.known, _KNOWN_VARIABLE),
        _maker(CertificateContext(view, profile, issuer), frozenset({"view"})),
    )  # fmt: skip
