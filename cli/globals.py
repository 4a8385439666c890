"""Options that every command accepts, before and after the verb, and the state they fill."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from chargepki.cli.telling import tell

if TYPE_CHECKING:
    from chargepki.cli.output import Output
    from chargepki.pki.config import Settings
    from chargepki.pki.workspace import Workspace

    Writes = Literal["", "change", "create", "rehearse"]

__all__ = ["GlobalState", "Group", "HelpNames", "ReaderGone", "command", "global_params", "group", "pass_state"]

_F = TypeVar("_F", bound=Callable[..., Any])

# name, flag, metavar, help; the environment variable follows from the name
_SETTING_OPTIONS = (
    ("home", "--home", "DIR", "Workspace folder."),
    ("database", "--database", "URL", "Inventory database (SQLite or PostgreSQL)."),
    ("passphrase_file", "--passphrase-file", "PATH|-", "File with the passphrase of the software keys."),
    ("public_url", "--public-url", "URL", "Base of the URLs written into certificates."),
    ("publish_dir", "--publish-dir", "DIR", "Also write CRLs and CA certificates there."),
)
_FLAG_OPTIONS = (
    ("json", ("--json",), "Print one JSON object."),
    ("json_lines", ("--json-lines",), "Print lists as one JSON object a line."),
    ("quiet", ("-q", "--quiet"), "Say nothing but data and errors."),
    ("verbose", ("-v", "--verbose"), "Add reasons."),
    ("debug", ("--debug",), "Show tracebacks."),
)


class ReaderGone(Exception):
    """Nobody reads our output any more (``| head``): the reader's decision, not an error."""


class GlobalState:
    """What the global options said, and the parts of the workspace that a command needs."""

    def __init__(self) -> None:
        self.flags: dict[str, str | None] = {}
        self.json = False
        self.json_lines = False
        self.quiet = False
        self.verbose = False
        self.debug = False
        self.is_verdict = False
        """Set by commands whose exit code 1 means "the answer is no" (undecodable input is such an answer)."""
        self.writes: Writes = ""
        """Set by each command: whether it only reads, changes what is there, or may create the workspace."""
        self._opened: Workspace | None = None

    @cached_property
    def settings(self) -> Settings:
        """The merged settings of this call."""
        import platformdirs

        from chargepki.pki.config import load_settings

        return load_settings(self.flags, os.environ, default_home=platformdirs.user_data_path("chargepki"))

    @cached_property
    def workspace(self) -> Workspace:
        """The workspace; its parts open when they are used, and the first writing command creates it."""
        from chargepki.cli.passphrase import ask_token_pin, passphrase_source
        from chargepki.pki.workspace import Access, Workspace

        self._opened = Workspace(
            self.settings,
            passphrase=passphrase_source(self.settings.passphrase_file, warn=self.output.say),
            access=Access(self.writes or "read"),
            token_pin=ask_token_pin,
            process=click.get_current_context().command_path[:63],
        )
        return self._opened

    def rehearse(self) -> None:
        """Make this call a dry run: writes are carried out and undone, and no file is written."""
        self.writes = "rehearse"
        self.output.say("dry run: nothing is changed")

    @cached_property
    def output(self) -> Output:
        """Where data and words go."""
        from chargepki.cli.output import Output

        return Output(json=self.json, json_lines=self.json_lines, quiet=self.quiet, verbose=self.verbose)

    def close(self) -> None:
        """Close what was opened."""
        if self._opened is not None:
            self._opened.close()

    def say_line(self, text: str) -> None:
        """Write *text* to stderr, even with ``--quiet``."""
        tell(text)

    def report(
        self, *, what: str, why: str, fix: str, code: str = "error", details: Mapping[str, Any] | None = None
    ) -> None:
        """Tell about an error: three lines for a person, one object for ``--json``."""
        if self.json or self.json_lines:
            import json

            error = {"schema": "chargepki/error", "schema_version": 1, "code": code, "what": what}
            print(json.dumps({**error, "why": why, "fix": fix, **(details or {})}))
            return
        self.say_line(f"error: {what}")
        for label, text in (("why", why), ("fix", fix)):
            if text:
                self.say_line(f"{label}: {text}")


def global_params() -> list[click.Parameter]:
    """Return fresh copies of the global options, each storing what it is given in the `GlobalState`."""

    def keep_setting(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
        # Not given here: leave what was given before the verb.
        if value is not None and param.name is not None:
            ctx.find_object(GlobalState).flags[param.name] = value  # type: ignore[union-attr]  # `main` always sets it

    def keep_flag(ctx: click.Context, param: click.Parameter, value: bool) -> None:
        if value and param.name is not None:
            setattr(ctx.find_object(GlobalState), param.name.removeprefix("global_"), True)

    params: list[click.Parameter] = [
        # Variables are read by `load_settings`, which also knows the file; click must not read them a second time.
        click.Option(
            [name, flag],
            metavar=metavar,
            help=text,
            expose_value=False,
            callback=keep_setting,
            allow_from_autoenv=False,
        )
        for name, flag, metavar, text in _SETTING_OPTIONS
    ]
    params += [
        click.Option(
            [f"global_{name}", *flags],
            is_flag=True,
            help=text,
            expose_value=False,
            callback=keep_flag,
            allow_from_autoenv=False,
        )
        for name, flags, text in _FLAG_OPTIONS
    ]
    return params


class HelpNames:
    """Mixin: ``-h`` and ``--help``, whatever the context says.

    click remembers a command's help option from whoever asks for it first, and a context made for documentation does
    not know the settings of the root.
    """

    def get_help_option_names(self, ctx: click.Context) -> list[str]:
        """Return the names of the help option."""
        return ["-h", "--help"]


class _WithGlobals(HelpNames):
    """Mixin: add the global options and show them in a section of their own."""

    params: list[click.Parameter]

    def __init__(self, *args: Any, example: str = "", **kwargs: Any) -> None:
        # The marker keeps click from re-wrapping the lines: an example is there to be copied.
        lines = "".join(f"\n  {line}" for line in example.splitlines())
        kwargs["epilog"] = f"\b\nExample:{lines}" if example else None
        super().__init__(*args, **kwargs)
        self.own_params: Sequence[click.Parameter] = list(self.params)
        self.params = [*self.params, *global_params()]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write own options first, then the commands, then the global options."""
        own = [record for p in self.own_params if (record := p.get_help_record(ctx))]
        if own:
            with formatter.section("Options"):
                formatter.write_dl(own)
        if isinstance(self, click.Group):
            self.format_commands(ctx, formatter)
        shared = [record for p in global_params() if (record := p.get_help_record(ctx))]
        with formatter.section("Global options"):
            formatter.write_dl([*shared, ("-h, --help", "Show this message and exit.")])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the example without the indentation that click gives to epilogs."""
        if isinstance(self, click.Command) and self.epilog:
            formatter.write_paragraph()
            formatter.write_text(self.epilog)


class Command(_WithGlobals, click.Command):
    """A command with the global options and an example in its help."""

    def __init__(self, *args: Any, verdict: bool = False, writes: Writes = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.verdict = verdict
        self.writes = writes

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command and close what it opened."""
        state = ctx.find_object(GlobalState)
        if state is None:
            return super().invoke(ctx)
        state.is_verdict = self.verdict
        state.writes = self.writes
        try:
            return super().invoke(ctx)
        except BrokenPipeError as exc:
            # Click would turn it into exit code 1, which means "the answer is no" here.
            raise ReaderGone from exc
        finally:
            state.close()


class Group(_WithGlobals, click.Group):
    """A noun; its verbs are `Command`s, declared with what `command` takes."""

    command_class = Command
    group_class = type  # a noun below a noun is a `Group` too

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands with their whole first sentence; click would cut it at 45 characters."""
        found = ((name, self.get_command(ctx, name)) for name in self.list_commands(ctx))
        rows = [(name, item.get_short_help_str(limit=500)) for name, item in found if item is not None]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def command(name: str, *, example: str, verdict: bool = False, **kwargs: Any) -> Callable[[_F], Command]:
    """Declare a command outside of a group.

    Args:
        example: shown in the help; every command has one.
        verdict: exit code 1 means "no" here, so undecodable input is a "no" as well.
        kwargs: among them ``writes``: ``""`` for a command that only reads, ``"change"`` for one that needs an
            inventory to change, ``"create"`` for one that may create the workspace.
    """
    return click.command(name, cls=Command, example=example, verdict=verdict, **kwargs)


def group(name: str, *, example: str = "") -> Callable[[_F], Group]:
    """Declare a noun."""
    return click.group(name, cls=Group, example=example)


pass_state = click.make_pass_decorator(GlobalState)
"""Pass the `GlobalState` as first argument."""
