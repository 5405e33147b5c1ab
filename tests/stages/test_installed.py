"""Stages of other packages: the page's example as it stands, and what goes wrong with packages that are wrong."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import numpy as np
import pytest
import yaml
from numpy.typing import NDArray

from simexm.api import Simulation
from simexm.errors import OutputError, SpecError
from simexm.result.result import Result
from simexm.run.in_memory import simulate
from simexm.run.verify import Verification
from simexm.stages import Camera, installed
from tests import build
from tests.markdown import block, blocks, make_shell, put_command, type_in

PAGE = "docs/stage.md"
SPEC = block(PAGE, "shift_nm: {").text


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the page's files in which its commands have been typed; the package is installed below it."""
    place = tmp_path_factory.mktemp("stage")
    for word, name in (
        ("class ", "chromatic_shift.py"),
        ("[project]", "pyproject.toml"),
        ("shift_nm: {", "shifted.yaml"),
    ):
        (place / name).write_text(block(PAGE, word).text)
    make_shell(place)
    put_command(place, "simexm", f'PYTHONPATH="{place}/site:$PYTHONPATH" exec "{sys.executable}" -m simexm.cli "$@"')
    quiet = f'--no-deps --no-build-isolation --no-index --quiet --disable-pip-version-check --target "{place}/site"'
    put_command(place, "pip", f'exec "{sys.executable}" -m pip "$@" {quiet}')
    for line in block(PAGE, "pip install").text.splitlines():
        type_in(line, place)
    return place


OWN = """
from typing import ClassVar, Literal
import numpy as np
from pydantic import Field
from simexm.stages.contract import EXPECTED, Stage

class Own(Stage):
    stage: Literal["own"] = "own"
    strength: float = Field(default=0.5, gt=0)
    reads: ClassVar = (EXPECTED,)
    writes: ClassVar = (EXPECTED,)

    def run(self, state):
        state.write(EXPECTED, state.read(EXPECTED) * np.float32(self.strength))
"""


def spec(**own: Any) -> dict[str, Any]:
    data = build.spec()
    data["stages"].insert(4, {"stage": "own", **own})
    return data


def arrays(result: Result) -> NDArray[np.float32]:
    return np.asarray(result.array(0, "expected")[:])


def test_page_has_its_blocks() -> None:
    assert [each.kind for each in blocks(PAGE)] == ["python", "toml", "yaml", "bash"]
    assert len(block(PAGE, "class ").text.splitlines()) <= 40


@pytest.mark.slow
def test_the_example_does_what_it_says(folder: Path) -> None:
    """One pixel and one plane further on; no more than float32 apart from the run without the stage, whatever the tile."""
    plain = yaml.safe_load(SPEC)
    plain["stages"] = [stage for stage in plain["stages"] if stage["stage"] != "chromatic_shift"]
    Simulation.from_mapping(plain).run(folder / "plain.zarr", quiet=True)
    type_in("simexm run shifted.yaml --output tiles.zarr --tile 5 30 20 --quiet", folder)
    before, after, tiles = (arrays(Result.open(folder / f"{name}.zarr")) for name in ("plain", "shifted", "tiles"))
    top = before.max(axis=(1, 2, 3))
    np.testing.assert_array_equal(after[0], before[0])
    assert np.abs(after[1] - before[1]).max() > 0.2 * top[1]
    assert np.abs(after[1, 1:, :, 1:] - before[1, :-1, :, :-1]).max() < 2e-6 * top[1]
    assert np.abs(after - tiles).max() < 2e-6 * top.max()
    assert not np.array_equal(after, tiles), "the tiles differ, so that this is a test"


@pytest.mark.slow
def test_the_result_knows_the_package(folder: Path) -> None:
    """Its version and a checksum of its file decide the hash, and are told."""
    kept = Result.open(folder / "shifted.zarr").provenance
    assert kept["versions"]["chromatic-shift"].startswith("1.0+")
    assert kept["spec"]["stages"][3] == {"stage": "chromatic_shift", "shift_nm": {"ATTO647N": [500, 0, 162.5]}}
    assert "all as they were written" in type_in("simexm verify shifted.zarr --repair", folder)


@pytest.mark.slow
def test_a_stage_that_is_not_installed_is_told(folder: Path) -> None:
    with pytest.raises(
        SpecError, match=r"stages\[3\]: 'chromatic_shift' is unknown; .* install the package that brings it"
    ):
        Simulation.load(folder / "shifted.yaml")
    with pytest.raises((OutputError, SpecError), match="chromatic_shift"):
        Simulation.from_mapping(Result.open(folder / "shifted.zarr").provenance["spec"])


def test_spec_schema_and_copies_hold_an_installed_stage(site: Callable[..., None]) -> None:
    site("ownstage", OWN)
    made = Simulation.from_mapping(spec(strength=0.25))
    assert made.to_mapping()["stages"][4] == {"stage": "own", "strength": 0.25}
    again = made.replace(seed=7)
    assert again.stages[4] == made.stages[4]
    assert Simulation(source=made.source, stages=made.stages).stages == made.stages
    schema = Simulation.model_json_schema()
    jsonschema.validate(spec(strength=0.25), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(spec(strength=-1), schema)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert installed.versions(made.stages).keys() == {"ownstage"}
    assert installed.versions(made.stages)["ownstage"].startswith("2.5+")


def test_an_edited_stage_is_another_hash(site: Callable[..., None], tmp_path: Path) -> None:
    site("ownstage", OWN)
    stages = Simulation.from_mapping(spec()).stages
    before = installed.versions(stages)
    (tmp_path / "ownstage.py").write_text(OWN + "\n# another\n")
    assert installed.versions(stages) != before


@pytest.mark.parametrize(
    ("own", "told"),
    [
        ({"strenght": 1}, "stages[4]: there is no key 'strenght'; did you mean 'strength'?"),
        ({"strength": 0}, "stages[4].strength: Input should be greater than 0 (got 0)"),
    ],
)
def test_mistakes_in_its_keys_are_told_as_in_any_stage(
    own: dict[str, Any], told: str, site: Callable[..., None]
) -> None:
    site("ownstage", OWN)
    with pytest.raises(SpecError) as error:
        Simulation.from_mapping(spec(**own))
    assert told in str(error.value)


@pytest.mark.parametrize(
    ("text", "value", "told"),
    [
        ("import nothing_of_that_name", "Own", "package wrongstage (wrongstage:Own) cannot be loaded: ModuleNotFoundError"),
        ("1 / 0", "Own", "cannot be loaded: ZeroDivisionError: division by zero; update that package"),
        (OWN, "Other", "cannot be loaded: AttributeError"),
        ("Own = int", "Own", "is no subclass of simexm.stages.contract.Stage"),
        (OWN.replace('"own"', '"owl"'), "Own", 'goes by another name; give it the field `stage: Literal["own"] = "own"`'),
    ],
)  # fmt: skip
def test_a_wrong_package_is_named(text: str, value: str, told: str, site: Callable[..., None]) -> None:
    site("wrongstage", text, value)
    with pytest.raises(SpecError) as error:
        Simulation.from_mapping(spec())
    assert "stages[4]" in str(error.value)
    assert told in str(error.value)
    Simulation.from_mapping(build.spec())  # others need not care
    assert "oneOf" in str(Simulation.model_json_schema())


def test_two_packages_with_one_name(site: Callable[..., None]) -> None:
    site("ownstage", OWN)
    site("another", OWN)
    with pytest.raises(SpecError, match="both bring a stage 'own'; uninstall one of them"):
        Simulation.from_mapping(spec())


def test_nothing_is_loaded_that_no_spec_names_and_nothing_replaced(site: Callable[..., None]) -> None:
    """The module of a stage runs when a spec names the stage, not before; a built-in one is what it was."""
    site("ownstage", OWN)
    site("thief", OWN.replace('"own"', '"camera"').replace("class Own", "raise SystemExit\nclass Own"), stage="camera")
    plain = Simulation.from_mapping(build.spec())
    assert type(plain.stages[4]) is Camera
    assert installed.versions(plain.stages) == {}
    assert not {"ownstage", "thief"} & sys.modules.keys()
    Simulation.from_mapping(spec())
    assert "ownstage" in sys.modules
    assert "thief" not in sys.modules
    data = build.spec()
    data["stages"][4]["stage"] = "ownstage:Own"  # a path to code is no name
    with pytest.raises(SpecError, match="'ownstage:Own' is unknown"):
        Simulation.from_mapping(data)


# ---------------------------------------------------------------- frames and products of stages from outside

OVER_TIME = """
from typing import ClassVar, Literal
import numpy as np
from simexm.geometry.grid import NmBox, exact3
from simexm.stages.contract import EXPANDED, LABELS, EmitterStream, Stage
from simexm.stages.frames import FrameAxis
from simexm.stages.products import Product, labels

class Drift(Stage):
    stage: Literal["sway"] = "sway"
    step_nm: float = 162.5
    reads: ClassVar = (EXPANDED,)
    writes: ClassVar = (EXPANDED,)

    @property
    def frame_axes(self):
        return (FrameAxis("time", (0.0, 10.0, 20.0), "second"),)

    @property
    def varies(self):
        return frozenset({"time"})

    def needs(self, wanted, context):
        return {"expanded": wanted.grown(exact3((0, 0, 2 * self.step_nm)))}

    def run(self, state):
        before = state.read(EXPANDED)
        shift = (state.frame.time - 1) * self.step_nm

        def chunks(dye):
            for chunk in before.chunks(dye):
                chunk.emitters.x[...] += shift
                yield chunk

        state.write(EXPANDED, EmitterStream(before.dyes, before.reach_nm, chunks, frozenset(before.dyes.values())))

class Census(Stage):
    stage: Literal["census"] = "census"
    reads: ClassVar = (LABELS,)
    writes: ClassVar = ()

    @property
    def varies(self):
        return frozenset({"time"})

    def products(self, context):
        table = Product("census", "table", columns={"voxels": "int64", "halves": "int64"}, key="remainder", merge="sum")
        return table, labels("hours", "uint8")

    def rows(self, product, state):
        ids, voxels = state.cell_ids, state.tally.voxels.at(state.cell_ids)
        return {"remainder": ids % 3, "voxels": voxels * (ids != 0), "halves": 2 * voxels * (ids != 0)}

    def run(self, state):
        state.scratch["time"] = state.frame.time

    def store(self, product, state, out):
        out[...] = state.scratch["time"]
"""


def over_time(**root: Any) -> dict[str, Any]:
    data = build.spec(source={"kind": "phantom", "shape": [24, 40, 48], "voxel_size_nm": [40, 32, 32]}, **root)
    data["stages"].insert(3, {"stage": "sway"})
    data["stages"].insert(6, {"stage": "census"})
    return data


@pytest.fixture
def drifting(site: Callable[..., None], tmp_path: Path) -> Result:
    """A run in threads of both stages, in several blocks and tiles."""
    site("overtime", OVER_TIME, "Drift", "sway")
    (tmp_path / "overtime-2.5.dist-info" / "entry_points.txt").write_text(
        "[simexm.stages]\nsway = overtime:Drift\ncensus = overtime:Census\n"
    )
    build.forget_packages()
    simulation = Simulation.from_mapping(over_time(keep=["expected", "labelled"])).with_tile((3, 16, 16))
    return simulation.run(tmp_path / "t.zarr", quiet=True)


@pytest.mark.filterwarnings("ignore::simexm.errors.SimexmWarning")
def test_a_stage_adds_an_axis_of_time_and_a_table(drifting: Result) -> None:
    """Time leads the arrays, what reads the varying dyes varies, and the rest is made once; sums are those of the cells."""
    result = drifting
    assert [(a.name, a.coordinates, a.unit) for a in result.acquisition.axes] == [("time", (0, 10, 20), "second")]
    light = np.asarray(result.series(0, "expected"))
    assert light.shape == (3, *result.array().shape)
    assert (result.series().shards or ())[:1] == result.series().chunks[:1] == (1,)
    top = light.max()
    for t in (1, 2):
        assert np.abs(light[t, ..., 2:] - light[t - 1, ..., 1:-1]).max() < 2e-6 * top
        assert np.abs(light[t, ..., 2:] - light[t - 1, ..., 2:]).max() > 0.1 * top
        np.testing.assert_array_equal(result.array(0, "expected", time=t + 1)[...], light[t])
        np.testing.assert_array_equal(result.at(time=t + 1).array(1)[...], result.series(1)[t])
    counts = np.asarray(result.series())
    assert (counts[1, ..., 2:] != counts[0, ..., 1:-1]).mean() > 0.5, "noise is drawn for each frame"
    assert result.series(0, "labelled").ndim == result.series(0, "labels/cells").ndim + 1 == 4
    np.testing.assert_array_equal(np.asarray(result.series(0, "labels/hours")).max(axis=(1, 2, 3)), [1, 2, 3])
    cells, census = result.cells().to_pydict(), result.table("census").to_pydict()
    ids, voxels = np.array(cells["id"]), np.array(cells["voxels"])
    wanted = [voxels[ids % 3 == remainder].sum() for remainder in range(3)]
    assert census == {"remainder": [0, 1, 2], "voxels": wanted, "halves": [2 * n for n in wanted]}
    image = result.attributes["ome"]["multiscales"][0]
    assert image["axes"][0] == {"name": "t", "type": "time", "unit": "second"}
    assert [t[t["type"]][0] for t in image["datasets"][1]["coordinateTransformations"]] == [10.0, 0.0]
    assert result.series().metadata.to_dict()["dimension_names"] == ("t", "c", "z", "y", "x")
    assert (result.place.run / "preview.png").is_file()
    verified = Verification(result.place)
    assert not list(verified)


@pytest.mark.filterwarnings("ignore::simexm.errors.SimexmWarning")
@pytest.mark.parametrize(("undeclared", "told"), [("reads", "'own' reads 'image'"), ("writes", "'own' writes 'image'")])
def test_a_stage_reads_and_writes_what_it_declares(undeclared: str, told: str, site: Callable[..., None]) -> None:
    call = {"reads": "state.read(IMAGE)", "writes": "state.write(IMAGE, 0)"}[undeclared]
    site(
        "ownstage",
        OWN.replace("import EXPECTED,", "import EXPECTED, IMAGE,").replace(
            "state.write(EXPECTED", f"{call}; state.write(EXPECTED"
        ),
    )
    with pytest.raises(TypeError, match=f"{told} without declaring it.*add it to `{undeclared}` of Own"):
        simulate(np.ones((8, 12, 12), np.uint64), Simulation.from_mapping(spec()), voxel_size_nm=build.VOXEL_NM)
