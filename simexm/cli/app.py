"""The application: what all commands share, one message for each error, and the entry point."""

from __future__ import annotations

import atexit
import contextlib
import errno
import os
import sys
import threading
import traceback
import warnings
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core

from simexm import caches
from simexm.cli import streams
from simexm.cli.streams import ClosedPipeError, LostOutputError
from simexm.errors import SimexmError, SimexmWarning
from simexm.logs import logger
from simexm.machine import refuse_lost_folder, refuse_tight_shell, rlimits
from simexm.names import printable
from simexm.store.refusals import RemoteError
from simexm.version import __version__


class _Group(typer.core.TyperGroup):
    """All commands; turns what they raise into one message and an exit code."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names of the commands, heading by heading."""
        order, commands = [heading.value for heading in Heading], dict[str, Any](self.commands)
        return sorted(super().list_commands(ctx), key=lambda name: order.index(commands[name].rich_help_panel))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A command of simexm, or else that of an installed analysis."""
        known = super().get_command(ctx, cmd_name)
        if known is not None or cmd_name.startswith("-"):
            return known
        from simexm.cli.analyse import installed_command

        return installed_command(cmd_name)

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        if os.environ.get("NO_COLOR"):  # see no-color.org
            ctx.color = False
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            warnings.simplefilter("ignore")  # of other libraries: a user cannot act on them
            warnings.simplefilter("always", SimexmWarning)
            for text in caches.pending_warnings():
                warnings.warn(text, SimexmWarning, stacklevel=1)
            try:
                refuse_lost_folder()
                return super().invoke(ctx)
            except KeyboardInterrupt:
                logger.error("interrupted")
                typer.secho("interrupted", err=True)
                raise typer.Exit(130) from None
            except (typer.Exit, typer.Abort, LostOutputError):
                raise
            except Exception as error:
                if _Debug.on or type(error).__module__.startswith("typer"):  # its usage errors
                    raise
                text, code = _message_and_code(error)
                _print_error(printable(text))
                raise typer.Exit(code) from None


app = typer.Typer(
    name="simexm",
    cls=_Group,
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Simulate expansion microscopy of segmented electron-microscopy volumes.\n\n"
    "Example: simexm new > my.yaml && simexm run my.yaml --output out.zarr",
    epilog="Exit codes: 0 done; 1 begun and not finished, or damage found; 2 what was typed, the spec or the input is wrong; "
    "130 interrupted (Ctrl-C); 141 the reader of its output has ended; 143 ended by SIGTERM.",
)


class Heading(StrEnum):
    """Headings of `simexm --help`, in their order; those without a command are not shown."""

    BRING_IN = "Bring in"
    SIMULATE = "Simulate"
    REGISTER = "Register"
    WIRING = "Wiring"
    MOLECULES = "Molecules"
    JUDGE = "Judge"
    LOOK = "Look"
    GUARD = "Guard"


def command(
    heading: Heading, name: str | None = None, help: str | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a function as a command below a heading; name and help are by default the function's name and docstring."""
    return app.command(name=name, help=help, rich_help_panel=heading.value)


class _Debug:
    """Whether errors are shown with a traceback."""

    on = False


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"simexm {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    debug: Annotated[bool, typer.Option("--debug", help="Show Python's traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    _Debug.on = debug or bool(os.environ.get("SIMEXM_DEBUG"))
    refuse_tight_shell()


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    if issubclass(category, SimexmWarning):
        text = printable(str(message))
        logger.warning("%s", text)
        typer.secho(f"warning: {text}", fg="yellow", err=True)


def _print_error(text: str) -> None:
    logger.error(text)
    typer.secho(f"error: {text}", fg="red", err=True)


def _message_and_code(error: Exception) -> tuple[str, int]:
    """The message for an error, and the exit code."""
    if isinstance(error, SimexmError):
        return str(error), error.exit_code
    if isinstance(error, MemoryError):
        limit = next((f" ({name})" for name, _, _ in rlimits()), "")
        remedy = "lower execution.memory_GiB in the spec, raise the limits, or close other programs"
        return f"out of memory{limit}; {remedy}", 1
    if isinstance(error, RemoteError):
        return f"{error.filename}: {error.strerror}", 1
    if isinstance(error, OSError) and error.filename:
        text = f"{error.filename}: {error.strerror or error}; name a file or folder that you may use"
        return text, 2 if error.errno in _MISTYPED else 1
    if isinstance(error, OSError) and error.errno in _OF_THE_MACHINE:
        return f"{error.strerror}; free disk space or close other programs, then type the command again", 1
    *_, last = traceback.extract_tb(error.__traceback__)
    if Path(last.filename).parts[-2:] == ("dask", "config.py"):
        remedy = "correct that file, or set DASK_CONFIG to a folder without settings"
        return f"Dask's own settings cannot be read: {' '.join(str(error).split())}; {remedy}", 2
    text = f"{type(error).__name__}: {error} (in {Path(last.filename).name}, line {last.lineno})"
    return f"{text}. This is a fault of simexm, not yours: please report it with the output of `simexm --debug ...`", 1


_MISTYPED = (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR)
"""Errors of paths that cannot exist, whatever the state of the disk."""

_OF_THE_MACHINE = (
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.ESTALE
)  # fmt: skip


def _one_arena() -> None:
    """Let all threads share one heap: glibc gives each its own, and no other thread can use what one frees."""
    import ctypes

    with contextlib.suppress(OSError, AttributeError):  # not glibc
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


_M_ARENA_MAX = -8


def main() -> None:
    """Run the `simexm` command and end the process."""
    streams.guard()
    _one_arena()
    try:
        app()
    except SystemExit as end:
        _leave(end.code if isinstance(end.code, int) else int(end.code is not None))
    except LostOutputError as lost:
        _leave(_report_lost(lost))


def _report_lost(lost: LostOutputError) -> int:
    if not isinstance(lost, ClosedPipeError):
        _print_error(str(lost))
    return lost.exit_code


def _leave(code: int) -> None:
    """End the process once the libraries have cleaned up, without the half second in which Python unloads its modules."""
    if (lost := streams.flush()) and not code:
        code = _report_lost(lost)
    if any(t is not threading.main_thread() and not t.daemon for t in threading.enumerate()):
        sys.exit(code)  # which waits for them
    atexit._run_exitfuncs()
    streams.flush()
    os._exit(code)
