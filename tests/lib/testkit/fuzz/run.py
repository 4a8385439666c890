"""Run mutants against the entry points, with a bound on processor time and memory for each, and count."""

from __future__ import annotations

import contextlib
import resource
import signal
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import FrameType

from chargepki.pki.errors import ChargePkiError
from chargepki.pki.pem import to_pem
from testkit.command_line import CommandLine
from testkit.fuzz.corpus import FuzzKind, Sample, corpus
from testkit.fuzz.mutants import mutate
from testkit.fuzz.targets import COMMANDS, LIBRARY, library_targets, prepare, run_command

__all__ = ["Campaign", "Failure", "Mutant", "make_mutant"]

MAX_CPU_SECONDS = 5.0
"""For one call on one input; the slowest legitimate ones open key files with millions of rounds."""
MAX_GROWTH_KIB = 128 * 1024
"""By which one call may raise the greatest memory of the process."""
_LABELS = {
    FuzzKind.CERTIFICATE: "CERTIFICATE",
    FuzzKind.CSR: "CERTIFICATE REQUEST",
    FuzzKind.CRL: "X509 CRL",
    FuzzKind.OCSP_RESPONSE: "OCSP RESPONSE",
    FuzzKind.PKCS7: "PKCS7",
    FuzzKind.PKCS8: "PRIVATE KEY",
    FuzzKind.PKCS12: "PKCS12",
}
_OWN_COMMANDS = {
    FuzzKind.CERTIFICATE: ("lint --issuer", "cert show", "cert verify LEAF", "cert verify --untrusted",
                           "cert verify --trust"),
    FuzzKind.CSR: ("csr check",),
    FuzzKind.CRL: ("crl show", "cert verify --crl"),
    FuzzKind.OCSP_RESPONSE: ("cert verify --ocsp-response",),
}  # fmt: skip


class Hang(BaseException):
    """Raised into a call that has used up its processor time; nothing that is tested may catch it."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One input; the seed and the number give it again."""

    number: int
    kind: FuzzKind
    origin: str
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Failure:
    """An input that broke the promise, and how."""

    origin: str
    target: str
    what: str
    data: bytes = field(repr=False)


@dataclass
class _Count:
    inputs: int = 0
    calls: int = 0
    refused: int = 0
    commands: int = 0
    cpu: float = 0.0


def make_mutant(seed: int, number: int, kinds: tuple[FuzzKind, ...] = tuple(FuzzKind)) -> Mutant:
    """Return mutant *number* of the run with *seed*; every kind comes equally often, whatever its share of files."""
    random = Random(f"{seed}/{number}")
    samples = _by_kind()
    kind = random.choice(kinds)
    sample, other = random.choice(samples[kind]), random.choice(corpus())
    if random.random() < 0.05 and sample.data != sample.der:
        done, data = mutate(sample.data, random, other.data)  # the armour itself
    else:
        done, data = mutate(sample.der, random, other.der)
        if random.random() < 0.1:
            data = to_pem(_LABELS[kind], data).encode()
    return Mutant(number, kind, f"{sample.name} {done} (seed {seed}, number {number})", data)


def _by_kind() -> dict[FuzzKind, list[Sample]]:
    if not _SAMPLES:
        for sample in corpus():
            _SAMPLES.setdefault(sample.kind, []).append(sample)
    return _SAMPLES


_SAMPLES: dict[FuzzKind, list[Sample]] = {}


class Campaign:
    """Counts what was tried and keeps what failed; use it as a context."""

    def __init__(self) -> None:
        self.counts = {kind: _Count() for kind in FuzzKind}
        self.samples: Counter[FuzzKind] = Counter()
        self.codes: Counter[tuple[str, int]] = Counter()
        self.failures: list[Failure] = []
        self.slowest: list[tuple[float, str, str]] = []
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Campaign:
        self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        self._run: CommandLine = prepare(self._folder)
        previous = signal.signal(signal.SIGPROF, _interrupt)
        self._stack.callback(signal.signal, signal.SIGPROF, previous)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def try_sample(self, sample: Sample, *, everywhere: bool) -> None:
        """Give an unchanged sample to what reads its kind; *everywhere*: also to what reads any other kind."""
        self.samples[sample.kind] += 1
        kinds = tuple(FuzzKind) if everywhere else (sample.kind,)
        for kind in kinds:
            self._library(sample.kind, kind, sample.name, sample.der)
        for command in COMMANDS:
            if everywhere:
                self._command(sample.kind, command.name, sample.name, sample.data)

    def try_mutant(self, mutant: Mutant, *, with_commands: bool) -> None:
        """Give *mutant* to every function that reads its kind, and to a command that does and `lint`."""
        self.counts[mutant.kind].inputs += 1
        self._library(mutant.kind, mutant.kind, mutant.origin, mutant.data)
        if with_commands:
            own = _OWN_COMMANDS.get(mutant.kind, ())
            random = Random(mutant.number)
            chosen = {random.choice(own or ("lint",)), random.choice(("lint", "lint --profile", "lint folder"))}
            for name in sorted(chosen):
                self._command(mutant.kind, name, mutant.origin, mutant.data)

    def _library(self, kind: FuzzKind, reader: FuzzKind, origin: str, data: bytes) -> None:
        targets = library_targets(reader) if reader is kind else LIBRARY[reader]
        for number, target in enumerate(targets):
            name = f"{reader} {getattr(target, '__name__', '')}#{number}"

            def call(target: Callable[[bytes], object] = target) -> None:
                try:
                    target(data)
                except ChargePkiError:
                    self.counts[kind].refused += 1

            self.counts[kind].calls += 1
            self._guard(kind, name, origin, data, call)

    def _command(self, kind: FuzzKind, name: str, origin: str, data: bytes) -> None:
        command = next(each for each in COMMANDS if each.name == name)

        def call() -> None:
            done = run_command(self._run, self._folder, command, data)
            self.codes[command.name, done.code] += 1

        self.counts[kind].commands += 1
        self._guard(kind, name, origin, data, call)

    def _guard(self, kind: FuzzKind, target: str, origin: str, data: bytes, call: Callable[[], None]) -> None:
        memory, begun = _peak(), time.process_time()
        what = ""
        signal.setitimer(signal.ITIMER_PROF, MAX_CPU_SECONDS)
        try:
            call()
        except Hang:
            what = "hang"
        except AssertionError as error:
            what = f"answer: {error}"
        except Exception as error:  # any other exception is the finding
            where = traceback.extract_tb(error.__traceback__)[-1]
            what = f"{type(error).__name__}: {str(error)[:200]} at {Path(where.filename).name}:{where.lineno}"
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        spent = time.process_time() - begun
        if not what and spent > MAX_CPU_SECONDS:
            what = f"took {spent:.1f} s of processor time"
        if not what and _peak() - memory > MAX_GROWTH_KIB:
            what = f"took {(_peak() - memory) >> 10} MiB"
        if what:
            self.failures.append(Failure(origin, target, what, data))
        self.counts[kind].cpu += spent
        self.slowest = sorted([*self.slowest, (spent, target, origin)], reverse=True)[:5]

    def report(self) -> str:
        """Return the figures as text."""
        lines = [f"{'kind':15}{'samples':>8}{'mutants':>9}{'calls':>10}{'refused':>10}{'commands':>9}{'CPU s':>9}"]
        for kind, count in self.counts.items():
            lines.append(
                f"{kind:15}{self.samples[kind]:8}{count.inputs:9}{count.calls:10}{count.refused:10}"
                f"{count.commands:9}{count.cpu:9.1f}"
            )
        total = _Count(*(sum(getattr(each, name) for each in self.counts.values()) for name in _FIELDS))
        lines.append(
            f"{'all':15}{sum(self.samples.values()):8}{total.inputs:9}{total.calls:10}{total.refused:10}"
            f"{total.commands:9}{total.cpu:9.1f}"
        )
        lines += [f"exit codes: {', '.join(f'{code}: {count}' for code, count in sorted(self._codes().items()))}"]
        lines += [f"slowest: {spent:.3f} s, {target}, {origin}" for spent, target, origin in self.slowest]
        lines += [f"greatest memory: {_peak() >> 10} MiB", f"failures: {len(self.failures)}"]
        seen: Counter[str] = Counter()
        for failure in self.failures:
            seen[failure.what[:60]] += 1
            if seen[failure.what[:60]] <= 3:
                lines.append(f"  {failure.target}: {failure.what}: {failure.origin}")
        return "\n".join(lines)

    def _codes(self) -> Counter[int]:
        codes: Counter[int] = Counter()
        for (_, code), count in self.codes.items():
            codes[code] += count
        return codes

    def run(self, *, seed: int, cpu_seconds: float, commands: bool = True) -> None:
        """Try mutants until *cpu_seconds* of processor time are spent."""
        begun = time.process_time()
        for number in self._numbers():
            if time.process_time() - begun >= cpu_seconds:
                return
            self.try_mutant(make_mutant(seed, number), with_commands=commands)

    def _numbers(self) -> Iterator[int]:
        number = 0
        while True:
            yield number
            number += 1


_FIELDS = ("inputs", "calls", "refused", "commands", "cpu")


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise Hang


def _peak() -> int:
    """Return the greatest memory of this process so far in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
