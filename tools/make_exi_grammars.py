"""Derive the EXI grammars of pki/exi/grammars from the schemas of ISO 15118 and XML Signature.

python tools/make_exi_grammars.py FOLDER            write them
python tools/make_exi_grammars.py FOLDER --check    exit 1 when the schemas give others than those that are there

FOLDER holds the XSD files, at any depth: V2G_CI_MsgDef.xsd and what it imports (ISO 15118-2), V2G_CI_CommonMessages.xsd
and what it imports (ISO 15118-20), xmldsig-core-schema.xsd. They are ISO's and W3C's and no part of this repository;
EcoG's iso15118 on PyPI holds a copy.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path

from chargepki.pki.exi.grammar import ANY, Attribute, Choice, Complex, Element, Fragment, GrammarSet, Kind, Simple

TARGET = Path(__file__).resolve().parents[1] / "pki" / "exi" / "grammars"
XS = "{http://www.w3.org/2001/XMLSchema}"
XS_NAMESPACE = XS[1:-1]
XMLDSIG = "http://www.w3.org/2000/09/xmldsig#"

QName = tuple[str, str]
"""Local name, then namespace: in this order EXI sorts."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Which part of a schema is wanted."""

    module: str
    name: str
    title: str
    entry: tuple[str, str]
    """File, and the namespace that it is for (DIN SPEC 70121 uses the same file names)."""
    documents: tuple[str, ...]
    fragments: tuple[str, ...]


PLANS = (
    Plan(
        module="xmldsig",
        name="xmldsig",
        title="XML Signature, as ISO 15118 uses it",
        entry=("xmldsig-core-schema.xsd", XMLDSIG),
        documents=(),
        fragments=("SignedInfo",),
    ),
    Plan(
        module="iso15118_2",
        name="iso15118-2",
        title="the certificate messages of ISO 15118-2:2014",
        entry=("V2G_CI_MsgDef.xsd", "urn:iso:15118:2:2013:MsgDef"),
        documents=("V2G_Message",),
        fragments=(
            "CertificateInstallationReq",
            "CertificateUpdateReq",
            "ContractSignatureCertChain",
            "ContractSignatureEncryptedPrivateKey",
            "DHpublickey",
            "eMAID",
        ),
    ),
    Plan(
        module="iso15118_20",
        name="iso15118-20",
        title="the certificate messages of ISO 15118-20:2022",
        entry=("V2G_CI_CommonMessages.xsd", "urn:iso:std:iso:15118:-20:CommonMessages"),
        documents=("CertificateInstallationReq", "CertificateInstallationRes"),
        fragments=("OEMProvisioningCertificateChain", "SignedInstallationData"),
    ),
)

# Elements of a body that are read and written; every other message keeps its event code and nothing else.
BODY = frozenset(
    {"CertificateInstallationReq", "CertificateInstallationRes", "CertificateUpdateReq", "CertificateUpdateRes"}
)
# What V2G2-771 wants absent from a signature, or what can only hold foreign elements.
UNUSED = frozenset({"KeyInfo", "Object", "HMACOutputLength", "XPath"})
# The schema fixes these lengths; V2G20-2495 and V2G20-2521 forbid the padding that they would take. Both are accepted.
UNPADDED = frozenset({"dhPublicKeyType", "tpm_EncryptedPrivateKeyType"})

NUMBERS: Mapping[str, tuple[int | None, int | None]] = {
    "integer": (None, None),
    "long": (-(1 << 63), (1 << 63) - 1),
    "int": (-(1 << 31), (1 << 31) - 1),
    "short": (-(1 << 15), (1 << 15) - 1),
    "byte": (-(1 << 7), (1 << 7) - 1),
    "unsignedLong": (0, (1 << 64) - 1),
    "unsignedInt": (0, (1 << 32) - 1),
    "unsignedShort": (0, (1 << 16) - 1),
    "unsignedByte": (0, (1 << 8) - 1),
}
OTHERS: Mapping[str, Kind] = {
    "string": Kind.STRING,
    "ID": Kind.STRING,
    "anyURI": Kind.STRING,
    "base64Binary": Kind.BASE64,
    "hexBinary": Kind.HEX,
}
# EXI 1.0 section 7.1.5: a range of so many values or fewer is written as an n-bit offset.
LARGEST_NBIT_RANGE = 4096


class Schema:
    """Every declaration of an entry schema and of all that it imports."""

    def __init__(self, folder: Path, entry: tuple[str, str]) -> None:
        self._folder = folder
        self._loaded: set[str] = set()
        self._prefixes: dict[int, Mapping[str, str]] = {}
        self._namespace: dict[int, str] = {}
        self._qualified: dict[str, bool] = {}
        self._roots: list[ET.Element] = []  # Keeps every node alive, and so its id its own.
        self.types: dict[QName, ET.Element] = {}
        self.globals: dict[QName, ET.Element] = {}
        self.elements: dict[QName, set[str]] = {}
        """Every element, global or local, with the types that it is declared with."""
        self.attributes: set[QName] = set()
        self._load(*entry)

    def _load(self, location: str, namespace: str) -> None:
        if namespace in self._loaded:
            return
        self._loaded.add(namespace)
        name = Path(location).name
        for path in sorted(self._folder.rglob(name)):
            root, prefixes = read(path)
            if root.get("targetNamespace") == namespace:
                break
        else:
            raise SystemExit(f"error: {self._folder} holds no {name} for {namespace}")
        self._declare(root, namespace, prefixes)
        for imported in root.findall(f"{XS}import"):
            self._load(imported.get("schemaLocation", ""), imported.get("namespace", ""))

    def _declare(self, root: ET.Element, namespace: str, prefixes: Mapping[str, str]) -> None:
        self._roots.append(root)
        self._qualified[namespace] = root.get("attributeFormDefault") == "qualified"
        for node in root.iter():
            self._prefixes[id(node)], self._namespace[id(node)] = prefixes, namespace
        for node in root:
            name = (node.get("name", ""), namespace)
            if node.tag in {f"{XS}complexType", f"{XS}simpleType"}:
                self.types[name] = node
            elif node.tag == f"{XS}element":
                self.globals[name] = node
        for node in root.iter(f"{XS}element"):
            if node.get("name"):
                self.elements.setdefault((node.get("name", ""), namespace), set()).add(self.type_key(node))
        for node in root.iter(f"{XS}attribute"):
            self.attributes.add(self.attribute_name(node))

    def attribute_name(self, node: ET.Element) -> QName:
        """Return the qualified name of an attribute: it has a namespace only where the schema qualifies attributes."""
        namespace = self._namespace[id(node)]
        return node.get("name", ""), namespace if self._qualified[namespace] else ""

    def resolve(self, node: ET.Element, attribute: str) -> QName:
        """Return the qualified name that *attribute* of *node* refers to."""
        prefix, _, local = node.get(attribute, "").rpartition(":")
        return local, self._prefixes[id(node)].get(prefix, "")

    def type_key(self, node: ET.Element) -> str:
        """Return what tells the type of an element declaration from others."""
        return "#".join(self.resolve(node, "type")) if node.get("type") else f"anonymous {id(node)}"

    def sorted_elements(self) -> list[QName]:
        """Return all distinct element names, in EXI's order."""
        return sorted(self.elements)

    def substitutes(self, head: QName) -> list[QName]:
        """Return what may stand where *head* is referred to, itself included, in EXI's order."""
        found = [name for name, node in self.globals.items() if node.get("substitutionGroup")]
        return sorted(
            [head, *(name for name in found if self.resolve(self.globals[name], "substitutionGroup") == head)]
        )


class Deriver:
    """Turns the reachable types of one schema into grammar data."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.complex: dict[str, Complex] = {}
        self.simple: dict[str, Simple] = {}
        self.origin: dict[str, str] = {}
        """Namespace of each complex type."""

    def element_type(self, node: ET.Element) -> str:
        """Derive the type of a declaration, and return its name."""
        if node.get("type"):
            return self.named_type(self.schema.resolve(node, "type"))
        inner = node.find(f"{XS}complexType")
        assert inner is not None, f"{node.get('name')} has no type"
        name = f"{node.get('name')}Type"
        self._derive(name, inner, "")
        return name

    def named_type(self, name: QName) -> str:
        """Derive a named or built-in type, and return its name."""
        local, namespace = name
        node = self.schema.types.get(name)
        if node is None or node.tag == f"{XS}simpleType":
            self.simple.setdefault(local, self._simple(name))
        else:
            self._derive(local, node, namespace)
        return local

    def _derive(self, name: str, node: ET.Element, namespace: str) -> None:
        if name in self.complex:
            assert self.origin[name] == namespace, f"two types are called {name}"
            return
        self.origin[name] = namespace
        self.complex[name] = Complex()  # Holds the place: V2G types do not contain themselves.
        attributes, content, text, mixed = self._parts(node)
        ordered = tuple(attributes[key] for key in sorted(attributes))
        self.complex[name] = Complex(content=tuple(content), attributes=ordered, text=text, mixed=mixed)

    def _parts(self, node: ET.Element) -> tuple[dict[QName, Attribute], list[Element | Choice], str | None, bool]:
        """Return attributes, content, type of text and mixedness of a complex type, its base types included."""
        attributes: dict[QName, Attribute] = {}
        content: list[Element | Choice] = []
        text: str | None = None
        body = node
        extension = node.find(f"{XS}complexContent/{XS}extension")
        if extension is not None:
            attributes, content, text, _ = self._parts(self.schema.types[self.schema.resolve(extension, "base")])
            body = extension
        simple = node.find(f"{XS}simpleContent/{XS}extension")
        if simple is not None:
            text, body = self.named_type(self.schema.resolve(simple, "base")), simple
        for child in body:
            if child.tag == f"{XS}attribute":
                kind = self.named_type(self.schema.resolve(child, "type"))
                key = self.schema.attribute_name(child)
                attributes[key] = Attribute(key[0], kind, required=child.get("use") == "required")
            elif child.tag in {f"{XS}sequence", f"{XS}choice"}:
                content += self._particles(child)
        return attributes, content, text, node.get("mixed") == "true"

    def _particles(self, group: ET.Element) -> Iterator[Element | Choice]:
        minimum, maximum = occurrence(group)
        if group.tag == f"{XS}choice":
            inner = [particle for child in group for particle in self._particle(child)]
            # In one state, wildcards come after the named elements (EXI 1.0 section 8.5.4.1.8.2).
            elements = sorted((each for each in inner if isinstance(each, Element)), key=lambda each: each.name == ANY)
            yield Choice(tuple(elements), minimum, maximum)
            return
        assert (minimum, maximum) == (1, 1), "a repeated sequence occurs in no type that is wanted"
        for child in group:
            yield from self._particle(child)

    def _particle(self, node: ET.Element) -> Iterator[Element | Choice]:
        if node.tag in {f"{XS}sequence", f"{XS}choice"}:
            yield from self._particles(node)
            return
        minimum, maximum = occurrence(node)
        if node.tag == f"{XS}any":
            yield Element(ANY, None, minimum, maximum)
        elif node.get("ref") is None:
            name = node.get("name", "")
            yield Element(name, None if name in UNUSED else self.element_type(node), minimum, maximum)
        else:
            reference = self.schema.resolve(node, "ref")
            alternatives = self.schema.substitutes(reference)
            elements = tuple(self._referred(each, is_member=len(alternatives) > 1) for each in alternatives)
            if len(elements) > 1:
                yield Choice(elements, minimum, maximum)
            else:
                yield Element(elements[0].name, elements[0].type, minimum, maximum)

    def _referred(self, name: QName, *, is_member: bool) -> Element:
        unused = name[0] in UNUSED or (is_member and name[0] not in BODY)
        return Element(name[0], None if unused else self.element_type(self.schema.globals[name]))

    def _simple(self, name: QName) -> Simple:
        """Follow the restrictions of a simple type down to a built-in one."""
        facets: dict[str, int] = {}
        values: list[str] = []
        while name[1] != XS_NAMESPACE:
            restriction = self.schema.types[name].find(f"{XS}restriction")
            assert restriction is not None, f"{name[0]} is no restriction"
            for facet in restriction:
                kind, value = facet.tag.removeprefix(XS), facet.get("value", "")
                # A pattern would restrict the characters of a string (EXI 1.0 section 7.1.10.1).
                assert kind in {"enumeration", "length", "minLength", "maxLength", "minInclusive", "maxInclusive"}, kind
                if kind == "enumeration":
                    values.append(value)
                else:
                    facets.setdefault(kind, int(value))
            named, name = name[0], self.schema.resolve(restriction, "base")
            if named in UNPADDED:
                facets = {"maxLength": facets["length"]}
        if values:
            return Simple(Kind.ENUM, values=tuple(values))
        if name[0] in OTHERS:
            length = facets.get("length")
            return Simple(OTHERS[name[0]], facets.get("minLength", length), facets.get("maxLength", length))
        low, high = NUMBERS[name[0]]
        low, high = facets.get("minInclusive", low), facets.get("maxInclusive", high)
        if low is not None and high is not None and high - low < LARGEST_NBIT_RANGE:
            return Simple(Kind.NBIT, low, high)
        return Simple(Kind.UNSIGNED if low is not None and low >= 0 else Kind.INTEGER, low, high)


def read(path: Path) -> tuple[ET.Element, Mapping[str, str]]:
    """Return the root of a schema and the prefixes that it declares."""
    prefixes: dict[str, str] = {}
    root: ET.Element | None = None
    for event, item in ET.iterparse(path, events=("start-ns", "start")):
        if event == "start-ns":
            prefixes[item[0]] = item[1]
        elif root is None:
            root = item
    assert root is not None
    return root, prefixes


def occurrence(node: ET.Element) -> tuple[int, int | None]:
    """Return minOccurs and maxOccurs."""
    maximum = node.get("maxOccurs", "1")
    return int(node.get("minOccurs", "1")), None if maximum == "unbounded" else int(maximum)


def derive(schema: Schema, plan: Plan) -> tuple[GrammarSet, Mapping[str, str]]:
    """Return the grammars that *plan* wants, and the namespace of each complex type."""
    deriver = Deriver(schema)
    documents = sorted(schema.globals)
    roots = {
        name: deriver.element_type(schema.globals[name, namespace])
        for name, namespace in documents
        if name in plan.documents
    }
    elements = schema.sorted_elements()
    fragments = []
    for code, key in enumerate(elements):
        if key[0] in plan.fragments:
            fragments.append(_fragment(deriver, key, code))
    return GrammarSet(
        name=plan.name,
        documents=tuple(name for name, _ in documents),
        roots=roots,
        fragments=tuple(fragments),
        fragment_elements=len(elements),
        fragment_attributes=len(schema.attributes),
        complex_types=deriver.complex,
        simple_types=deriver.simple,
    ), deriver.origin


def _fragment(deriver: Deriver, key: QName, code: int) -> Fragment:
    types = deriver.schema.elements[key]
    if len(types) == 1:
        local, _, namespace = next(iter(types)).partition("#")
        return Fragment(key[0], code, deriver.named_type((local, namespace)))
    # Which of its types is meant is for the relaxed grammar to leave open; what it may carry is the same in all.
    attributes: dict[str, int] = {}
    ordered = sorted(deriver.schema.attributes)
    for each in sorted(types):
        local, _, namespace = each.partition("#")
        node = deriver.schema.types[local, namespace]
        for attribute in node.iter(f"{XS}attribute"):
            name = deriver.schema.attribute_name(attribute)
            attributes[name[0]] = ordered.index(name)
    return Fragment(key[0], code, None, tuple(sorted(attributes.items())))


def literal(value: object) -> str:
    """Return *value* as Python source, without the arguments that are defaults."""
    if isinstance(value, Kind):
        return f"Kind.{value.name}"
    if isinstance(value, Simple | Attribute | Element | Choice | Complex | Fragment):
        arguments, positional = [], True
        for each in fields(value):
            given = getattr(value, each.name)
            if each.default is not MISSING and given == each.default:
                positional = False
                continue
            text = literal(given)
            is_plain = each.name in {"name", "type", "code", "kind", "elements"}
            named = not positional or not is_plain
            positional = not named
            arguments.append(f"{each.name}={text}" if named else text)
        return f"{type(value).__name__}({', '.join(arguments)})"
    if isinstance(value, tuple):
        inner = ", ".join(literal(each) for each in value)
        return f"({inner},)" if len(value) == 1 else f"({inner})"
    if value == ANY:
        return "ANY"
    return repr(value).replace("'", '"')


def source(plan: Plan, grammars: GrammarSet, *, shared: frozenset[str], is_base: bool) -> str:
    """Return the module that holds *grammars*; types in *shared* stay with XML Signature."""
    own_complex = {name: kind for name, kind in grammars.complex_types.items() if is_base or name not in shared}
    own_simple = grammars.simple_types
    base = "" if is_base else "**XMLDSIG.complex_types, "
    used = {name for name in ("ANY", "Attribute", "Choice", "Complex", "Element", "Fragment", "Kind", "Simple")}
    body = [
        f"{grammars_name(plan)}: Final = GrammarSet(",
        f"    name={literal(grammars.name)},",
        f"    documents=({' '.join(literal(each) + ',' for each in grammars.documents)}),",
        f"    roots={{{', '.join(f'{literal(k)}: {literal(v)}' for k, v in grammars.roots.items())}}},",
        f"    fragments={literal(grammars.fragments)},",
        f"    fragment_elements={grammars.fragment_elements},",
        f"    fragment_attributes={grammars.fragment_attributes},",
        f"    complex_types={{{base}"
        + "".join(f"{literal(name)}: {literal(own_complex[name])}, " for name in sorted(own_complex))
        + "},",
        "    simple_types={"
        + "".join(f"{literal(name)}: {literal(own_simple[name])}, " for name in sorted(own_simple))
        + "},",
        ")",
    ]
    text = "\n".join(body)
    imports = sorted(name for name in used if f"{name}(" in text or f"{name}." in text or f"({name}," in text)
    lines = [
        f'"""EXI grammars of {plan.title}.',
        "",
        "Generated by tools/make_exi_grammars.py from the schema; do not edit.",
        '"""',
        "",
        "from typing import Final",
        "",
        f"from chargepki.pki.exi.grammar import {', '.join(sorted([*imports, 'GrammarSet']))}",
        *([] if is_base else ["from chargepki.pki.exi.grammars.xmldsig import XMLDSIG"]),
        "",
        f'__all__ = ["{grammars_name(plan)}"]',
        "",
        text,
        "",
    ]
    return "\n".join(lines)


def grammars_name(plan: Plan) -> str:
    """Return the name of the constant in the module of *plan*."""
    return plan.module.upper()


def modules(folder: Path) -> dict[Path, str]:
    """Return every module with its text, formatted."""
    derived = [(plan, *derive(Schema(folder, plan.entry), plan)) for plan in PLANS]
    base_plan, base, _ = derived[0]
    complex_types, simple_types = dict(base.complex_types), dict(base.simple_types)
    # The messages refer to more types of XML Signature than SignedInfo does: all of them stand in its module.
    for _, grammars, origin in derived[1:]:
        for name, kind in grammars.complex_types.items():
            if origin[name] == XMLDSIG:
                assert complex_types.setdefault(name, kind) == kind
    merged = GrammarSet(
        name=base.name,
        documents=base.documents,
        roots=base.roots,
        fragments=base.fragments,
        fragment_elements=base.fragment_elements,
        fragment_attributes=base.fragment_attributes,
        complex_types=complex_types,
        simple_types=simple_types,
    )
    shared = frozenset(complex_types)
    texts = {TARGET / f"{base_plan.module}.py": source(base_plan, merged, shared=shared, is_base=True)}
    for plan, grammars, _ in derived[1:]:
        texts[TARGET / f"{plan.module}.py"] = source(plan, grammars, shared=shared, is_base=False)
    return {path: formatted(text, path) for path, text in texts.items()}


def formatted(text: str, path: Path) -> str:
    """Return *text* as ruff lays it out."""
    command = [sys.executable, "-m", "ruff", "format", "--stdin-filename", str(path), "-"]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout


def main(arguments: Sequence[str]) -> int:
    """Write the modules, or compare them; 1 when they differ."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("folder", type=Path, help="folder with the XSD files")
    parser.add_argument("--check", action="store_true", help="write nothing")
    options = parser.parse_args(arguments)
    differ = False
    for path, text in modules(options.folder).items():
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        differ = True
        print(f"{path.name}: {'differs' if options.check else 'written'}")
        if not options.check:
            path.write_text(text, encoding="utf-8")
    return 1 if differ and options.check else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
