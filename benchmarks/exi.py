"""What does EXI cost in Python, against the Java codec as PyPI's iso15118 calls it: a JVM behind py4j?

The reference is called as iso15118.shared.exificient_exi_codec does, on the same messages, in the same run; its figure
is the processor time of this process and of the Java machine together, after a warm-up of a hundred calls. Needs Java
and `make judges`.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.harness import Comparison, Limit, Timing, main
from chargepki.pki.exi import Message, decode, encode, from_json, to_json

ROOT = Path(__file__).resolve().parents[1]
JUDGES = ROOT / ".judges"
JAR = JUDGES / "iso15118" / "shared" / "EXICodec.jar"
NAMESPACES = {
    "iso15118-2": "urn:iso:15118:2:2013:MsgDef",
    "iso15118-20": "urn:iso:std:iso:15118:-20:CommonMessages",
}
VECTORS = ("iso15118-2-CertificateInstallationReq", "iso15118-2-CertificateInstallationRes",
           "iso15118-20-CertificateInstallationRes")  # fmt: skip
ROUNDS = 7
WARM_UP = 100
OURS, THEIRS = 200, 10
LIMIT = Limit(0.01, "the codec must be a hundred times faster than the Java codec as called from Python")


class Java:
    """The codec of iso15118 in its Java machine."""

    def __init__(self) -> None:
        sys.path.append(str(JUDGES))
        py4j: Any = importlib.import_module("py4j.java_gateway")
        self._gateway = py4j.JavaGateway.launch_gateway(
            classpath=str(JAR), die_on_exit=True, javaopts=["--add-opens", "java.base/java.lang=ALL-UNNAMED"]
        )
        self.codec: Any = self._gateway.jvm.com.siemens.ct.exi.main.cmd.EXICodec()
        self.pid = self._gateway.java_process.pid

    def cpu(self) -> float:
        """Return the processor seconds of this process and of the Java machine."""
        fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return time.process_time() + (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        """End the Java machine."""
        self._gateway.shutdown()
        self._gateway.java_process.terminate()


def measure_one(question: str, java: Java, ours: Callable[[], object], theirs: Callable[[], object]) -> Comparison:
    """Measure both in alternating rounds."""
    for _ in range(WARM_UP):
        theirs()
    samples: list[tuple[float, float, float, float]] = []
    for _ in range(ROUNDS):
        cpu, wall = java.cpu(), time.perf_counter()
        for _ in range(THEIRS):
            theirs()
        reference, reference_wall = (java.cpu() - cpu) / THEIRS, (time.perf_counter() - wall) / THEIRS
        # Java's own threads go on in the background: ours is the time of this process alone.
        cpu, wall = time.process_time(), time.perf_counter()
        for _ in range(OURS):
            ours()
        samples.append(
            ((time.process_time() - cpu) / OURS, (time.perf_counter() - wall) / OURS, reference, reference_wall)
        )
    ratios = [own / reference for own, _, reference, _ in samples]
    ours_cpu, ours_wall, theirs_cpu, theirs_wall = ([sample[column] for sample in samples] for column in range(4))
    return Comparison(
        question=question,
        subject=Timing("chargepki.pki.exi", ROUNDS * OURS, median(ours_cpu), min(ours_cpu), median(ours_wall)),
        reference=Timing(
            "EXIficient over py4j", ROUNDS * THEIRS, median(theirs_cpu), min(theirs_cpu), median(theirs_wall)
        ),
        ratio=median(ratios),
        ratio_low=min(ratios),
        ratio_high=max(ratios),
        rounds=ROUNDS,
        limit=LIMIT,
    )


def comparisons_of(name: str, java: Java) -> list[Comparison]:
    """Return how both fare with one message, read and written."""
    stream = (ROOT / "fixtures" / "exi" / f"{name}.exi").read_bytes()
    message: Message = decode(stream)
    text = json.dumps(to_json(message))
    namespace = NAMESPACES[message.message_set]
    assert bytes(java.codec.encode(text, namespace)) == stream == encode(message)
    assert from_json(json.loads(java.codec.decode(stream, namespace))) == message
    return [
        measure_one(
            f"read {name} ({len(stream)} bytes)",
            java,
            lambda: decode(stream),
            lambda: json.loads(java.codec.decode(stream, namespace)),
        ),
        measure_one(
            f"write {name}",
            java,
            lambda: encode(message),
            lambda: java.codec.encode(json.dumps(to_json(message)), namespace),
        ),
    ]


def measure() -> Sequence[Comparison]:
    """Compare every message, both ways, with one Java machine."""
    if not JAR.is_file():
        raise SystemExit("the EXI codec of iso15118 is not there; run: make judges")
    java = Java()
    try:
        return [comparison for name in VECTORS for comparison in comparisons_of(name, java)]
    finally:
        java.close()


if __name__ == "__main__":
    raise SystemExit(main("exi", measure))
