"""``firmware mutate``: write a mutation pack to a folder."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

from chargepki.cli.globals import GlobalState
from chargepki.cli.output import counted, jsonable
from chargepki.ocpp_security.firmware_mutations import build_pack
from chargepki.pki import files
from chargepki.pki.errors import Conflict, InputError

__all__ = ["write_pack"]

_COLUMNS = ("id", "install", "answer", "rule", "why")


def write_pack(state: GlobalState, image: str, out_dir: str, *, older: str | None, dry_run: bool) -> None:
    """Make the pack and write it; the manifest last, so that a pack with one is whole.

    Raises:
        Conflict: the folder has something in it.
        InputError: the image is too small or a folder.
    """
    from chargepki.cli.progress import progress

    for path in (image, older):
        if path is not None and Path(path).exists() and not Path(path).is_file():
            raise InputError(f"{path} is no plain file", why="an image is one, and read more than once", fix="name it")
    folder = Path(out_dir)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise Conflict(f"{folder} is not an empty folder", why="nothing in it is overwritten", fix="name another")
    pack = build_pack(Path(image), now=datetime.now(UTC), older=None if older is None else Path(older))
    if not dry_run:
        files.make_folder(folder / "cases")
        with progress(state, "writing the pack") as advance:
            for done, (name, chunks) in enumerate(pack.images.items()):
                advance(done, len(pack.images))
                files.write_stream(folder / name, chunks())
        for case in pack.cases:
            files.write_durable(folder / "cases" / f"{case.id}.pem", case.certificate.encode("ascii"))
            files.write_durable(folder / "cases" / f"{case.id}.sig", case.signature.encode("ascii"))
        files.write_durable(folder / "root.pem", pack.root_pem.encode("ascii"))
        files.write_durable(folder / "root.crl", pack.crl)
        manifest = json.dumps(jsonable(pack.manifest()), indent=2, ensure_ascii=True)
        files.write_durable(folder / "manifest.json", manifest.encode("ascii") + b"\n")
        bad = sum(case.rule is not None for case in pack.cases)
        state.output.say(
            f"wrote {counted(bad, 'bad update')} and {counted(len(pack.cases) - bad, 'good one')} to {folder}"
        )
        if not any(case.versions for case in pack.cases):
            state.output.say("no case of a rollback: only --older F gives one for an image of this kind")
    rows = [{**entry, **entry.pop("expect")} for entry in pack.manifest()["cases"]]
    state.output.rows("chargepki/firmware-mutation-list", _COLUMNS, rows, key="cases")
