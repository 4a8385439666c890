"""``chargepki ca ceremony``: carry out a script before witnesses, have them sign the transcript, verify it."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chargepki.cli.globals import GlobalState, group, pass_state

if TYPE_CHECKING:
    from chargepki.pki.authority.ceremony import Script, Step, Transcript
    from chargepki.pki.inventory import Inventory

__all__ = ["add_ceremony"]

_COMMAND = "from chargepki.cli.main import main; main()"
_KEPT_CHARACTERS = 20_000


@click.argument("script", metavar="SCRIPT")
@click.option("--transcript", "-o", "out", required=True, metavar="F", help="File for the transcript.")
@click.option("--confirm-all", is_flag=True, help="Take what is only said as confirmed; for rehearsals.")
@click.option("--skip", type=click.IntRange(min=1), metavar="N", help="Do not repeat step N, which was interrupted.")
@click.option("--dry-run", is_flag=True, help="Read the script, check its witnesses, carry nothing out.")
@pass_state
def run(state: GlobalState, script: str, out: str, confirm_all: bool, skip: int | None, dry_run: bool) -> None:
    """Carry out the steps of SCRIPT one after the other, and write down each with its outcome.

    The transcript is written after every step. What was interrupted goes on with the first step that is not in it;
    if that step had done its work already, --skip says so, which the transcript tells. A step that fails ends the run
    (exit 3). Begin and end are in the audit log, between the entries of the steps themselves.
    """
    from chargepki.cli.results import check_folder
    from chargepki.pki import files
    from chargepki.pki.authority.ceremony import MAX_BYTES, Script, witness_keys

    check_folder("--transcript", out)
    found = Script.parse(files.read_limited(script, MAX_BYTES, "script"))
    if dry_run:
        state.rehearse()
    witnesses = witness_keys(state.workspace.inventory, found.witnesses)
    if dry_run:
        _show(state, found, "rehearsed", None)
        return
    content = _begun(state, found, witnesses, out)
    for number in range(len(content["steps"]) + 1, len(found.steps) + 1):
        done = _carry_out(state, found.steps[number - 1], number, confirm_all=confirm_all, skip=skip == number)
        if done.get("run") is not None and done["code"] != 0 and "skipped" not in done:
            _write(content, out, "interrupted")
            raise _failed(number, done)
        content["steps"].append(done)
        _write(content, out, "interrupted")
    transcript = _ended(state, content, out)
    for name in witnesses:
        state.output.say(f"next: chargepki ca ceremony sign {out} --witness {name} --key F")
    _show(state, found, "complete", transcript.sha256)


def _show(state: GlobalState, script: Script, outcome: str, sha256: str | None) -> None:
    row: dict[str, Any] = {
        "title": script.title,
        "outcome": outcome,
        "sha256": sha256,
        "script_sha256": script.sha256,
        "witnesses": sorted(script.witnesses),
        "steps": len(script.steps),
    }
    state.output.fields("chargepki/ceremony", row)


def _begun(state: GlobalState, script: Script, witnesses: dict[str, str], out: str) -> dict[str, Any]:
    """Return the content to go on with: that of an interrupted run of the same script, or a new one, on record."""
    from importlib.metadata import version

    from chargepki.pki import files
    from chargepki.pki.authority import utc_now
    from chargepki.pki.authority.ceremony import MAX_BYTES, Transcript
    from chargepki.pki.errors import Conflict

    workspace = state.workspace
    if Path(out).exists():
        earlier = Transcript.parse(files.read_limited(out, MAX_BYTES, "transcript")).content
        if earlier["outcome"] == "complete" or earlier["script_sha256"] != script.sha256:
            raise Conflict(
                f"{out} is the transcript of another ceremony, or of one that is complete",
                why="a transcript is never overwritten",
                fix="name another --transcript",
            )
        return dict(earlier)
    now, actor = utc_now(), workspace.actor
    details = {"title": script.title, "script_sha256": script.sha256, "witnesses": sorted(witnesses)}
    workspace.inventory.write(lambda tx: tx.audit(actor, "ceremony.begin", script.sha256, now=now, details=details))
    content: dict[str, Any] = {
        "title": script.title,
        "script": script.text,
        "script_sha256": script.sha256,
        "witnesses": witnesses,
        "log_id": _head(workspace.inventory)[0],
        "user": actor.name,
        "program": f"chargepki {version('chargepki')}",
        "began_at": _time(now),
        "ended_at": None,
        "steps": [],
        "log_count": 0,
        "log_hash": "",
    }
    _write(content, out, "interrupted")
    return content


def _carry_out(state: GlobalState, step: Step, number: int, *, confirm_all: bool, skip: bool) -> dict[str, Any]:
    from chargepki.pki.authority import utc_now
    from chargepki.pki.errors import PolicyRefusal

    if step.run is None:
        state.output.say(f"step {number}: {step.say}")
        if not confirm_all:
            if not sys.stdin.isatty():
                raise PolicyRefusal(
                    f"step {number} has to be confirmed by a person",
                    why="standard input is no terminal",
                    fix="run it on a terminal, or rehearse it with --confirm-all",
                )
            click.confirm("done?", abort=True, err=True)
        return {"say": step.say, "at": _time(utc_now()), "confirmed": "assumed" if confirm_all else "by a person"}
    state.output.say(f"step {number}: chargepki {' '.join(step.run)}")
    row: dict[str, Any] = {"run": list(step.run), "at": _time(utc_now())}
    if skip:
        return {**row, "code": None, "skipped": "an operator said that it had been done before the interruption"}
    state.workspace.forget_inventory()
    # Its own process, as a person would start it; the workspace is the one of this command, whatever the script says.
    command = [sys.executable, "-c", _COMMAND, *step.run, "--home", str(state.settings.home)]
    command += ["--database", state.settings.database]
    if state.settings.passphrase_file not in (None, "-"):
        command += ["--passphrase-file", str(state.settings.passphrase_file)]
    if state.settings.public_url is not None:
        command += ["--public-url", state.settings.public_url]
    done = subprocess.run(command, capture_output=True, check=False)  # noqa: S603  # no shell; the words are the script's, which the operator chose
    state.output.say(done.stderr.decode(errors="replace").rstrip())
    return {
        **row,
        "code": done.returncode,
        "stdout_sha256": hashlib.sha256(done.stdout).hexdigest(),
        "stdout": _kept(done.stdout),
        "stderr": _kept(done.stderr),
    }


def _kept(output: bytes) -> str:
    """Return what of *output* may stand in a file that many people read."""
    if b"PRIVATE KEY" in output:
        return "not kept: it holds a private key"
    return output.decode(errors="replace")[:_KEPT_CHARACTERS]


def _failed(number: int, done: dict[str, Any]) -> Exception:
    from chargepki.pki.errors import StateError

    lines = [line for line in str(done["stderr"]).splitlines() if line.startswith("error: ")]
    return StateError(
        f"step {number} ended with {done['code']}",
        why=lines[0].removeprefix("error: ") if lines else "it says why above",
        fix=f"mend it and run the ceremony again: it goes on with step {number} (--skip {number} if that is done)",
    )


def _ended(state: GlobalState, content: dict[str, Any], out: str) -> Transcript:
    """Close the transcript, put its digest on record, and write it."""
    from chargepki.pki.authority import utc_now

    workspace, now = state.workspace, utc_now()
    _, content["log_count"], content["log_hash"] = _head(workspace.inventory)
    content["ended_at"] = _time(now)
    transcript = _encoded(content, "complete")
    details = {"title": content["title"], "script_sha256": content["script_sha256"]}
    workspace.inventory.write(
        lambda tx: tx.audit(
            workspace.actor,
            "ceremony.end",
            content["script_sha256"],
            now=now,
            artefact_sha256=transcript.sha256,
            details=details,
        )
    )
    _write(content, out, "complete")
    return transcript


@click.argument("transcript", metavar="TRANSCRIPT")
@click.option("--witness", required=True, metavar="NAME", help="Who signs, as the script names it.")
@click.option("--key", required=True, metavar="F|URI", help="Private key of the witness.")
@pass_state
def sign(state: GlobalState, transcript: str, witness: str, key: str) -> None:
    """Sign the TRANSCRIPT as a witness: it says what was done, and it was so.

    Needs no inventory; the signature is added to the file.
    """
    from chargepki.cli.firmware_images import open_signer
    from chargepki.pki import files
    from chargepki.pki.authority.ceremony import MAX_BYTES, Transcript, sign_transcript

    found = Transcript.parse(files.read_limited(transcript, MAX_BYTES, "transcript"))
    signed = sign_transcript(found, witness, open_signer(state, key))
    files.write_durable(transcript, signed.encode())
    missing = sorted(set(found.content["witnesses"]) - set(signed.signatures))
    state.output.say(f"{witness} signed {found.sha256}" + (f"; missing: {', '.join(missing)}" if missing else ""))
    state.output.fields(
        "chargepki/ceremony-signature", {"witness": witness, "sha256": found.sha256, "missing": missing}
    )


@click.argument("transcript", metavar="TRANSCRIPT")
@click.option("--script", metavar="F", help="Also compare it with this script.")
@click.option("--no-inventory", is_flag=True, help="Look at the file alone, not at the audit log.")
@pass_state
def verify(state: GlobalState, transcript: str, script: str | None, no_inventory: bool) -> None:
    """Verify the TRANSCRIPT: complete, step by step as scripted, signed by every witness, on record in the audit log.

    Exit 1 when something does not hold.
    """
    from chargepki.pki import files
    from chargepki.pki.authority.ceremony import MAX_BYTES, Script, Transcript, check_transcript

    found = Transcript.parse(files.read_limited(transcript, MAX_BYTES, "transcript"))
    wrong = check_transcript(found, inventory=None if no_inventory else state.workspace.inventory)
    if script is not None:
        wanted = Script.parse(files.read_limited(script, MAX_BYTES, "script")).sha256
        wrong += [] if wanted == found.content["script_sha256"] else [f"{script} is another script"]
    row = {
        "title": found.content["title"],
        "sha256": found.sha256,
        "valid": not wrong,
        "signed_by": sorted(found.signatures),
        "findings": wrong,
    }
    state.output.fields("chargepki/ceremony-verdict", row)
    if wrong:
        raise click.exceptions.Exit(1)


def _encoded(content: dict[str, Any], outcome: str) -> Transcript:
    from chargepki.pki.authority.ceremony import Transcript

    return Transcript({**content, "outcome": outcome})


def _write(content: dict[str, Any], out: str, outcome: str) -> None:
    from chargepki.pki import files

    files.write_durable(out, _encoded(content, outcome).encode())


def _head(inventory: Inventory) -> tuple[str, int, str]:
    head = inventory.audit_head()
    assert head is not None  # a workspace that can be changed has a log
    return head.log_id, head.count, head.hash


def _time(at: datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%SZ}"


@group("ceremony", example="chargepki ca ceremony run script.toml --transcript transcript.json")
def ceremony() -> None:
    """Carry out a key ceremony by script, before witnesses who sign its transcript."""


def add_ceremony(parent: Any) -> None:
    """Register the commands with the noun ``ca``."""
    example = "chargepki ca ceremony run script.toml --transcript transcript.json"
    ceremony.command("run", writes="change", example=example)(run)
    example = "chargepki ca ceremony sign transcript.json --witness alice --key alice.key"
    ceremony.command("sign", example=example)(sign)
    ceremony.command("verify", example="chargepki ca ceremony verify transcript.json --script script.toml")(verify)
    parent.add_command(ceremony)
