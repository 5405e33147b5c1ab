"""Names: specs, files and records follow one pattern, and no text moves a terminal's cursor."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from simexm.api import Simulation
from simexm.errors import OutputError, SourceError, SpecError
from simexm.ingestion.ingest import ingest
from simexm.jobs.batch.record import Record
from simexm.jobs.lock import lock
from simexm.jobs.lock_owner import holder
from simexm.names import is_region, printable
from simexm.sources.arrays import ArrayVolume
from simexm.store.atomic_group import atomic_group
from simexm.store.documents import DEEPEST, MalformedError, parse_mapping
from tests.build import confocal, layer, spec
from tests.legacy2017.configs import CONFOCAL

HOSTILE = ["../x", "a/b", "..", ".", "", " ", "x" * 300, "a\nb", "\x1b]0;pwned\x07", "a\x00b", "[/red]", "zarr.json", "\u202eevil",
           "-rf", "a\\b", "~", "$(x)", "a\n"]  # fmt: skip


@given(st.text())
def test_what_is_printed_holds_no_control_character(given: str) -> None:
    shown = printable(given)
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", shown)
    shown.encode()
    if given.isascii() and given.isprintable():
        assert shown == given


@pytest.mark.parametrize("name", HOSTILE)
def test_specs_refuse_names_that_could_lead_elsewhere(name: str) -> None:
    wrong: list[dict[str, Any]] = [
        spec(layer(name=name)),
        spec(optics=confocal(channels=[{**confocal()["channels"][0], "name": name}])),
        spec(source={"path": "memory", "regions": {name: "mask"}}),
    ]
    if not printable(name).isprintable() or name in ("", "\x1b]0;pwned\x07", "a\x00b", "\u202eevil", "x" * 300):
        wrong += [spec(name=name), spec(layer(dye=name), dyes={name: {"like": "ATTO488"}})]
    for each in wrong:
        with pytest.raises(SpecError) as caught:
            Simulation.from_mapping(each)
        assert printable(str(caught.value)) == str(caught.value)
    assert not is_region(name)
    with pytest.raises(SourceError, match="letters, digits"):
        ArrayVolume(np.ones((2, 2, 2), np.uint8), (1, 1, 1), {name: np.ones((2, 2, 2), np.bool_)})


@pytest.mark.parametrize("name", HOSTILE)
def test_masks_that_an_ingest_is_said_to_have_left_stay_inside(tmp_path: Path, name: str) -> None:
    data: Any = np.ones((4, 8, 8), np.uint8)
    zarr.save_array(tmp_path / "labels.zarr", data, zarr_format=3)
    ingest(tmp_path / "labels.zarr", tmp_path / "made.zarr", (40, 32, 32))
    group = json.loads((tmp_path / "made.zarr/zarr.json").read_text())
    group["attributes"]["simexm"]["regions"] = [name]
    (tmp_path / "made.zarr/zarr.json").write_text(json.dumps(group))
    for act in (
        lambda: ingest(tmp_path / "made.zarr", tmp_path / "again.zarr"),
        lambda: Simulation.from_mapping(spec(source={"path": str(tmp_path / "made.zarr")})).plan(),
        lambda: atomic_group(tmp_path / "made.zarr", overwrite=True, writer="simexm ingest").__enter__(),
    ):
        with pytest.raises((SourceError, SpecError), match=r"simexm\.regions"):
            act()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["labels.zarr", "made.zarr"]


@pytest.mark.parametrize("name", ["../x", "a/b", "..", "."])
def test_the_folder_of_a_2017_file_is_a_name(name: str) -> None:
    from simexm.legacy2017.ini import from_text

    given = re.sub(r"(?m)^(\s*name\s*=).*$", rf"\1 {name}", CONFOCAL)
    with pytest.raises(SpecError, match="should be the name of a folder"):
        from_text(given, "a.ini")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[" * 100_000, "deep"), ('{"a":' * (DEEPEST + 1) + "1" + "}" * (DEEPEST + 1), "deep"), ("[]", "no JSON object"),
        ('{"a": NaN}', "NaN"), ('{"a": {"b": 1, "b": 2}}', "twice"), ("{", "no JSON"), ("\ufeff{}", "BOM"),
        ('{"a": ' + "1" * 5000 + "}", "no JSON"),
    ],
    ids=lambda v: v[:12],
)  # fmt: skip
def test_json_that_readers_could_take_for_different_things(text: str, fault: str) -> None:
    with pytest.raises(MalformedError, match=fault):
        parse_mapping(text.encode())


LINES = [
    "", "{", "[1]", "null", '{"id": "1"}', '{"id": ["1"], "kind": "slurm", "name": "NAME"}', "[" * 100_000,
    '{"id": "1; rm -rf x", "kind": "slurm", "name": "NAME"}', '{"id": "7", "kind": ["slurm"], "name": "NAME"}',
    '{"id": "-u me", "kind": "slurm", "name": "NAME"}', '{"id": "8", "kind": "slurm", "name": "simexm-other-00000000"}',
]  # fmt: skip


def test_forged_lines_of_a_record_name_no_job(tmp_path: Path) -> None:
    record = Record(tmp_path / "out.run/jobs")
    record.make()
    record.submitted("slurm", "12")
    with (record.folder / "jobs.jsonl").open("a") as file:
        file.writelines(line.replace("NAME", record.name) + "\n" for line in LINES)
    record.submitted("slurm", "13")
    assert [job["id"] for job in record.jobs()] == ["12", "13"]
    for line in LINES:
        for name in ("state.json", "driver.json"):
            (record.folder / name).write_text(line)
        assert record.read_state() == {"jobs": {}, "workers": None}
        assert record.driver() == {}


def test_a_record_is_not_written_through_a_link(tmp_path: Path) -> None:
    record = Record(tmp_path / "out.run/jobs")
    record.make()
    (tmp_path / "precious").write_text("keep")
    (record.folder / "jobs.jsonl").symlink_to(tmp_path / "precious")
    with pytest.raises(OutputError, match="symbolic link"):
        record.make()
    assert (tmp_path / "precious").read_text() == "keep"


@pytest.mark.parametrize(
    "text", ["", "[", "7", "[" * 4000, '{"pid": -1, "host": "a"}', '{"pid": 1e99, "host": "a\\u001b[2J"}']
)
def test_a_forged_lock_names_no_process(tmp_path: Path, text: str) -> None:
    path = tmp_path / "lock"
    path.write_text(text)
    assert holder(path) is None
    with pytest.raises(OutputError, match=r"process \? on an unknown host"), lock(path):
        pass
    assert path.read_text() == text


def test_a_lock_is_not_taken_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("keep")
    os.utime(tmp_path / "precious", (1, 1))
    (tmp_path / "lock").symlink_to(tmp_path / "precious")
    with pytest.raises(OutputError, match="cannot write"), lock(tmp_path / "lock"):
        pass
    assert (tmp_path / "precious").read_text() == "keep"
