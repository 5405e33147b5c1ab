"""Stages of other packages: the page's example as it stands, and what goes wrong with packages that are wrong."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import yaml
from numpy.typing import NDArray

from simexm.api import Simulation
from simexm.errors import OutputError, SpecError
from simexm.result.result import Result
from simexm.stages import Camera, installed
from tests import build
from tests.markdown import block, blocks, make_shell, put_command, type_in

PAGE = "pipelines/stage.md"
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
from pydantic import Field
from simexm.stages.contract import EXPECTED, Stage

class Own(Stage):
    stage: Literal["own"] = "own"
    strength: float = Field(default=0.5, gt=0)
    reads: ClassVar = (EXPECTED,)
    writes: ClassVar = (EXPECTED,)

    def run(self, work):
        work.values["expected"] *= self.strength
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


def test_the_result_knows_the_package(folder: Path) -> None:
    """Its version and a checksum of its file decide the hash, and are told."""
    kept = Result.open(folder / "shifted.zarr").provenance
    assert kept["versions"]["chromatic-shift"].startswith("1.0+")
    assert kept["spec"]["stages"][3] == {"stage": "chromatic_shift", "shift_nm": {"ATTO647N": [500, 0, 162.5]}}
    assert "all as they were written" in type_in("simexm verify shifted.zarr --repair", folder)


def test_a_stage_that_is_not_installed_is_told(folder: Path) -> None:
    with pytest.raises(
        SpecError, match=r"stages\[3\]: 'chromatic_shift' is none; .* install the package that brings it"
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
        ("1 / 0", "Own", "cannot be loaded: ZeroDivisionError: division by zero; mend or update that package"),
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
    with pytest.raises(SpecError, match="'ownstage:Own' is none"):
        Simulation.from_mapping(data)
