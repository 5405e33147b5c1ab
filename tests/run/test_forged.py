"""Results that somebody forged, or a disk damaged: what names a file or a size is checked before it is used.

Each case changes a copy of one finished run, and types a command. The copy lies beside a folder that must keep its bytes.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import google_crc32c
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest
from typer.testing import CliRunner

from simexm.api import Simulation
from simexm.cli import app
from simexm.result.result import Result
from simexm.store.files import checksum
from tests import rounds_build
from tests.build import confocal, spec
from tests.run.conftest import fingerprint

Forge = Callable[[Path], None]

pytestmark = pytest.mark.filterwarnings("ignore::simexm.errors.SimexmWarning")

SPEC = spec(optics=confocal(numerical_aperture=1.0, axial_range_um=0.6)) | {
    "source": {"kind": "phantom", "shape": [16, 48, 48], "voxel_size_nm": [40, 32, 32]},
    "execution": {"min_blocks": 4, "device": "cpu"},
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """A finished run, made in threads."""
    folder = tmp_path_factory.mktemp("whole")
    return Simulation.from_mapping(SPEC).run(folder / "out.zarr", quiet=True)


@pytest.fixture
def copy(whole: Result, tmp_path: Path) -> Iterator[Path]:
    """A folder with a copy of it and its spec, and one with what no command may change."""
    for each in (whole.path, whole.place.run):
        shutil.copytree(each, tmp_path / each.name)
    (tmp_path / "spec.json").write_text(json.dumps(SPEC))
    outside = tmp_path / "outside"
    (outside / "c").mkdir(parents=True)
    for name in ("zarr.json", "note", "cells.parquet", "c/0"):
        (outside / name).write_text("precious")
    before = fingerprint(outside)
    yield tmp_path
    assert fingerprint(outside) == before


def typed(folder: Path, *words: str) -> tuple[int, str]:
    """Exit code, and all that was printed."""
    words = tuple(word.replace("OUT", str(folder / "out.zarr")).replace("DIR", str(folder)) for word in words)
    done = CliRunner().invoke(app, [*words])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    assert "fault of simexm" not in done.output
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", done.output), "a control character reached the terminal"
    return done.exit_code, done.output


def refused(folder: Path, *words: str) -> str:
    """What a command says that refuses, in one line, and touches nothing."""
    before = fingerprint(folder)
    code, told = typed(folder, *words)
    assert code == 2, told
    assert len([line for line in told.splitlines() if line.startswith("error: ")]) == 1
    assert fingerprint(folder) == before
    return told


def edit(path: Path, change: Callable[[Any], None]) -> None:
    """Change a JSON file."""
    told = json.loads(path.read_text())
    change(told)
    path.write_text(json.dumps(told))


def put(path: str, *keys: Any) -> Forge:
    """Put the last of `keys` where the others lead, in a JSON file."""

    def forge(folder: Path) -> None:
        def change(told: Any) -> None:
            for key in keys[:-2]:
                told = told[key]
            told[keys[-2]] = keys[-1]

        edit(folder / path, change)

    return forge


def manifest(*keys: Any) -> Forge:
    """The same in files.json, whose own checksum is made right."""

    def forge(folder: Path) -> None:
        path = folder / "out.run/files.json"
        put("out.run/files.json", *keys)(folder)
        told = json.loads(path.read_text())
        del told["checksum"]
        text = json.dumps(told, sort_keys=True, separators=(",", ":"))
        path.write_text(json.dumps({**told, "checksum": checksum(text.encode())}))

    return forge


def few(cases: dict[str, Any], *quick: str) -> list[Any]:
    """All cases as parameters, of which those that are not named are slow tests."""
    return [
        pytest.param(case, id=name, marks=() if name in quick else (pytest.mark.slow,)) for name, case in cases.items()
    ]


def text(path: str, content: str | bytes) -> Forge:
    """Replace a file."""

    def forge(folder: Path) -> None:
        (folder / path).write_bytes(content if isinstance(content, bytes) else content.encode())

    return forge


MARK = ("out.zarr/zarr.json", "attributes", "simexm")
CHANNEL = ("out.zarr/zarr.json", "attributes", "ome", "omero", "channels", 0)
SCALE = (
    "out.zarr/zarr.json",
    "attributes",
    "ome",
    "multiscales",
    0,
    "datasets",
    0,
    "coordinateTransformations",
    0,
    "scale",
)

ROOT: dict[str, Forge] = {
    "a channel that leads out": put(*CHANNEL, "label", "../escaped"),
    "a channel with an escape sequence": put(*CHANNEL, "label", "a\x1b]0;pwned\x07"),
    "a channel of markup": put(*CHANNEL, "label", "[/red]"),
    "a channel that is a number": put(*CHANNEL, "label", 7),
    "a colour that is a program": put(*CHANNEL, "color", '000"); discard(); //'),
    "a window that is no number": put(*CHANNEL, "window", "start", float("nan")),
    "an output that leads out": put(*MARK, "outputs", ["../outside"]),
    "an output twice": put(*MARK, "outputs", ["labels/cells", "labels/cells"]),
    "a round that leads out": put(*MARK, "frames", [".."]),
    "dyes less than none": put(*MARK, "dyes", {"membrane": -1}),
    "a hash that is none": put(*MARK, "hash", ["x"]),
    "a factor beyond numbers": put(*MARK, "expansion_factor", 1e999),
    "a pixel without a size": put(*SCALE, [1.0, 0.0, 0.04, 0.04]),
    "a scale of two axes": put(*SCALE, [1.0, 0.1]),
    "no level": put("out.zarr/zarr.json", "attributes", "ome", "multiscales", 0, "datasets", []),
    "deep nesting": text("out.zarr/zarr.json", '{"attributes": {"simexm": ' + "[" * 100_000 + "]" * 100_000 + "}}"),
    "a key twice": text("out.zarr/zarr.json", '{"attributes": {"simexm": {"hash": "0"}, "simexm": {}}}'),
    "no object": text("out.zarr/zarr.json", "[1, 2]"),
    "no text": text("out.zarr/zarr.json", b"\xff\xfe{}"),
}  # fmt: skip


@pytest.mark.parametrize("forge", few(ROOT, "an output that leads out", "a channel with an escape sequence"))
def test_a_forged_root_is_used_by_no_command(copy: Path, forge: Forge) -> None:
    forge(copy)
    refused(copy, "info", "OUT")
    refused(copy, "run", "DIR/spec.json", "--output", "OUT", "--overwrite")


def test_no_command_uses_a_forged_root(copy: Path) -> None:
    ROOT["a channel that leads out"](copy)
    for words in (
        ("info", "OUT", "--json"), ("export", "OUT", "-o", "DIR/files", "--format", "tiff"),
        ("report", "OUT", "--output", "DIR/page.html"), ("decode", "OUT", "--output", "DIR/x.zarr"), ("show", "OUT"), ("view", "OUT", "--no-browser"),
        ("run", "DIR/spec.json", "--output", "OUT"),
    ):  # fmt: skip
        refused(copy, *words)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["an output that leads out", "deep nesting", "a channel that leads out"])
def test_a_forged_root_is_damage_that_can_be_repaired(copy: Path, whole: Result, name: str) -> None:
    ROOT[name](copy)
    code, told = typed(copy, "verify", "OUT")
    assert (code, f"{copy}/out.zarr/zarr.json" in told) == (1, True)
    assert typed(copy, "verify", "OUT", "--repair", "-q")[0] == 0
    assert fingerprint(copy / "out.zarr") == fingerprint(whole.path)


PLAN = "out.run/plan.json"
PLANS: dict[str, Forge] = {
    "an output that leads out": put(PLAN, "outputs", 1, "path", "../outside"),
    "an output of no kind": put(PLAN, "outputs", 1, "path", {"a": 1}),
    "a million million blocks": put(PLAN, "image", "levels", 0, [10**12, 10**12, 10**12]),
    "another number of blocks": put(PLAN, "blocks", "count", 10**15),
    "fewer than no blocks": put(PLAN, "blocks", "count", -4),
    "shards without a size": put(PLAN, "image", "shards", 0, [0, 64, 64]),
    "a crop outside": put(PLAN, "source", "crop_stop", [99, 99, 99]),
    "deep nesting": text(PLAN, '{"a":' * 100_000 + "1" + "}" * 100_000),
    "no object": text(PLAN, "7"),
    "a key twice": text(PLAN, '{"hash": "00", "hash": "01"}'),
    "a number of 5,000 digits": text(PLAN, '{"hash": ' + "9" * 5000 + "}"),
}


@pytest.mark.parametrize("forge", few(PLANS, "an output that leads out"))
def test_a_forged_plan_is_damage_and_not_followed(copy: Path, whole: Result, forge: Forge) -> None:
    forge(copy)
    refused(copy, "status", "OUT")
    code, told = typed(copy, "verify", "OUT")
    assert (code, f"{copy}/{PLAN}" in told) == (1, True)
    assert typed(copy, "verify", "OUT", "--repair", "-q")[0] == 0
    assert fingerprint(copy / "out.zarr") == fingerprint(whole.path)


def test_where_all_that_tells_of_the_result_is_forged_nothing_is_touched(copy: Path) -> None:
    put(*MARK, "outputs", ["../outside"])(copy)
    put(PLAN, "outputs", 1, "path", "../outside")(copy)
    manifest("zarr", "../outside/zarr.json", [5, "crc32c:00000000"])(copy)
    for words in (("verify", "OUT"), ("verify", "OUT", "--repair")):
        assert "nothing is touched" in refused(copy, *words)


KEYS = ["../outside/zarr.json", "/etc/passwd", "0/../../outside/note", "", "a\x1b[2J", "~/x"]


@pytest.mark.parametrize("key", few({ascii(k): k for k in KEYS}, ascii(KEYS[0])))
def test_a_list_of_files_that_leads_out_is_refused(copy: Path, key: str) -> None:
    manifest("zarr", key, [5, "crc32c:00000000"])(copy)
    for words in (("verify", "OUT"), ("verify", "OUT", "--repair")):
        assert "files.json is wrong at zarr" in refused(copy, *words)


MANIFESTS: dict[str, Forge] = {
    "a digit": put("out.run/files.json", "zarr", "0/zarr.json", 0, 9),
    "a name": put("out.run/files.json", "zarr", "../outside/zarr.json", [5, "crc32c:00000000"]),
    "its checksum": put("out.run/files.json", "checksum", "crc32c:00000000"),
    "deep nesting": text("out.run/files.json", "[" * 100_000),
    "no object": text("out.run/files.json", "null"),
}


@pytest.mark.parametrize("forge", few(MANIFESTS, "a digit"))
def test_damage_to_the_list_of_files_is_told_as_such(copy: Path, whole: Result, forge: Forge) -> None:
    forge(copy)
    code, told = typed(copy, "verify", "OUT")
    assert code == 1
    assert [s for s in told.splitlines() if s.startswith("damaged")] == [
        s for s in told.splitlines() if s.startswith(f"damaged: {copy}/out.run/files.json ")
    ]
    assert typed(copy, "verify", "OUT", "--repair", "-q")[0] == 0
    assert fingerprint(copy / "out.zarr") == fingerprint(whole.path)
    assert typed(copy, "verify", "OUT")[0] == 0


@pytest.mark.slow
def test_metadata_that_nobody_vouches_for_are_made_again(copy: Path, whole: Result) -> None:
    """The list of files is damaged, and what it would have named, too."""
    MANIFESTS["a digit"](copy)
    put("out.zarr/0/zarr.json", "attributes", {"forged": True})(copy)
    assert typed(copy, "verify", "OUT", "--repair", "-q")[0] == 0
    assert fingerprint(copy / "out.zarr") == fingerprint(whole.path)


@pytest.mark.slow
def test_what_was_damaged_while_a_run_stood_still_is_not_taken_for_sound(copy: Path, whole: Result) -> None:
    put(*MARK, "status", "incomplete")(copy)
    put(PLAN, "memory_per_worker_bytes", 1)(copy)
    put("out.zarr/0/zarr.json", "attributes", {"forged": True})(copy)
    assert typed(copy, "run", "DIR/spec.json", "--output", "OUT", "--quiet")[0] == 0
    assert fingerprint(copy / "out.zarr") == fingerprint(whole.path)
    assert (copy / PLAN).read_bytes() == (whole.place.run / "plan.json").read_bytes()


# ---------------------------------------------------------------- links


LINKS = ["out.run/tables", "out.run/scratch", "out.run/lock", "out.run/log.txt", "out.run/jobs", "out.run", "out.zarr/0/c",
         "out.zarr/0/c/0/0/0/0", "out.zarr/labels", "out.run/journal"]  # fmt: skip


@pytest.mark.parametrize("name", few({n: n for n in LINKS}, "out.run/tables", "out.run/lock"))
def test_links_out_of_a_result_are_not_followed(copy: Path, name: str) -> None:
    link = copy / name
    old = copy / "old"
    os.utime(copy / "outside/note", (1, 1))  # as old as a lock whose holder is dead
    if link.exists():
        link.rename(old)
    link.symlink_to(copy / "outside" / ("note" if name.endswith(("lock", "txt", "/0/0/0")) else ""))
    put(*MARK, "status", "incomplete")(copy)
    for words in (
        ("verify", "OUT", "--repair"), ("run", "DIR/spec.json", "--output", "OUT", "--overwrite"),
        ("run", "DIR/spec.json", "--output", "OUT"),
    ):  # fmt: skip
        code, told = typed(copy, *words)
        assert code == 2, told
        assert f"{link} is a symbolic link" in told
    if name != "out.run":
        code, told = typed(copy, "verify", "OUT")
        assert (code, f"damaged: {link} is a symbolic link" in told) == (1, True)


def test_an_export_stays_in_its_folder(copy: Path) -> None:
    (copy / "files").mkdir()
    (copy / "files/labels").symlink_to(copy / "outside")
    assert "lies outside of" in refused(
        copy, "export", "OUT", "-o", "DIR/files2/../files", "--format", "tiff", "--labels", "merged"
    )


def test_label_names_lead_to_no_other_file(copy: Path) -> None:
    put("out.zarr/labels/zarr.json", "attributes", "ome", "labels", ["cells", "../../escaped"])(copy)
    told = refused(copy, "export", "OUT", "-o", "DIR/files", "--format", "tiff", "--labels", "merged")
    assert "labels/zarr.json is wrong at ome.labels.1" in told
    refused(copy, "info", "OUT")


# ---------------------------------------------------------------- arrays and tables


@pytest.mark.parametrize(
    "change",
    few(
        {
            "too long": {"shape": [1, 10**15, 9, 9]},
            "negative": {"shape": [1, -3, 9, 9]},
            "of two axes": {"shape": [9, 9]},
            "other channels": {"shape": [5, 6, 30, 30]},
            "of no codecs": {"codecs": "x"},
        },
        "too long",
    ),
)
def test_absurd_arrays_are_refused(copy: Path, change: dict[str, Any]) -> None:
    edit(copy / "out.zarr/0/zarr.json", lambda told: told.update(change))
    for words in (
        ("info", "OUT"),
        ("export", "OUT", "-o", "DIR/files", "--format", "tiff"),
        ("report", "OUT", "--output", "DIR/p.html"),
    ):
        refused(copy, *words)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["photons_$\\frac$", "dyes_\x1b[2J", "photons_<b>"])
def test_columns_of_tables_are_names(copy: Path, name: str) -> None:
    path = copy / "out.run/tables/cells.parquet"
    pq.write_table(pq.read_table(path).append_column(name, pa.array([1.0] * pq.read_table(path).num_rows)), path)
    assert "cells.parquet has a column" in refused(copy, "report", "OUT", "--output", "DIR/page.html")
    path.write_bytes(b"PAR1 none")
    assert "cells.parquet cannot be read" in refused(copy, "report", "OUT", "--output", "DIR/page.html")


# ---------------------------------------------------------------- journals


def sealed(entry: dict[str, Any]) -> bytes:
    """A line of a journal with a right checksum, whatever it says."""
    body = json.dumps({k: v for k, v in entry.items() if k != "crc32c"}).encode()[:-1]
    return body + b',"crc32c":"%08x"}\n' % google_crc32c.value(body)


def segments(folder: Path, level: str = "") -> list[Path]:
    return sorted((folder / "out.run/journal" / level).glob("*.jsonl"))


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for path in segments(folder) for line in path.read_bytes().splitlines()]


def test_one_flipped_bit_of_a_journal_makes_its_block_again(copy: Path, whole: Result) -> None:
    """As when a run stood still after its last block: the sums that the result tells come from the journal."""
    path = segments(copy)[0]
    good = path.read_bytes()
    place = good.index(b'"dyes_membrane":') + len(b'"dyes_membrane":')
    path.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
    code, told = typed(copy, "verify", "OUT")
    flipped = json.loads(good.splitlines()[0])["block"]
    assert code == 1
    assert f"damaged: {path} holds 1 lines that are torn or have another checksum" in told
    assert f"damaged: block {flipped}: {copy}/out.run/journal holds no record of it" in told
    shutil.copytree(copy / "out.run", copy / "again.run")
    shutil.copytree(copy / "out.zarr", copy / "again.zarr")
    assert typed(copy, "verify", "OUT", "--repair", "-q")[0] == 0
    put("again.zarr/zarr.json", "attributes", "simexm", "status", "incomplete")(copy)
    assert typed(copy, "run", "DIR/spec.json", "--output", "DIR/again.zarr", "--quiet")[0] == 0
    for name in ("out", "again"):
        assert fingerprint(copy / f"{name}.zarr") == fingerprint(whole.path)
        assert "1 lines of" in (copy / f"{name}.run/log.txt").read_text()
        assert typed(copy, "verify", f"DIR/{name}.zarr")[0] == 0


@pytest.mark.slow
def test_a_flipped_bit_of_a_levels_journal_is_mended(copy: Path, whole: Result) -> None:
    path = next((copy / "out.run/journal/levels").rglob("*.jsonl"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    assert f"damaged: {path} holds" in typed(copy, "verify", "OUT")[1]
    assert typed(copy, "verify", "OUT", "--repair", "-q")[0] == 0
    assert typed(copy, "verify", "OUT")[0] == 0
    assert fingerprint(copy / "out.zarr") == fingerprint(whole.path)


RECORDS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a block beyond all": lambda e: e.update(block=10**15),
    "a block before all": lambda e: e.update(block=-1),
    "a block that is no number": lambda e: e.update(block="0"),
    "a time that is none": lambda e: e.update(time=float("nan")),
    "a result that is none": lambda e: e.update(result=[]),
    "another group": lambda e: e["result"].update(stored={"../outside": [[1, "crc32c:00000000"]]}),
    "too few shards": lambda e: e["result"]["stored"].update({"": []}),
    "a table that leads out": lambda e: e["result"].update(tables={"../../outside": [1, "crc32c:00000000"]}),
    "fewer than no dyes": lambda e: e["result"]["sums"]["cells"].update(dyes_membrane=-5),
    "a bin beyond all": lambda e: e["result"]["images"][0].update(histogram=[[10**9, 1]]),
    "another number of channels": lambda e: e["result"].update(images=[]),
    "no rows": lambda e: e["result"].pop("rows"),
}


@pytest.mark.parametrize("change", few(RECORDS, "a block beyond all"))
def test_a_line_that_no_run_wrote_is_a_block_to_be_made_again(
    copy: Path, whole: Result, change: Callable[..., Any]
) -> None:
    told = lines(copy)
    change(told[1])
    for path in segments(copy)[1:]:
        path.unlink()
    segments(copy)[0].write_bytes(b"".join(map(sealed, told)))
    assert typed(copy, "status", "OUT")[0] == 0
    assert typed(copy, "report", "OUT", "--output", "DIR/page.html")[0] == 0
    assert typed(copy, "verify", "OUT")[0] == 1
    put(*MARK, "status", "incomplete")(copy)
    assert typed(copy, "run", "DIR/spec.json", "--output", "OUT", "--quiet")[0] == 0
    assert fingerprint(copy / "out.zarr") == fingerprint(whole.path)
    assert typed(copy, "verify", "OUT")[0] == 0


# ---------------------------------------------------------------- barcodes


@pytest.fixture(scope="module")
def rounds(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """A finished run of several rounds."""
    source = {"kind": "phantom", "shape": (24, 60, 60)}
    folder = tmp_path_factory.mktemp("rounds")
    return rounds_build.simulation(source, ()).run(folder / "out.zarr", quiet=True)


@pytest.mark.slow
def test_forged_barcodes_are_not_decoded(rounds: Result, tmp_path: Path) -> None:
    for each in (rounds.path, rounds.place.run):
        shutil.copytree(each, tmp_path / each.name)
    assert typed(tmp_path, "decode", "OUT", "--output", "DIR/good.zarr", "-q")[0] == 0
    tables = tmp_path / "out.run/tables"
    good = pq.read_table(tables / "barcodes.parquet")
    for barcode in ("../../x", "\x1b[2J", "", None, "=cmd()"):
        column = pa.array([barcode] * good.num_rows, pa.string())
        pq.write_table(good.set_column(1, "barcode", column), tables / "barcodes.parquet")
        assert "barcodes.parquet holds text that is no barcode" in refused(
            tmp_path, "decode", "OUT", "--output", "DIR/x.zarr"
        )
    pq.write_table(good.drop_columns(["barcode"]), tables / "barcodes.parquet")
    assert "has no column barcode" in refused(tmp_path, "decode", "OUT", "--output", "DIR/x.zarr")
    pq.write_table(good, tables / "barcodes.parquet")
    part = next((tables / "amplicons").iterdir())
    rows = part.read_bytes()
    pq.write_table(pq.read_table(part).drop_columns(["z_nm"]), part)
    code, told = typed(tmp_path, "decode", "OUT", "--output", "DIR/x.zarr", "-q")
    assert (code, "has no column z_nm" in told) == (1, True)
    shutil.rmtree(tmp_path / "x.zarr")
    shutil.rmtree(tmp_path / "x.run")
    part.write_bytes(rows)
    put("out.zarr/round_02/zarr.json", "attributes", "ome", "omero", "channels", 0, "label", "../x")(tmp_path)
    for words in (
        ("decode", "OUT", "--output", "DIR/y.zarr"),
        ("export", "OUT", "-o", "DIR/files", "--format", "tiff", "--round", "2"),
    ):
        refused(tmp_path, *words)
