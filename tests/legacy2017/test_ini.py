"""The 2017 configuration files: they are read as written, and all their problems are reported together."""

from __future__ import annotations

import contextlib
import os
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simexm.errors import SimexmWarning, SpecError
from simexm.legacy2017.config import Config, Labeling, Layer, Section
from simexm.legacy2017.ini import from_text, read
from simexm.names import printable
from simexm.spectra.fluorophores import load_builtin
from tests.legacy2017.configs import BRAINBOW, CONFOCAL, CTC, SPLITTED, SYNAPSE, edited


def refused(text: str) -> str:
    """Message of a wrong file."""
    with pytest.raises(SpecError) as error:
        from_text(text, "my.ini")
    return str(error.value)


# -------------------------------------------------------------------- files as they were written


def test_a_file_is_read_key_by_key() -> None:
    config = from_text(SYNAPSE, "my.ini")
    truth, optics = config.groundtruth, config.optics
    assert (truth.image_path, truth.format, truth.gt_cells) == ("data/pinky/cells.tif", "image sequence", "merged")
    assert (truth.offset, truth.bounds, truth.voxel_dim) == ((300, 200, 100), (48, 96, 90), (40, 32, 32))
    assert truth.isotropic is True
    assert {name: region.region_path for name, region in truth.regions.items()} == {"synapse": "data/synapse"}
    assert config.labeling.global_density == 0.8
    assert [layer.region for layer in config.labeling.layers.values()] == ["membrane", "synapse"]
    assert config.labeling.layers["layer2"].model_dump() == {
        "fluorophore": "ATTO647N", "region": "synapse", "labeling_density": 0.3, "protein_density": 3e-5,
        "protein_noise": 0.5, "antibody_amp": 10.0, "single_neuron": False,
    }  # fmt: skip
    assert config.expansion.factor == 4.0
    assert optics.model_dump(exclude={"channels"}) == {
        "type": "confocal", "refractory_index": 1.33, "numerical_aperture": 1.15, "focal_plane_depth": 500,
        "objective_back_aperture": 1.0, "objective_factor": 40.0, "exposure_time": 0.1, "objective_efficiency": 0.8,
        "detector_efficiency": 0.6, "pixel_size": 6500, "pinhole_radius": 50.0, "baseline_noise": 0,
    }  # fmt: skip
    assert optics.channels["channel_2"].model_dump() == {
        "laser_wavelength": 640, "laser_power": 60.0, "laser_percentage": 0.5, "laser_filter": (655, 720),
    }  # fmt: skip
    assert config.output.folder == Path("results/membrane")
    assert (config.output.sim_channels, config.output.gt_cells, config.output.gt_region) == (
        "merged",
        "merged",
        "cytosol",
    )


def test_defaults_and_other_cases() -> None:
    config = from_text(SPLITTED, "my.ini")
    assert config.labeling.global_density == 1.0
    assert config.labeling.layers == {"layer1": Layer(region="membrane")}
    assert Layer(region="membrane").model_dump() == {
        "fluorophore": "ATTO425", "region": "membrane", "labeling_density": 0.5, "protein_density": 0.2,
        "protein_noise": 0.0, "antibody_amp": 5.0, "single_neuron": False,
    }  # fmt: skip
    assert (config.groundtruth.gt_cells, config.groundtruth.regions) == ("splitted", {})
    assert (config.optics.type, config.output.format, config.output.gt_cells) == (
        "two photon", "image sequence", "splitted",
    )  # fmt: skip


@pytest.mark.parametrize("text", ["True", "true", "YES", "on", "1", "False", "no", "Off", "0"])
def test_booleans_as_configobj_reads_them(text: str) -> None:
    config = from_text(edited(CONFOCAL, ("isotropic = True", f"isotropic = {text}")), "my.ini")
    assert config.groundtruth.isotropic is (text.lower() in ("true", "yes", "on", "1"))


def test_layers_and_channels_may_have_any_name() -> None:
    names = ["layers", "copy", "model_dump", "3 rd", "1", "expansion", "Über"]
    for name in names:
        config = from_text(
            edited(CONFOCAL, ("[[layer1]]", f"[[{name}]]"), ("[[[channel_1]]]", f"[[[{name}]]]")), "my.ini"
        )
        assert list(config.labeling.layers) == list(config.optics.channels) == [name]


def test_values_put_in_from_other_keys() -> None:
    """ConfigObj's %(key)s."""
    config = from_text(edited(CONFOCAL, ('path = "results"', "path = /data/%(name)s")), "my.ini")
    assert config.output.path == "/data/membrane"
    assert "[output]: path: missing option" in refused(edited(CONFOCAL, ('"results"', "%(home)s")))


# -------------------------------------------------------------------- whatever is valid is read as it was written

POSITIVE = st.floats(1e-6, 1e6, allow_nan=False)
SHARE = st.floats(0, 1)
TRIPLE = st.tuples(*[st.integers(1, 10**6)] * 3)
PLAIN = st.text(
    st.characters(codec="utf-8", exclude_categories=("C", "Z"), exclude_characters="\"'%[]#=,\\"), min_size=1
)
PATH = st.lists(PLAIN, min_size=1, max_size=3).map("/".join)
TOGETHER = st.sampled_from(["merged", "splitted"])


FOLDER = PLAIN.filter(lambda name: name not in (".", "..") and "/" not in name and printable(name) == name)


@st.composite
def configs(draw: st.DrawFn) -> Config:
    """Any configuration, valid."""
    names = st.lists(PLAIN, min_size=1, max_size=3, unique=True)
    regions = [r for r in draw(names) if r not in ("membrane", "cytosol")]
    region = st.sampled_from(["membrane", "cytosol", *regions])
    layer = st.fixed_dictionaries({
        "fluorophore": st.sampled_from(sorted(load_builtin())), "region": region, "labeling_density": SHARE,
        "protein_density": SHARE, "protein_noise": SHARE, "antibody_amp": st.floats(1, 1e6), "single_neuron": st.booleans(),
    })  # fmt: skip
    channel = st.fixed_dictionaries({
        "laser_wavelength": st.integers(200, 1000), "laser_power": st.floats(1, 1e6), "laser_percentage": SHARE,
        "laser_filter": st.tuples(st.integers(0, 700), st.integers(701, 5000)),
    })  # fmt: skip
    layers = {name: draw(layer) for name in draw(names) if name != "global_density"} or {"a": draw(layer)}
    return Config.model_validate({
        "groundtruth": {
            "image_path": draw(PATH), "offset": draw(TRIPLE), "bounds": draw(TRIPLE), "voxel_dim": draw(TRIPLE),
            "format": draw(st.sampled_from(["tiff", "image sequence"])), "gt_cells": draw(TOGETHER), "isotropic": draw(st.booleans()),
            "regions": {name: {"region_path": draw(PATH)} for name in regions},
        },
        "labeling": {"global_density": draw(SHARE), **layers},
        "expansion": {"factor": draw(st.floats(1, 100))},
        "optics": {
            "type": draw(st.sampled_from(["confocal", "widefield", "two photon"])),
            "numerical_aperture": draw(st.floats(0.01, 1)), "refractory_index": draw(st.floats(1.01, 2)),
            "focal_plane_depth": draw(st.integers(1, 10**6)), "objective_back_aperture": draw(POSITIVE),
            "objective_factor": draw(POSITIVE), "exposure_time": draw(POSITIVE), "objective_efficiency": draw(SHARE),
            "detector_efficiency": draw(SHARE), "pixel_size": draw(st.integers(1, 10**6)), "pinhole_radius": draw(POSITIVE),
            "baseline_noise": draw(st.integers(0, 10**6)), "channels": {name: draw(channel) for name in draw(names)},
        },
        "output": {
            "name": draw(FOLDER), "path": draw(PATH), "format": draw(st.sampled_from(["tiff", "gif", "image sequence"])),
            "sim_channels": draw(TOGETHER), "gt_cells": draw(TOGETHER), "gt_region": draw(region),
        },
    })  # fmt: skip


def written(section: Section | dict[str, Section], depth: int = 1) -> str:
    """A configuration in the file's syntax."""
    values: dict[str, Any] = dict(section)
    if isinstance(section, Labeling):
        values |= section.layers
    lines, below = [], []
    for key, value in values.items():
        if isinstance(value, Section | dict):
            below.append("[" * depth + f'"{key}"' + "]" * depth + "\n" + written(value, depth + 1))
        elif isinstance(value, tuple):
            lines.append(f"{key} = {', '.join(map(str, value))}")
        else:
            lines.append(f'{key} = "{value}"')
    return "\n".join([*lines, *below]) + "\n"


@given(configs())
@settings(max_examples=60, deadline=None)
def test_what_is_written_is_read(config: Config) -> None:
    assert from_text(written(config), "my.ini") == config


# -------------------------------------------------------------------- what is wrong is reported


def key_lines() -> list[tuple[str, str, str]]:
    """(heading of the section, line, key) of each key in a file that gives all of them."""
    found, path = [], list[str]()
    for line in SYNAPSE.splitlines():
        header = re.match(r"\s*(\[+)", line)
        if header:
            path = [*path[: len(header[1]) - 1], line.strip()]
        elif "=" in line:
            found.append((" ".join(path), line, line.split("=")[0].strip()))
    return found


@pytest.mark.parametrize(("heading", "line", "key"), key_lines())
def test_a_missing_or_misspelt_key_is_named_with_its_section(heading: str, line: str, key: str) -> None:
    section_start = SYNAPSE.index(heading.split()[-1] + "\n")
    before, after = SYNAPSE[:section_start], SYNAPSE[section_start:]
    removed = before + after.replace(line + "\n", "", 1)
    has_default = key in Layer.model_fields or key == "global_density"
    if key == "region":
        assert f"{heading}: region = full (the default) does not exist" in refused(removed)
    elif not has_default:
        assert f"{heading}: the key {key!r} is missing; it should be " in refused(removed)
    else:
        from_text(removed, "my.ini")
    misspelt = before + after.replace(line, line.replace(key, key[:-1] + "xx"), 1)
    message = refused(misspelt)
    assert f"my.ini: {heading}: there is no key {key[:-1] + 'xx'!r}; did you mean {key!r}?" in message, message
    nonsense = before + after.replace(line, line.split("=")[0] + "= ?, !", 1)
    message = refused(nonsense)
    assert f"{heading}: {key} = ?, ! should be " in message, message


BAD = [
    # a part of the good file, what stands there instead, what is said
    ("offset = 300, 200, 100", "offset = 300, 200", "[groundtruth]: offset = 300, 200 should be 3 whole numbers z, x, y of at least 0"),
    ("offset = 300, 200, 100", "offset = -1, 2, 3", "[groundtruth]: offset = -1, 2, 3 should be"),
    ("bounds = 48, 96, 90", "bounds = 0, 96, 90", "[groundtruth]: bounds = 0, 96, 90 should be 3 whole numbers z, x, y of at least 1"),
    ("bounds = 48, 96, 90", 'bounds = "48, 96, 90"', '[groundtruth]: bounds = "48, 96, 90" should be 3 whole numbers'),
    ("voxel_dim = 40, 32, 32", "voxel_dim = 40, 32.5, 32", "[groundtruth]: voxel_dim = 40, 32.5, 32 should be 3 whole numbers z, x, y of at least 1, in nm"),
    ("format = 'tiff'", "format = 'png'", "[groundtruth]: format = png should be tiff or image sequence"),
    ("gt_cells = 'merged'", "gt_cells = both", "[groundtruth]: gt_cells = both should be merged or splitted"),
    ("isotropic = True", "isotropic = maybe", "[groundtruth]: isotropic = maybe should be True or False"),
    ('image_path = "data/pinky/cells.tif"', "image_path = a, b.tif", "image_path = a, b.tif should be a text; a comma makes a list, so put quotes"),
    ('image_path = "data/pinky/cells.tif"', 'image_path = ""', '[groundtruth]: image_path = "" should be a text'),
    ("\t#No additional regions", "\t\t[[[membrane]]]\n\t\tregion_path = x", "[groundtruth] [[regions]] [[[membrane]]]: membrane is computed from the ids"),
    ("\t[[regions]]", "\tregions = x", "[groundtruth]: regions is a key here, and should be the section [groundtruth] [[regions]]"),
    ("\t#No additional regions", "region_path = x", "[groundtruth] [[regions]]: there is no key 'region_path'; it belongs into [groundtruth] [[regions]] [[[NAME]]]"),
    ("global_density = 1.0", "global_density = 1.1", "[labeling]: global_density = 1.1 should be a number from 0 to 1"),
    ("'ATTO488'", "'ATTO 488'", "[labeling] [[layer1]]: fluorophore = ATTO 488 is no dye; did you mean ATTO488?"),
    ("region = 'membrane'", "region = 'synapse'", "[labeling] [[layer1]]: region = synapse does not exist; the regions are membrane, cytosol"),
    ("region = 'membrane'", "region = full", "[labeling] [[layer1]]: region = full does not exist; the regions are membrane, cytosol"),
    ("labeling_density = 0.5", "labeling_density = 50%", "[labeling] [[layer1]]: labeling_density = 50% should be a number from 0 to 1"),
    ("protein_density = 1e-4", "protein_density = nan", "[labeling] [[layer1]]: protein_density = nan should be a number from 0 to 1"),
    ("protein_noise = 0.0", "protein_noise = -0.1", "[labeling] [[layer1]]: protein_noise = -0.1 should be a number from 0 to 1"),
    ("antibody_amp = 1.0", "antibody_amp = 0.9", "[labeling] [[layer1]]: antibody_amp = 0.9 should be a number of at least 1"),
    ("factor = 4.0", "factor = 0.5", "[expansion]: factor = 0.5 should be a number of at least 1"),
    ("type = 'confocal'", "type = 'light sheet'", "[optics]: type = light sheet should be confocal, widefield or two photon"),
    ("numerical_aperture = 1.15", "numerical_aperture = 1.4", "[optics]: numerical_aperture = 1.4 should be below refractory_index = 1.33"),
    ("focal_plane_depth = 500", "focal_plane_depth = 500.5", "[optics]: focal_plane_depth = 500.5 should be a whole number of at least 1, in nm"),
    ("exposure_time = 0.1", "exposure_time = 0", "[optics]: exposure_time = 0 should be a number above 0, in s"),
    ("baseline_noise = 0", "baseline_noise = -1", "[optics]: baseline_noise = -1 should be a whole number of at least 0"),
    ("baseline_noise = 0", "[[baseline_noise]]\nx = 1", "[optics] [[baseline_noise]]: should be a key of [optics], not a section: baseline_noise = a whole number"),
    ("laser_wavelength = 488", "laser_wavelength = 1001", "[optics] [[channels]] [[[channel_1]]]: laser_wavelength = 1001 should be a whole number from 200 to 1000, in nm"),
    ("laser_power = 50.0", "laser_power = 0.9", "[optics] [[channels]] [[[channel_1]]]: laser_power = 0.9 should be a number of at least 1, in W"),
    ("laser_filter = 500, 550", "laser_filter = 550, 500", "[optics] [[channels]] [[[channel_1]]]: laser_filter = 550, 500 should be two wavelengths in nm, the lower one first"),
    ('format =  "tiff"', "format = jpeg", "[output]: format = jpeg should be tiff, gif or image sequence"),
    ('gt_region = "cytosol"', "gt_region = cytosl", "[output]: gt_region = cytosl does not exist; did you mean cytosol?"),
    # keys and sections elsewhere
    ('name = "membrane"', "", "[output]: the key 'name' is missing; it should be a text"),
    ("factor = 4.0", "factor = 4.0\npixel_size = 6500", "[expansion]: there is no key 'pixel_size'; it belongs into [optics]"),
    ("[groundtruth]\n", "name = x\n[groundtruth]\n", "before the first section: there is no key 'name'; it belongs into [output]"),
    ("factor = 4.0", "factor = 4.0\nbleaching = 1", "[expansion]: there is no key 'bleaching'; the keys are factor"),
    ("[labeling]\n", "[labelling]\n", "there is no section [labelling]; did you mean [labeling]?"),
    ("[output]\n", "[Output]\n", "there is no section [Output]; did you mean [output]?"),
    ("[output]\n", "[plots]\nx = 1\n[output]\n", "there is no section [plots]; the sections are groundtruth, labeling, expansion, optics, output"),
    ("[[layer1]]", "[layer1]", "the section [layer1] is at the wrong place; it belongs at [labeling] [[layer1]]"),
    ("[expansion]", "[[expansion]]", "the section [[expansion]] in [labeling] is at the wrong place; it belongs at [expansion]"),
    ("\t\t[[[channel_1]]]", "\t[[channel_1]]", "the section [[channel_1]] in [optics] is at the wrong place; it belongs at [optics] [[channels]] [[[channel_1]]]"),
    ("\t[[channels]]\n\n\t\t[[[channel_1]]]", "[channels]\n[[channel_1]]", "the section [channels] is at the wrong place; it belongs at [optics] [[channels]]"),
    ("\t[[channels]]\n", "", "[[[channel_1]]] has too many brackets"),
    ("[expansion]\n\nfactor = 4.0\n", "", "the section [expansion] is missing; its keys are factor"),
    # what ConfigObj cannot read
    ("factor = 4.0", "factor 4.0", "in [expansion]: 'factor 4.0' is neither a section, [name], nor a key, name = value"),
    ("factor = 4.0", "factor = '4.0", "in [expansion]: the value in \"factor = '4.0\" cannot be read; check its quotes"),
    ("factor = 4.0", "factor = 4.0\nfactor = 5", "in [expansion]: the key 'factor' is given twice; keep one of them"),
    ("[[layer1]]", "[[layer1]", "in [labeling]: the brackets of [[layer1] do not match"),
    ("factor = 4.0", "factor = 4.0\n[expansion]\nfactor = 5", "in [expansion]: the section 'expansion' is given twice; keep one of them"),
    ('name = "membrane"', 'name = """membrane', "in [output]: the triple quotes of 'name' are not closed"),
    ("#Expansion parameters", "; Expansion parameters", "'; Expansion parameters' is neither a section, [name], nor a key, name = value; a comment begins with #"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "said"), BAD, ids=[new.strip()[:30] or old.strip()[:30] for old, new, _ in BAD])
def test_a_wrong_key_value_or_section_is_reported(old: str, new: str, said: str) -> None:
    message = refused(edited(CONFOCAL, (old, new)))
    assert said in message
    assert message.startswith("my.ini: ") or "triple quotes" in said, "one mistake, one problem"


def test_all_problems_of_a_file_are_reported_together() -> None:
    """Every mistake of the table that leaves the others' lines alone."""
    text, expected, taken = CONFOCAL, [], set[str]()
    for old, new, said in BAD[:35]:
        if old in text and old not in taken and "\n" not in new and "regions" not in old + new and "index" not in said:
            text = edited(text, (old, new))
            taken.add(old)
            expected.append(said)
    message = refused(text)
    assert [said for said in expected if said not in message] == []
    assert message.startswith(f"my.ini has {len(expected)} problems:\n  ")
    assert len(expected) > 20


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_a_mangled_file_is_read_or_refused_with_a_message(data: st.DataObject) -> None:
    """Lines taken out, doubled, moved, or with some characters changed."""
    lines = SYNAPSE.splitlines()
    for _ in range(data.draw(st.integers(1, 4))):
        at, to = (data.draw(st.integers(0, len(lines) - 1)) for _ in range(2))
        line = lines[at]
        cut = data.draw(st.integers(0, len(line)))
        odd = data.draw(st.text("[]'\"=,#%( a", max_size=3))
        kind = data.draw(st.sampled_from(["out", "double", "move", "change"]))
        if kind in ("out", "move"):
            del lines[at]
        if kind != "out":
            lines.insert(to, line[:cut] + odd + line[cut + 1 :] if kind == "change" else line)
    with contextlib.suppress(SpecError):
        from_text("\n".join(lines), "my.ini")


@pytest.mark.parametrize("section", ["[labeling]", "[optics]"])
def test_without_layers_or_channels_there_is_nothing_to_do(section: str) -> None:
    name, end = ("layer", "#Expansion") if section == "[labeling]" else ("channel", "[output]")
    start = CONFOCAL.index("\t[[layer1]]" if name == "layer" else "\t\t[[[channel_1]]]")
    message = refused(CONFOCAL[:start] + CONFOCAL[CONFOCAL.index(end) :])
    assert section in message
    assert "one" in message
    assert name in message


# -------------------------------------------------------------------- bytes


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings_and_line_ends_do_not_matter(tmp_path: Path, encoding: str, ends: str) -> None:
    text = edited(CTC, ('"ctc_seg_stack.tif"', '"Müller/Zellen 細胞.tif"'))
    path = tmp_path / "my.ini"
    path.write_bytes(text.replace("\n", ends).encode(encoding))
    config = read(path)
    assert config == from_text(text, "my.ini")
    assert config.groundtruth.image_path == "Müller/Zellen 細胞.tif"


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_windows_1252_is_read_with_a_warning(tmp_path: Path, ends: str) -> None:
    text = edited(CTC, ('"ctc_seg_stack.tif"', '"Müller/5 µm.tif"'))
    path = tmp_path / "my.ini"
    path.write_bytes(text.replace("\n", ends).encode("cp1252"))
    with pytest.warns(SimexmWarning) as told:
        config = read(path)
    assert config == from_text(text, "my.ini")
    assert len(told) == 1
    message = str(told[0].message)
    assert "Windows-1252: line 2 as" in message
    assert "Müller/5 µm.tif" in message
    assert "save the file as UTF-8" in message


@pytest.mark.parametrize(
    "data",
    [
        b"II*\0\x08\0\0\0",
        b"\x89PNG\r\n\x1a\n" + bytes(range(256)),
        CTC.encode("utf-16-le"),
        b"\xff\xfea",
        b"\x81\x8d\x90",
    ],
    ids=["tiff", "png", "utf-16 without mark", "half utf-16", "no encoding"],
)
def test_what_is_no_text_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "my.ini"
    path.write_bytes(data)
    with pytest.raises(SpecError, match=r"is not a text file, so it is no \.ini file"):
        read(path)


@pytest.mark.parametrize(
    "text", ["", "\n\n# nothing\n", "source: cortex.zarr\nstages:\n  - {stage: regions}\n", "a = 1\n"]
)
def test_other_texts_are_refused_in_one_line(text: str) -> None:
    message = refused(text)
    assert "my.ini is no .ini file of SimExm, which has the sections [groundtruth], [labeling]" in message
    assert "\n" not in message


def test_no_file_at_all(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="there is no configuration file"):
        read(tmp_path / "my.ini")
    with pytest.raises(SpecError, match="is a folder"):
        read(tmp_path)


def test_paths_of_windows(tmp_path: Path) -> None:
    text = edited(SYNAPSE, ("data/synapse ", "C:\\data\\synapse "), ('"data/pinky/cells.tif"', '"D:\\new\\cells"'))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        config = from_text(text, "my.ini")
    assert config.groundtruth.image_path == "D:\\new\\cells", "no escapes"
    if os.sep == "/":
        messages = [str(w.message) for w in told]
        assert len(messages) == 2
        assert "[groundtruth]: image_path = D:\\new\\cells holds backslashes" in messages[0]
        assert "[groundtruth] [[regions]] [[[synapse]]]: region_path = C:\\data\\synapse" in messages[1]
        assert "C:/data/synapse" in messages[1]


def test_the_brainbow_file_takes_its_layers_in_the_order_of_their_names() -> None:
    swapped = edited(BRAINBOW, ("[[layer1]]", "[[zlayer]]"))
    assert list(from_text(swapped, "my.ini").labeling.layers) == ["layer2", "zlayer"]
