"""Commands for a web browser: view, report."""

from __future__ import annotations

import threading
import warnings
from pathlib import Path
from typing import Annotated

import typer

from simexm.cli.app import app
from simexm.cli.shared import ResultPath, stoppable
from simexm.errors import SimexmWarning


@app.command()
def view(
    paths: Annotated[
        list[str], typer.Argument(help="Results, NAME.zarr; several are shown side by side.", metavar="RESULT...")
    ],
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port on this machine's loopback.", show_default="a free one")
    ] = 0,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Print the address and open no browser.")] = False,
) -> None:
    """Show results in Neuroglancer, in the browser: channels, label images and the ground truth, at any size. Ctrl-C ends it.

    Example: simexm view out.zarr

    Example: simexm view confocal.zarr widefield.zarr --no-browser
    """
    from simexm.result.result import Result
    from simexm.view.viewer import Viewer, open_browser

    viewer = Viewer([Result.open(path) for path in paths], port)
    try:
        with stoppable():
            for scene in viewer.scenes:
                for sentence in scene.lacking:
                    warnings.warn(sentence, SimexmWarning, stacklevel=1)
            typer.echo(f"view: {viewer.url}")
            typer.echo(f"from another computer type there: {viewer.tunnel}    (and open the same address)")
            typer.echo("Ctrl-C ends it")
            if not no_browser:
                open_browser(viewer.url)
            threading.Event().wait()
    except KeyboardInterrupt:
        typer.echo("ended", err=True)
    finally:
        viewer.close()


@app.command()
def report(
    path: ResultPath,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File to write.", show_default="the result's name, -report.html"),
    ] = None,
) -> None:
    """Write a result as one page of HTML to look at, print or send: pictures, light, noise, cells, and how to make it again.

    Example: simexm report out.zarr --output report.html
    """
    from simexm.errors import OutputError
    from simexm.result.result import Result
    from simexm.store.location import with_ending
    from simexm.view.report.page import default_path, write_report

    if output and output.suffix.lower() not in (".html", ".htm"):
        raise OutputError(f"the report {output} is HTML; type --output {with_ending(output, '.html')}")
    result = Result.open(path)
    page = output or default_path(result)
    write_report(result, page)
    typer.echo(f"report: {page}")
