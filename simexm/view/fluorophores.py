"""Output of `simexm fluorophores`: figures of dyes, how a microscope sees them, and a picture."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simexm.errors import OutputError, SpecError
from simexm.spectra.fluorophores import Fluorophore, find, load_builtin
from simexm.spectra.fpbase import fetch
from simexm.store.atomic_file import refuse, refuse_missing_folder
from simexm.store.location import with_ending
from simexm.view.dyes import DyeInChannel, LightPath, dyes_in_channels, percent, read_light_path, remark
from simexm.view.spectra import draw_spectra


@dataclass(frozen=True)
class DyeReport:
    """Dyes to print."""

    dyes: Sequence[Fluorophore]
    light_path: LightPath | None  # of the spec, if one was named
    seen: Sequence[DyeInChannel]  # every dye in every channel
    picture: Path | None

    def to_mapping(self) -> dict[str, Any]:
        """Plain data; shares are 0 to 1."""
        data: dict[str, Any] = {"dyes": [dye_mapping(d) for d in self.dyes]}
        if self.light_path:
            data["pairs"] = [dye_in_channel_mapping(s, self.light_path) for s in self.seen]
        if self.picture:
            data["picture"] = str(self.picture)
        return data


def report_dyes(names: Sequence[str], spec: Path | None, output: Path | None) -> DyeReport:
    """Look up dyes, and draw them if dyes, a spec or a PNG is named.

    Without `names`, report the dyes of the spec, else all built-in ones. Raises SpecError if a dye is unknown or the spec
    cannot be read, OutputError if `output` is no PNG or its folder does not exist.
    """
    if output and output.suffix.lower() != ".png":
        raise OutputError(f"the picture {output} is a PNG; type --output {with_ending(output, '.png')}")
    if output:
        refuse_missing_folder(output)
    light_path = read_light_path(spec) if spec else None
    own = light_path.dyes if light_path else {}
    dyes = [find(name, own) for name in dict.fromkeys(names)] or list((own or load_builtin()).values())
    seen = dyes_in_channels(dyes, light_path) if light_path else []
    picture = output
    if picture is None and (names or spec):
        stem = spec.stem if spec else re.sub(r"[^\w.+-]+", "_", "-".join(list(dict.fromkeys(names))[:4]))
        picture = Path(f"{stem}-spectra.png")
    if picture:
        shown = ", ".join(d.name for d in dyes) if len(dyes) <= 5 else f"{len(dyes)} dyes"
        draw_spectra(dyes, light_path, picture, title=f"{shown} with {spec.name}" if spec else shown)
    return DyeReport(dyes, light_path, seen, picture)


def fetch_dyes(names: Sequence[str], *, alone: bool, overwrite: bool) -> list[str]:
    """Write a CSV file of each dye from FPbase into the working directory; return the lines of a spec that use them.

    Raises SpecError if the command was not typed `alone`, without dyes and outputs, or a dye is unknown; OutputError if a file
    exists; SimexmError if FPbase does not answer.
    """
    if not alone:
        raise SpecError("--fetch writes CSV files and draws nothing; type it alone, then name the files in a spec")
    found = [fetch(name) for name in dict.fromkeys(names)]
    refuse([Path(dye.file_name) for dye in found], overwrite=overwrite)
    lines = ["dyes:"]
    for dye in found:
        dye.write(Path(dye.file_name))
        lines.append(f"  {json.dumps(dye.name, ensure_ascii=False)}: {{csv: {dye.file_name}}}")
        if dye.missing:
            lines.append(f"    # FPbase has no {' and no '.join(dye.missing)}: add each beside `csv:`")
    return lines


def guessed(dye: Fluorophore) -> str:
    """Name the figures of a dye that are guesses."""
    names = [g.removesuffix("_ns").replace("_", " ") for g in dye.guesses]
    return f"guessed: {', '.join(names)}" if names else ""


def dye_mapping(dye: Fluorophore) -> dict[str, Any]:
    """Return the figures of a dye as plain data, without spectra."""
    return {
        "name": dye.name,
        "peak_excitation_nm": dye.peak_excitation_nm,
        "peak_emission_nm": dye.peak_emission_nm,
        **dye.model_dump(include={"extinction_per_M_per_cm", "quantum_yield", "lifetime_ns", "guesses", "source"}),
    }


def dye_in_channel_mapping(pair: DyeInChannel, light_path: LightPath) -> dict[str, Any]:
    """Return a dye in a channel as plain data; shares are 0 to 1."""
    return {
        "dye": pair.dye.name,
        "channel": pair.channel.name,
        "excitation_nm": pair.channel.excitation_nm,
        "passes_nm": list(pair.channel.passes_nm),
        "excited_share": pair.excited,
        "passed_share": pair.passed,
        "signal_share": pair.signal,
        "wanted": pair.wanted,
        "remark": remark(pair, light_path),
    }


def dye_rows(dyes: Iterable[Fluorophore]) -> list[tuple[str, ...]]:
    """Return a table of dyes, its heading first."""
    head = ("dye", "absorbs at", "emits at", "extinction /M/cm", "yield", "lifetime", "remarks")
    rows = [
        (
            dye.name,
            f"{dye.peak_excitation_nm:.0f} nm",
            f"{dye.peak_emission_nm:.0f} nm",
            f"{dye.extinction_per_M_per_cm:.0f}",
            f"{dye.quantum_yield:.2f}",
            f"{dye.lifetime_ns:.1f} ns",
            guessed(dye),
        )
        for dye in dyes
    ]
    return [head, *rows]


def dye_in_channel_rows(seen: Iterable[DyeInChannel], light_path: LightPath) -> list[tuple[str, ...]]:
    """Return a table of dyes in channels, its heading first."""
    head = ("dye", "channel", "laser", "excites", "band", "passes", "signal", "remarks")
    rows = [
        (
            s.dye.name,
            s.channel.name,
            f"{s.channel.excitation_nm:.4g} nm",
            "?" if s.excited is None else percent(s.excited),
            f"{s.channel.passes_nm[0]:.4g} to {s.channel.passes_nm[1]:.4g} nm",
            percent(s.passed),
            "-" if s.signal is None else percent(s.signal),
            remark(s, light_path),
        )
        for s in seen
    ]
    return [head, *rows]
