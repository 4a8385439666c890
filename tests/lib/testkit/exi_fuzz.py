"""Mutants of EXI streams, and what must hold for each: an answer in little time and memory, never another message."""

from __future__ import annotations

import json
import resource
import time
from collections import Counter
from dataclasses import dataclass, field
from random import Random

from chargepki.pki.exi import ExiError, Value, decode, encode, from_json, to_json
from testkit.exi_samples import samples

__all__ = ["ExiCampaign", "make_mutant"]

MAX_CPU_SECONDS = 1.0
"""For all that is done with one input of 64 KiB at most."""
MAX_GROWTH_KIB = 64 * 1024

_STREAMS = [encode(message) for message in samples()]


def make_mutant(seed: int, number: int) -> bytes:
    """Return one mutant; seed and number give it again."""
    random = Random(f"{seed}/{number}")
    data = bytearray(random.choice(_STREAMS))
    for _ in range(random.choice((1, 1, 1, 2, 5))):
        _mutate(random, data)
    return bytes(data)


def _mutate(random: Random, data: bytearray) -> None:
    # Structure is dense at the start, and certificates fill the rest: half of all changes happen in the first bytes.
    place = random.randrange(len(data) if random.random() < 0.5 else min(len(data), 40)) if data else 0
    kind = random.randrange(8)
    if kind <= 2 and data:
        data[place] ^= 1 << random.randrange(8)
    elif kind == 3 and data:
        data[place] = random.choice((0, 0xFF, 0x80, 0x7F, random.randrange(256)))
    elif kind == 4:
        del data[place : place + random.choice((1, 2, len(data)))]
    elif kind == 5:
        data[place:place] = random.randbytes(random.choice((1, 8, 100)))
    elif kind == 6:
        other = random.choice(_STREAMS)
        data[place:] = other[random.randrange(len(other)) :]
    else:
        # Long runs of one byte: numbers without an end, lengths beyond all there is, lists of thousands.
        data[place:] = bytes([random.choice((0, 0x80, 0xFF, 0x55))]) * random.choice((100, 5_000, 60_000))


@dataclass
class ExiCampaign:
    """Tries inputs and counts."""

    answers: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    failures: list[tuple[str, bytes]] = field(default_factory=list)

    def try_stream(self, data: bytes, origin: str = "") -> None:
        """Read *data* in every way, and note what breaks the promise."""
        before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
        try:
            self.answers[self._read(data)] += 1
        except Exception as error:  # every other exception is a bug, and is reported with its input
            self.failures.append((f"{origin}: {type(error).__name__}: {error}"[:300], data))
        used = time.process_time() - start
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        self.slowest = max(self.slowest, used)
        if used > MAX_CPU_SECONDS or grown > MAX_GROWTH_KIB:
            self.failures.append((f"{origin}: {used:.2f} s and {grown} KiB", data))

    def _read(self, data: bytes) -> str:
        try:
            message = decode(data, limits=False)
        except ExiError as error:
            assert error.bit_offset is None or 0 <= error.bit_offset <= 8 * len(data)
            assert len(str(error)) < 2000
            return "refused"
        again = encode(message, limits=False)
        assert again == data or _has_empty_value(message.tree), "a stream that is read is written otherwise"
        assert decode(again, message_set=message.message_set, name=message.name, limits=False).tree == message.tree
        assert from_json(json.loads(json.dumps(to_json(message))), message_set=message.message_set).tree == message.tree
        return "other limits" if _breaks_limits(data) else "read"

    def run(self, *, seed: int, cpu_seconds: float) -> int:
        """Try mutants for so long; return how many."""
        start, number = time.process_time(), 0
        while time.process_time() - start < cpu_seconds:
            self.try_stream(make_mutant(seed, number), f"seed {seed} number {number}")
            number += 1
        return number

    def report(self) -> str:
        """Return the figures and the first failures."""
        counts = ", ".join(f"{count} {answer}" for answer, count in self.answers.most_common())
        failed = "\n".join(what for what, _ in self.failures[:10])
        return f"{counts}; slowest {self.slowest:.3f} s CPU; {len(self.failures)} failures\n{failed}".rstrip()


def _breaks_limits(data: bytes) -> bool:
    try:
        decode(data)
    except ExiError:
        return True
    return False


def _has_empty_value(value: Value) -> bool:
    """Return whether there is an empty text, the one value that two ways of writing are read for."""
    if isinstance(value, dict):
        return any(_has_empty_value(each) for each in value.values())
    if isinstance(value, list):
        return any(_has_empty_value(each) for each in value)
    return value in ("", b"")
