"""Commands for a web browser: view, report."""

from __future__ import annotations

import threading
import warnings
from pathlib import Path
from typing import Annotated

import typer

from simexm.cli.app import app
from simexm.cli.shared import stoppable
from simexm.errors import SimexmWarning


@app.command()
def view(
    paths: Annotated[
        list[Path], typer.Argument(help="Results, NAME.zarr; several are shown side by side.", metavar="RESULT...")
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
    from simexm.result import Result
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
