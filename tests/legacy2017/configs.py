"""Configuration files as users of the 2017 program wrote them."""

from __future__ import annotations

CONFOCAL = """\
#Ground truth parameters
[groundtruth]

image_path = "data/pinky/cells.tif"
offset = 300, 200, 100
bounds = 48, 96, 90
format = 'tiff'
gt_cells = 'merged'
isotropic = True
voxel_dim = 40, 32, 32

	[[regions]]
	#No additional regions

#Labeling parameters
[labeling]

global_density = 1.0

	[[layer1]]
	fluorophore = 'ATTO488'
	region = 'membrane'
	labeling_density = 0.5
	protein_density = 1e-4
	protein_noise = 0.0
	antibody_amp = 1.0
	single_neuron = False

#Expansion parameters
[expansion]

factor = 4.0

#Optics parameters
[optics]

type = 'confocal'
numerical_aperture = 1.15
refractory_index = 1.33
focal_plane_depth = 500
objective_back_aperture = 1.0
exposure_time = 0.1
objective_efficiency = 0.8
detector_efficiency = 0.6
objective_factor = 40.0
pixel_size = 6500
pinhole_radius = 50.0
baseline_noise = 0

	[[channels]]

		[[[channel_1]]]
		laser_wavelength = 488
		laser_power = 50.0
		laser_percentage = 0.25
		laser_filter = 500, 550

[output]

name = "membrane"
path = "results"
format =  "tiff"
sim_channels = "splitted"
gt_cells = "merged"
gt_region = "cytosol"
"""

LAYER_2 = """
	[[layer2]]
	fluorophore = 'ATTO647N'
	region = 'membrane'
	labeling_density = 0.3
	protein_density = 3e-5
	protein_noise = 0.5
	antibody_amp = 10.0
	single_neuron = False

#Expansion parameters
"""
CHANNEL_2 = """
		[[[channel_2]]]
		laser_wavelength = 640
		laser_power = 60.0
		laser_percentage = 0.5
		laser_filter = 655, 720

[output]
"""


def edited(text: str, *edits: tuple[str, str]) -> str:
    """The text with each old part, which must be there, replaced by a new one."""
    for old, new in edits:
        assert old in text, old
        text = text.replace(old, new, 1)
    return text


BRAINBOW = edited(
    CONFOCAL,
    ("#Expansion parameters\n", LAYER_2.lstrip("\n")),
    ("[output]\n", CHANNEL_2.lstrip("\n")),
    ("global_density = 1.0", "global_density = 0.8"),
    ('sim_channels = "splitted"', 'sim_channels = "merged"'),
)

SYNAPSE = edited(
    BRAINBOW,
    ("\t#No additional regions", "\t\t[[[synapse]]]\n\t\tregion_path = data/synapse   # a folder of slices"),
    ("format = 'tiff'", "format = 'image sequence'"),
    ("\tfluorophore = 'ATTO647N'\n\tregion = 'membrane'", "\tfluorophore = 'ATTO647N'\n\tregion = 'synapse'"),
)

SPLITTED = edited(
    CONFOCAL,
    ("gt_cells = 'merged'", "gt_cells = 'splitted'"),
    ("\tfluorophore = 'ATTO488'\n", ""),
    ("\tlabeling_density = 0.5\n", ""),
    ("\tprotein_density = 1e-4\n", ""),
    ("\tprotein_noise = 0.0\n", ""),
    ("\tantibody_amp = 1.0\n", ""),
    ("\tsingle_neuron = False\n", ""),
    ("global_density = 1.0\n", ""),
    ("\t[[regions]]\n", ""),
    ("type = 'confocal'", "type = Two Photon"),
    ('gt_cells = "merged"', "gt_cells = SPLITTED"),
    ('format =  "tiff"', "format = Image Sequence"),
)
"""Defaults wherever there are any, and another case than the original's."""

CTC = """\
[groundtruth]
image_path = "ctc_seg_stack.tif"
offset = 0, 0, 0
bounds = 150, 773, 739
format = 'tiff'
gt_cells = 'merged'
isotropic = False
voxel_dim = 500, 125, 125
\t[[regions]]
[labeling]
global_density = 1.0
\t[[layer1]]
\tfluorophore = 'ATTO425'
\tregion = 'membrane'
\tlabeling_density = 1.0
\tprotein_density = 1e-4
\tprotein_noise = 0.3
\tantibody_amp = 10.0
\tsingle_neuron = False
[expansion]
factor = 4.0
[optics]
type = 'widefield'
numerical_aperture = 1.15
refractory_index = 1.33
focal_plane_depth = 2000
objective_back_aperture = 1.0
exposure_time = 0.1
objective_efficiency = 0.8
detector_efficiency = 0.6
objective_factor = 20.0
pixel_size = 6500
pinhole_radius = 50.0
baseline_noise = 3
\t[[channels]]
\t\t[[[channel_1]]]
\t\tlaser_wavelength = 425
\t\tlaser_power = 50.0
\t\tlaser_percentage = 0.25
\t\tlaser_filter = 440, 550
[output]
name = "ctc"
path = "output"
format =  "gif"
sim_channels = "splitted"
gt_cells = "merged"
gt_region = "cytosol"
"""
