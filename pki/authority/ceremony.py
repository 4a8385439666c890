"""Key ceremonies: a script, the transcript of carrying it out, and the witnesses' signatures over it.

A script is TOML: ``title``, ``witnesses`` (names as registered for approvals), and ``[[step]]`` tables, each with
``say`` (somebody confirms it) or ``run`` (the words of a command, without the program's name).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from chargepki.pki import keys
from chargepki.pki.errors import InputError, PolicyRefusal
from chargepki.pki.inventory import Inventory
from chargepki.pki.signer import Signer

__all__ = ["MAX_BYTES", "Script", "Step", "Transcript", "check_transcript", "sign_transcript", "witness_keys"]

MAX_BYTES: Final = 4 << 20
_FORMAT: Final = "chargepki-ceremony"
_MOST_STEPS: Final = 200
_FIELDS: Final = frozenset(
    {
        "format", "version", "title", "script", "script_sha256", "witnesses", "log_id", "user", "program", "began_at",
        "ended_at", "outcome", "steps", "log_count", "log_hash", "signatures",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a script: exactly one of the two."""

    say: str | None
    run: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Script:
    """What a ceremony does, in which order, before whom."""

    title: str
    witnesses: tuple[str, ...]
    steps: tuple[Step, ...]
    text: str

    @property
    def sha256(self) -> str:
        """Digest of the file (hex)."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @classmethod
    def parse(cls, data: bytes) -> Script:
        """Read a script.

        Raises:
            InputError: not TOML, an unknown field, no step, or a step that is neither said nor run.
        """
        try:
            text = data.decode("utf-8")
            table = tomllib.loads(text)
        except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
            raise InputError("the script is not valid TOML", why=str(error), fix="correct the line named") from error
        steps, witnesses = table.get("step"), table.get("witnesses", [])
        if set(table) - {"title", "witnesses", "step"} or not isinstance(table.get("title"), str):
            raise InputError("a script has title, witnesses and [[step]] tables", fix="see the guide on ceremonies")
        if not isinstance(witnesses, list) or not all(isinstance(each, str) and each for each in witnesses):
            raise InputError("witnesses are names", fix='write witnesses = ["alice", "bob"]')
        if len(set(witnesses)) != len(witnesses):
            raise InputError("a witness is named twice", fix="name each once")
        if not isinstance(steps, list) or not 0 < len(steps) <= _MOST_STEPS:
            raise InputError(f"a script has 1 to {_MOST_STEPS} steps", fix="write [[step]] tables")
        return cls(table["title"], tuple(witnesses), tuple(map(_step, steps)), text)


def _step(table: object) -> Step:
    if not isinstance(table, dict) or len(table) != 1:
        raise InputError("a step has either say or run", fix='write say = "…" or run = ["ca", "create", …]')
    say, run = table.get("say"), table.get("run")
    if isinstance(say, str) and say.strip():
        return Step(say, None)
    if isinstance(run, list) and run and all(isinstance(each, str) for each in run):
        return Step(None, tuple(run))
    raise InputError("a step has either say or run", fix='write say = "…" or run = ["ca", "create", …]')


@dataclass(frozen=True, slots=True)
class Transcript:
    """What was done; `signatures` are by witness, over everything else."""

    content: Mapping[str, Any]
    signatures: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def sha256(self) -> str:
        """Digest of the canonical document without signatures: sorted keys, no blanks, ASCII (hex)."""
        canonical = json.dumps(dict(self.content), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode("ascii")).hexdigest()

    @property
    def statement(self) -> bytes:
        """What a witness signs: one line, so that any tool can sign it."""
        return f"chargepki ceremony v1 {self.sha256}\n".encode("ascii")

    def encode(self) -> bytes:
        """Return the file."""
        signatures = {name: base64.b64encode(each).decode("ascii") for name, each in sorted(self.signatures.items())}
        document = {"format": _FORMAT, "version": 1, **self.content, "signatures": signatures}
        return (json.dumps(document, indent=2) + "\n").encode("ascii")

    @classmethod
    def parse(cls, data: bytes) -> Transcript:
        """Read a file.

        Raises:
            InputError: it is none.
        """
        try:
            document = json.loads(data.decode("utf-8"))
        except (ValueError, RecursionError) as error:
            raise InputError("this is no JSON", why=type(error).__name__, fix="give a transcript") from error
        if not isinstance(document, dict) or document.get("format") != _FORMAT or document.get("version") != 1:
            raise InputError("this is no transcript of a ceremony", fix="chargepki ca ceremony run writes one")
        if set(document) != _FIELDS or not isinstance(document["steps"], list):
            raise InputError("the transcript lacks a field, or has one too many", fix="get the file anew")
        signatures, witnesses = document["signatures"], document["witnesses"]
        texts = ("title", "script", "script_sha256", "outcome", "log_id", "log_hash")
        if not all(isinstance(document[name], str) for name in texts) or not _is_texts(signatures, witnesses):
            raise InputError("a field of the transcript is malformed", fix="get the file anew")
        try:
            found = {name: base64.b64decode(each, validate=True) for name, each in signatures.items()}
        except (binascii.Error, ValueError) as error:
            raise InputError("a signature is not base64", fix="get the file anew") from error
        content = {name: value for name, value in document.items() if name not in ("format", "version", "signatures")}
        return cls(content, found)


def _is_texts(*mappings: object) -> bool:
    return all(
        isinstance(each, dict) and all(isinstance(part, str) for part in (*each, *each.values())) for each in mappings
    )


def witness_keys(inventory: Inventory, names: Sequence[str]) -> dict[str, str]:
    """Return the registered public key of each witness (SubjectPublicKeyInfo, base64), by name.

    Raises:
        PolicyRefusal: one of them is not registered, or two have one key.
    """
    found: dict[str, str] = {}
    for name in names:
        record = inventory.find_approver(name)
        if record is None or not record.active:
            raise PolicyRefusal(
                f"the witness {name[:80]} is not registered",
                why="what a witness signs is verified with the registered key",
                fix=f"run: chargepki approval register {name[:80]} --public-key F",
            )
        found[name] = base64.b64encode(record.spki).decode("ascii")
    if len(set(found.values())) != len(found):
        raise PolicyRefusal("two witnesses have one key", fix="register a key of its own for each")
    return found


def sign_transcript(transcript: Transcript, witness: str, signer: Signer) -> Transcript:
    """Return *transcript* with the signature of *witness* added.

    Raises:
        PolicyRefusal: it is not finished, the script names no such witness, or the key is another one.
    """
    witnesses = transcript.content["witnesses"]
    if transcript.content["outcome"] != "complete":
        raise PolicyRefusal("the ceremony is not complete", fix="carry it out to its end first")
    if witness not in witnesses:
        raise PolicyRefusal(f"{witness[:80]} is no witness of this ceremony", why=f"they are {', '.join(witnesses)}")
    if base64.b64encode(signer.spki_der).decode("ascii") != witnesses[witness]:
        raise PolicyRefusal(f"this is not the key that {witness} was registered with", fix="use that one")
    signatures = {**transcript.signatures, witness: signer.sign(transcript.statement)}
    return Transcript(transcript.content, signatures)


def check_transcript(transcript: Transcript, *, inventory: Inventory | None = None) -> list[str]:
    """Return what is wrong with *transcript*; nothing when it is complete, signed by all witnesses, and on record.

    Args:
        inventory: where it was carried out, to hold it against the audit log and the registered keys.
    """
    content, wrong = transcript.content, []
    if content["outcome"] != "complete":
        wrong.append(f"the ceremony is {content['outcome']}, not complete")
    if hashlib.sha256(content["script"].encode()).hexdigest() != content["script_sha256"]:
        wrong.append("the script is not the one whose digest stands in the transcript")
    wrong += _check_steps(content)
    for name, spki in content["witnesses"].items():
        signature = transcript.signatures.get(name)
        if signature is None:
            wrong.append(f"the witness {name} has not signed")
        elif not _verifies(spki, signature, transcript.statement):
            wrong.append(f"the signature of {name} is wrong")
    wrong += [f"{name} signed and is no witness" for name in transcript.signatures if name not in content["witnesses"]]
    if inventory is not None:
        wrong += _check_record(transcript, inventory)
    return wrong


def _check_steps(content: Mapping[str, Any]) -> list[str]:
    """Hold what was done against what the script says."""
    try:
        script = Script.parse(content["script"].encode())
    except InputError as error:
        return [error.what]
    if script.title != content["title"] or set(script.witnesses) != set(content["witnesses"]):
        return ["title or witnesses are not those of the script"]
    done = [(each.get("say"), each.get("run")) for each in content["steps"] if isinstance(each, dict)]
    wanted = [(each.say, None if each.run is None else list(each.run)) for each in script.steps]
    if done != wanted[: len(done)] or (content["outcome"] == "complete" and done != wanted):
        return ["the steps are not those of the script, in their order"]
    return [
        f"step {number} ended with {each.get('code')}"
        for number, each in enumerate(content["steps"], 1)
        if each.get("run") is not None and each.get("code") != 0 and "skipped" not in each
    ]


def _verifies(spki: str, signature: bytes, statement: bytes) -> bool:
    try:
        key = keys.load_public_key(base64.b64decode(spki, validate=True))
        return keys.verify(key, signature, statement, keys.signature_algorithm(keys.algorithm_of(key)).der)
    except (InputError, binascii.Error, ValueError):
        return False


def _check_record(transcript: Transcript, inventory: Inventory) -> list[str]:
    wrong = []
    head = inventory.audit_head()
    if head is None or head.log_id != transcript.content["log_id"]:
        return ["it was carried out in another inventory"]
    count = transcript.content["log_count"]
    if not isinstance(count, int) or isinstance(count, bool) or not 0 < count <= head.count:
        return ["the audit log does not reach to where the ceremony ended"]
    last, *after = inventory.list_audit(after_seq=count - 1, limit=1000)
    if last.entry_hash != transcript.content["log_hash"]:
        wrong.append("the audit log is another one than when the ceremony ended")
    if not any(each.action == "ceremony.end" and each.artefact_sha256 == transcript.sha256 for each in after):
        wrong.append("the audit log knows of no ceremony that ended with this transcript")
    for name, spki in transcript.content["witnesses"].items():
        known = inventory.find_approver(name)
        if known is None or base64.b64encode(known.spki).decode("ascii") != spki:
            wrong.append(f"{name} is registered with another key, or not at all")
    return wrong
