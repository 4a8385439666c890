"""Where the fields of a to-be-signed certificate lie, and which of its octets a template fixes."""

from __future__ import annotations

from typing import Final, NamedTuple

__all__ = ["Element", "Frame", "Layout", "layout_of", "match_frame", "read_frame"]

_TAGS: Final = (0xA0, 0x02, 0x30, 0x30, 0x30, 0x30, 0x30, 0xA3)
_SKI: Final = bytes.fromhex("0603551d0e")
_CN: Final = bytes.fromhex("0603550403")

Element = tuple[int, int, int, int]  # tag, start, content, end


class Frame(NamedTuple):
    """Where the fields of a TBSCertificate lie, and the octets that a template fixes."""

    fixed: tuple[bytes, ...]
    serial: Element
    validity: Element
    subject: Element
    name: tuple[int, int, int] | None
    """Of the common name: its place among the attributes, where its value begins, and where it ends."""
    rdns: int
    spki: Element
    bits: int
    """Where the public key itself begins."""
    extensions: int
    """Where the first one begins."""
    key_id: tuple[int, int, int, int] | None
    """Of SubjectKeyIdentifier: its place among the extensions, where its value begins, where the identifier, and where
    both end."""


class Layout(NamedTuple):
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


def layout_of(data: bytes, frame: Frame) -> Layout | None:
    """Return the octets between the variable fields; ``None`` where there is no CN or no key identifier that varies."""
    if frame.name is None or frame.key_id is None:
        return None
    number, value, end = frame.name
    _, _, own_id, id_end = frame.key_id
    before = data[frame.subject[2] : value - 11] if number else b""
    return Layout(
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


def match_frame(data: bytes, learnt: Frame, layout: Layout | None) -> Frame | None:
    """Return where the variable fields of *data* lie if all else has the octets of a template; ``None`` otherwise.

    Does what `read_frame` does with a third of the work, for certificates of a template that is known already.

    Args:
        learnt: the frame of the template's first certificate.
        layout: what `layout_of` says of it.
    """
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
        content, stop = _inside(data, subject)
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
    spki_end = stop + len(layout.spki) + layout.bits
    shift = spki_end - learnt.spki[3]
    number, own_value, own_id, id_end = learnt.key_id or (0, 0, 0, 0)
    return Frame(
        (),
        (0x02, serial, serial + 2, end),
        (0x30, validity, validity, subject),
        (0x30, subject, content, stop),
        (learnt.name[0] if learnt.name else 0, value, value + octets),
        learnt.rdns,
        (0x30, stop, stop, spki_end),
        stop + len(layout.spki),
        learnt.extensions + shift,
        (number, own_value + shift, own_id + shift, id_end + shift),
    )


def _inside(data: bytes, at: int) -> tuple[int, int]:
    """Return where the content of the element at *at* begins and ends.

    Raises:
        IndexError: it is cut off, or its length is not DER in one or two octets.
    """
    length = data[at + 1]
    if length < 0x80:
        return at + 2, at + 2 + length
    if length != 0x81 or data[at + 2] < 0x80:
        raise IndexError
    return at + 3, at + 3 + data[at + 2]


def read_frame(data: bytes) -> Frame | None:
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
            key_id = (number, *found, end)
            fixed.append(data[start : found[1]])
    except IndexError:
        return None
    return Frame(tuple(fixed), serial, validity, subject, name, len(rdns), spki, bits, extensions[0][1], key_id)


def _level(data: bytes, pos: int, end: int) -> list[Element] | None:
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
