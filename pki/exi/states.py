"""Turn grammar data into states: what may come next in an element, and which event code says so.

The states are those of EXI 1.0 section 8.5.4.1 for a schema-informed, non-strict grammar: the productions of the
schema take the codes from 0; one more code announces a deviation from the schema, which V2G messages never contain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import IntEnum
from functools import cache

from chargepki.pki.exi.bits import BitReader, BitWriter
from chargepki.pki.exi.grammar import ANY, Attribute, Choice, Complex, Element, Fragment, GrammarSet, Kind, Simple
from chargepki.pki.exi.grammars.iso15118_2 import ISO15118_2
from chargepki.pki.exi.grammars.iso15118_20 import ISO15118_20
from chargepki.pki.exi.grammars.xmldsig import XMLDSIG
from chargepki.pki.exi.values import Scalar, reader_of, writer_of

__all__ = ["EMPTY_WIDTH", "OPEN_LIST", "SETS", "TEXT", "Event", "Production", "Root", "State", "roots_of"]

TEXT = "value"
"""Key of the text of an element that has attributes as well."""

EMPTY_WIDTH = 3
"""Bits of the second part of an event code where only text may come; its 0 ends the element without any text."""

SETS = {grammars.name: grammars for grammars in (ISO15118_2, ISO15118_20, XMLDSIG)}


OPEN_LIST = "ListOfRootCertificateIDsType"
"""The schema of ISO 15118-2:2014 says 20 at most. EXIficient as bundled with iso15118, and OpenV2G, use grammars of a
version without a maximum, which gives the end of the list one bit more after exactly 20."""


class Event(IntEnum):
    """What a production stands for."""

    ATTRIBUTE = 0
    VALUE = 1
    """A child with a value and nothing else."""
    ELEMENT = 2
    """A child with attributes or children."""
    CHARACTERS = 3
    EMPTY = 4
    """The end where text was to come: the text is empty."""
    END = 5
    UNUSED = 6
    """Something that the schema allows and that V2G messages about certificates never carry."""


class State:
    """A place in a content model.

    Attributes:
        width: bits of an event code here.
        productions: what may come next; the index is the event code, ``None`` one that nothing we know has.
        named: event code and production of each attribute, child and text.
        end, empty: the same of the end, and of the end in place of a text.
    """

    __slots__ = ("empty", "end", "named", "productions", "width")

    def __init__(self) -> None:
        self.width = 0
        self.productions: tuple[Production | None, ...] = ()
        self.named: dict[str, tuple[int, Production]] = {}
        self.end: tuple[int, Production] | None = None
        self.empty: tuple[int, Production] | None = None

    def become(self, productions: list[Production | None], deviation: Production | None = None) -> None:
        """Set the productions; codes beyond them, at least one, announce a deviation, of which one may be known."""
        self.productions = tuple(productions) if deviation is None else (*productions, deviation)
        self.width = len(productions).bit_length()
        for code, production in enumerate(self.productions):
            if production is None:
                continue
            if production.event is Event.END:
                self.end = code, production
            elif production.event is Event.EMPTY:
                self.empty = code, production
            else:
                self.named[production.name] = code, production


class Production:
    """One thing that may come next.

    Attributes:
        read, write: of an attribute's, a child's or the text's value.
        child: where a child element starts.
        next: where this element goes on.
        many: a child that may occur more than once, so that its values form a list.
        empty: the empty value, where there is one.
        extra: bits of the second part of the event code, all zero.
    """

    __slots__ = ("child", "empty", "event", "extra", "many", "name", "next", "read", "write")

    def __init__(
        self,
        event: Event,
        name: str,
        next_state: State,
        *,
        simple: Simple | None = None,
        child: State | None = None,
        many: bool = False,
        limits: bool = True,
        extra: int = 0,
    ) -> None:
        self.event, self.name, self.next = event, name, next_state
        self.child, self.many, self.extra = child, many, extra
        self.empty: Scalar | None = None
        self.read: Callable[[BitReader], Scalar] = _nothing
        self.write: Callable[[BitWriter, object], None] = _nothing_to_write
        if simple is not None:
            if simple.kind in _EMPTY and not (limits and simple.minimum):
                self.empty = _EMPTY[simple.kind]
            self.read, self.write = reader_of(simple, limits=limits), writer_of(simple, limits=limits)


_EMPTY: dict[Kind, Scalar] = {Kind.STRING: "", Kind.BASE64: b"", Kind.HEX: b""}


def _nothing(reader: BitReader) -> Scalar:
    raise AssertionError("this production has no value")


def _nothing_to_write(writer: BitWriter, value: object) -> None:
    raise AssertionError("this production has no value")


class Root:
    """An element that a stream may start with.

    Attributes:
        code, width: its event code, and the bits of it.
        end_code, end_width: event code that ends the stream.
        is_fragment: encoded on its own, to be signed.
    """

    __slots__ = ("code", "end_code", "end_width", "is_fragment", "message_set", "name", "start", "width")

    def __init__(
        self, message_set: str, name: str, start: State, *, code: int, width: int, end_code: int | None
    ) -> None:
        self.message_set, self.name, self.start = message_set, name, start
        self.code, self.width = code, width
        self.is_fragment = end_code is not None
        self.end_code, self.end_width = (0, 0) if end_code is None else (end_code, width)


@cache
def roots_of(message_set: str, *, limits: bool = True, open_lists: bool = False) -> tuple[Root, ...]:
    """Return every element that a stream of *message_set* may start with, documents first.

    Args:
        open_lists: the grammars of codecs that take the list of root certificates of -2 for unbounded.
    """
    grammars = SETS[message_set]
    builder = _Builder(grammars, limits=limits, open_lists=open_lists)
    roots = []
    # Every global element, then SE(*), each has a code.
    width = len(grammars.documents).bit_length()
    for name, type_name in grammars.roots.items():
        start = builder.start(type_name)
        roots.append(Root(message_set, name, start, code=grammars.documents.index(name), width=width, end_code=None))
    # Every element of the schema, SE(*), and the end of the fragment.
    width = (grammars.fragment_elements + 1).bit_length()
    for fragment in grammars.fragments:
        start = builder.relaxed(fragment) if fragment.type is None else builder.start(fragment.type)
        end = grammars.fragment_elements + 1
        roots.append(Root(message_set, fragment.name, start, code=fragment.code, width=width, end_code=end))
    return tuple(roots)


class _Builder:
    """Makes the states of one set, each type once."""

    def __init__(self, grammars: GrammarSet, *, limits: bool, open_lists: bool) -> None:
        self._grammars = grammars
        self._limits = limits
        self._open = grammars.complex_types[OPEN_LIST] if open_lists and grammars is ISO15118_2 else None
        self._starts: dict[str, State] = {}
        self._after_end = State()

    def start(self, type_name: str) -> State:
        """Return the first state of a complex type."""
        if type_name not in self._starts:
            self._starts[type_name] = State()
            self._build(self._starts[type_name], self._grammars.complex_types[type_name])
        return self._starts[type_name]

    def _build(self, first: State, kind: Complex) -> None:
        places: dict[tuple[int, int], State] = {}
        content = self._text_state(kind.text) if kind.text else self._content_state(kind, places, 0, 0)
        # One state for each attribute that has been passed; the last is where the content starts.
        states = [first, *(State() for _ in kind.attributes)] if kind.attributes else [first]
        for passed, state in enumerate(states):
            productions: list[Production | None] = []
            for place in range(passed, len(kind.attributes)):
                attribute = kind.attributes[place]
                productions.append(self._attribute(attribute, states[place + 1]))
                if attribute.required:
                    break
            else:
                productions += content.productions
                if content.empty is not None:
                    state.become(productions[:-1], productions[-1])
                    continue
            state.become(productions)

    def _attribute(self, attribute: Attribute, after: State) -> Production:
        simple = self._grammars.simple_types[attribute.type]
        return Production(Event.ATTRIBUTE, attribute.name, after, simple=simple, limits=self._limits)

    def _text_state(self, type_name: str) -> State:
        state, after = State(), self._end_state()
        simple = self._grammars.simple_types[type_name]
        text = Production(Event.CHARACTERS, TEXT, after, simple=simple, limits=self._limits)
        empty = Production(Event.EMPTY, TEXT, after, simple=simple, limits=self._limits, extra=EMPTY_WIDTH)
        state.become([text], None if empty.empty is None else empty)
        return state

    def _end_state(self) -> State:
        state = State()
        state.become([Production(Event.END, "", self._after_end)])
        return state

    def _content_state(self, kind: Complex, places: dict[tuple[int, int], State], index: int, count: int) -> State:
        """Return the state in which *count* occurrences of the particle *index* have been seen."""
        key = index, count
        if key in places:
            return places[key]
        state = places[key] = State()
        productions: list[Production | None] = []
        wildcards = 0
        at, seen = index, count
        while at < len(kind.content):
            particle = kind.content[at]
            if particle.maximum is None or seen < particle.maximum:
                # An unbounded particle stays where it is once its minimum has been seen.
                after = min(seen + 1, max(particle.minimum, 1)) if particle.maximum is None else seen + 1
                following = self._content_state(kind, places, at, after)
                for element in _alternatives(particle):
                    if element.name == ANY:
                        wildcards += 1
                    else:
                        many = particle.maximum != 1
                        productions.append(self._element(element, following, many=many))
            elif kind is self._open:
                # Full: one more has an event code all the same, and is refused.
                productions += [Production(Event.UNUSED, each.name, state) for each in _alternatives(particle)]
            if seen < particle.minimum:
                break
            at, seen = at + 1, 0
        productions += [None] * wildcards
        if at == len(kind.content):
            productions.append(Production(Event.END, "", self._after_end))
        if kind.mixed:
            productions.append(Production(Event.UNUSED, "text", self._after_end))
        state.become(productions)
        return state

    def _element(self, element: Element, after: State, *, many: bool) -> Production:
        if element.type is None:
            return Production(Event.UNUSED, element.name, after)
        simple = self._grammars.simple_types.get(element.type)
        if simple is not None:
            return Production(Event.VALUE, element.name, after, simple=simple, many=many, limits=self._limits)
        return Production(Event.ELEMENT, element.name, after, child=self.start(element.type), many=many)

    def relaxed(self, fragment: Fragment) -> State:
        """Return the first state of an element whose type is open (EXI 1.0 section 8.5.3).

        Every attribute of the schema, AT(*), every element, SE(*), the end and untyped text may come.
        """
        attributes, elements = self._grammars.fragment_attributes, self._grammars.fragment_elements
        first, after_text = State(), State()
        text = Production(Event.CHARACTERS, TEXT, after_text, simple=Simple(Kind.STRING), limits=self._limits)
        end = Production(Event.END, "", self._after_end)
        empty = Production(Event.EMPTY, TEXT, self._after_end, simple=Simple(Kind.STRING), limits=self._limits)
        productions: list[Production | None] = [None] * (attributes + 1 + elements + 1)
        for name, code in fragment.attributes:
            simple = Simple(Kind.STRING)
            productions[code] = Production(Event.ATTRIBUTE, name, first, simple=simple, limits=self._limits)
        first.become([*productions, empty, text])
        after_text.become([*([None] * (elements + 1)), end, None])
        return first


def _alternatives(particle: Element | Choice) -> Iterator[Element]:
    if isinstance(particle, Choice):
        yield from particle.elements
    else:
        yield particle
