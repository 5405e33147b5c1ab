"""Commands that read molecules from images: decode."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from simexm.cli.app import Heading, command
from simexm.cli.options import JsonOption, OverwriteOption, ResultPath, output_option
from simexm.cli.shared import print_rows


@command(Heading.MOLECULES)
def decode(
    path: ResultPath,
    output: Annotated[
        Path | None, output_option("Table to write, .parquet or .csv, one row a cell.", "no table")
    ] = None,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Read the barcodes of cells from the images of all rounds, and compare them with the truth.

    Example: simexm decode rolonies.zarr --output decoded.csv
    """
    from simexm.analysis.barcodes.decode import decode as decode_result
    from simexm.analysis.barcodes.decode import refuse_table, write_table
    from simexm.result.result import Result

    if output:
        refuse_table(output, overwrite)
    found = decode_result(Result.open(path))
    if output:
        write_table(found.table, output)
    if as_json:
        typer.echo(json.dumps(found.to_mapping(), indent=2))
        return
    rows = [
        ("cells with a barcode", str(found.cells)),
        ("right", str(found.right)),
        ("wrong", f"{found.wrong} ({found.letters_wrong:.2%} of the letters)"),
        ("undecidable", f"{found.undecidable}, without an amplicon in the image"),
    ]
    print_rows(path, rows)
    if output:
        typer.echo(f"table: {output}")
