"""What a grammar is made of: the parts of a schema that decide how EXI writes a message, as plain data.

The modules under ``grammars`` hold these values, written by ``tools/make_exi_grammars.py`` from the schemas. What they
leave out (namespaces, documentation, types of messages that carry no certificate) has no influence on the bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

__all__ = [
    "ANY",
    "Attribute",
    "Choice",
    "Complex",
    "Element",
    "Fragment",
    "GrammarSet",
    "Kind",
    "Simple",
]

ANY = "*"
"""Name of a wildcard particle (``xs:any``): it takes an event code, and nothing in a V2G message ever matches it."""


class Kind(StrEnum):
    """How a value is represented (EXI 1.0 section 7.1)."""

    STRING = "string"
    BASE64 = "base64"
    HEX = "hex"
    ENUM = "enum"
    INTEGER = "integer"
    """Sign bit and magnitude."""
    UNSIGNED = "unsigned"
    """Seven bits per octet, lowest first."""
    NBIT = "nbit"
    """Offset from the minimum in as many bits as the range takes; a range of at most 4096 values."""


@dataclass(frozen=True, slots=True)
class Simple:
    """A datatype and the limits that its schema sets.

    Attributes:
        minimum: least length (strings in characters, binary in bytes) or least value, inclusive.
        maximum: greatest length or value, inclusive; ``None`` is no limit.
        values: of an enumeration, in the order of the schema.
    """

    kind: Kind
    minimum: int | None = None
    maximum: int | None = None
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute; they stand in the order in which EXI sorts them (local name, then namespace)."""

    name: str
    type: str
    required: bool = False


@dataclass(frozen=True, slots=True)
class Element:
    """One element of a content model.

    Attributes:
        type: name of its type in the set; ``None`` for an element that V2G messages about certificates never carry,
            which takes an event code all the same.
        maximum: ``None`` is unbounded.
    """

    name: str
    type: str | None
    minimum: int = 1
    maximum: int | None = 1


@dataclass(frozen=True, slots=True)
class Choice:
    """Alternatives, one for each occurrence."""

    elements: tuple[Element, ...]
    minimum: int = 1
    maximum: int | None = 1


@dataclass(frozen=True, slots=True)
class Complex:
    """An element's type with attributes, children, or both.

    Attributes:
        content: the sequence of its particles.
        text: type of its text, when it has attributes and text instead of children.
        mixed: text may stand between the children; it takes an event code, and V2G messages never carry any.
    """

    content: tuple[Element | Choice, ...] = ()
    attributes: tuple[Attribute, ...] = ()
    text: str | None = None
    mixed: bool = False


@dataclass(frozen=True, slots=True)
class Fragment:
    """An element that is encoded on its own, to be digested and signed.

    Attributes:
        code: its event code, that is its place among all elements of the schema by local name and namespace.
        type: ``None`` when the schema declares the name with different types: then only a relaxed grammar is known
            for it, in which every element and attribute of the schema may occur (EXI 1.0 section 8.5.3).
        attributes: of a relaxed grammar, each that the element may carry, with its place among all attributes.
    """

    name: str
    code: int
    type: str | None
    attributes: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class GrammarSet:
    """All that is needed for the messages of one schema.

    Attributes:
        documents: every element that a document may start with; the place is the event code.
        roots: type of those that we read and write.
        fragment_elements: how many elements the schema declares, by distinct qualified name.
        fragment_attributes: how many attributes.
    """

    name: str
    documents: tuple[str, ...]
    roots: Mapping[str, str]
    fragments: tuple[Fragment, ...]
    fragment_elements: int
    fragment_attributes: int
    complex_types: Mapping[str, Complex]
    simple_types: Mapping[str, Simple] = field(default_factory=dict)
