"""Run a 2017 configuration: ingest its ground truth, simulate it, and write the original's files."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simexm.errors import OutputError, SimexmWarning, SourceNotFoundError, SpecError
from simexm.legacy2017.config import Config
from simexm.legacy2017.convert import Model, convert, ingest_arguments, native_names
from simexm.legacy2017.ini import read
from simexm.result.result import Result
from simexm.sources.base import neighbours
from simexm.store.documents import read_mapping

Progress = Callable[[int, int], None]
_FROM = "ingested_from"


@dataclass(frozen=True)
class Job:
    """A configuration file with its model, seed, and output NAME.zarr.

    The original's files go to the folder NAME beside the output, by default PATH/NAME, where the original wrote them.
    """

    config: Config
    model: Model
    seed: int
    output: Path

    @classmethod
    def of(cls, path: Path, model: str = "simexm2017", seed: int | None = None, output: Path | None = None) -> Job:
        """Read a file; raises SpecError with all its problems, or for an unknown model."""
        if model not in ("simexm2017", "physical"):
            raise SpecError(f"--model {model} is unknown; type simexm2017 (the original's model) or physical")
        config = read(path)
        folder = Path(config.output.folder).expanduser()
        return cls(config, model, seed or 0, output or folder.with_name(folder.name + ".zarr"))  # type: ignore[arg-type]

    @property
    def folder(self) -> Path:
        """Folder of the original's files."""
        return self.output.with_suffix("")

    @property
    def ground_truth(self) -> Path:
        """Path of the ingested crop of the ground truth."""
        return self.output.with_suffix(".groundtruth.zarr")

    def spec(self) -> dict[str, Any]:
        """The native spec as plain data, with the truth that the original's files need."""
        spec = convert(self.config, self.model, source_path=self.ground_truth, seed=self.seed)
        spec["stages"][-1]["regions"] = [self._region]
        return spec

    @property
    def _region(self) -> str:
        """Native name of the region of the original's label volumes."""
        region = self.config.output.gt_region
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SimexmWarning)  # `spec` warns
            return native_names(self.config)["region"].get(region, region)

    def ingest(self, progress: Progress | None = None) -> None:
        """Ingest the ground truth unless the same files were ingested already."""
        from simexm.ingestion.ingest import ingest

        arguments = ingest_arguments(self.config)
        fingerprint = _fingerprint(arguments)
        if self._ingested_from() == fingerprint:
            return
        self._refuse_missing(arguments)
        self.output.parent.mkdir(parents=True, exist_ok=True)
        ingest(output=self.ground_truth, **arguments, overwrite=True, progress=progress)
        path = self.ground_truth / "zarr.json"
        group = json.loads(path.read_text())
        group["attributes"]["simexm"][_FROM] = fingerprint
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(group))
        partial.replace(path)

    def _refuse_missing(self, arguments: dict[str, Any]) -> None:
        named = {"[groundtruth]: image_path": arguments["source"]}
        named |= {f"[[[{n}]]]: region_path": r.region_path for n, r in self.config.groundtruth.regions.items()}
        for key, path in named.items():
            expanded = Path(path).expanduser()
            inside = any(parent.is_file() for parent in expanded.parents)  # a volume inside an HDF5 file
            if "*" not in path and "://" not in path and not inside and not expanded.exists():
                raise SourceNotFoundError(
                    f"{key} = {path} does not exist.{neighbours(Path(path).absolute())} A relative path begins at the working "
                    f"folder, {Path.cwd()}: correct it in the file, or type the command in another folder"
                )

    def _ingested_from(self) -> str | None:
        try:
            group = read_mapping(self.ground_truth / "zarr.json")
            found: str | None = group["attributes"]["simexm"].get(_FROM)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        return found

    def check_files(self, overwrite: bool) -> None:
        """Raise OutputError if the original's files exist and are not to be overwritten."""
        for name in ("simulation", "groundtruth"):
            if not overwrite and (self.folder / name).exists():
                raise OutputError(
                    f"{self.folder / name} exists, and its files would be replaced; type --overwrite, or another --output"
                )

    def write_files(self, result: Result, progress: Progress | None = None) -> list[Path]:
        """Write the original's files below `folder`."""
        from simexm.legacy2017.files import Files2017, write_2017_files

        out = self.config.output
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SimexmWarning)
            names = native_names(self.config)["layer"]
        labels: dict[str, list[str]] = {}
        for name, layer in self.config.labeling.layers.items():
            labels.setdefault(layer.fluorophore, []).append(f"{names[name]}_{self._region}")
        options = Files2017(out.format, out.sim_channels, out.gt_cells, labels)
        return write_2017_files(result, self.folder, options, overwrite=True, progress=progress)


def _fingerprint(arguments: dict[str, Any]) -> str:
    """Hash of an ingest's arguments and of its files' sizes and times."""
    paths = [arguments["source"], *arguments["regions"].values()]
    files = [(str(f), f.stat().st_size, f.stat().st_mtime_ns) for path in paths for f in _files(Path(path))]
    return hashlib.blake2b(json.dumps([arguments, files], default=str).encode(), digest_size=16).hexdigest()


def _files(path: Path) -> Iterator[Path]:
    if path.is_dir():
        yield from sorted(p for p in path.rglob("*") if p.is_file())
    elif path.exists():
        yield path
