"""elastix, run by an interpreter that has itk-elastix: PAIR.npz (fixed, moving on voxels of 1 um) to FOUND.npz.

It must not import simexm, which need not be installed there. Affine map, then B-splines of 16 voxels; CPU seconds of the process
on one thread.
"""

import sys
import time

import itk  # type: ignore[import-not-found]
import numpy as np


def main() -> None:
    source, target = sys.argv[1:]
    pair = np.load(source)
    images = [itk.image_from_array(np.ascontiguousarray(pair[name], np.float32)) for name in ("fixed", "moving")]
    begin = time.process_time()
    parameters = itk.ParameterObject.New()
    for kind, iterations in (("affine", "400"), ("bspline", "400")):
        chosen = parameters.GetDefaultParameterMap(kind, 3, 16.0)
        chosen["Metric"] = ["AdvancedNormalizedCorrelation"]
        chosen["Registration"] = ["MultiResolutionRegistration"]
        chosen["MaximumNumberOfIterations"] = [iterations]
        chosen["NumberOfSpatialSamples"] = ["4096"]
        chosen["RandomSeed"] = ["1"]
        parameters.AddParameterMap(chosen)
    method = itk.ElastixRegistrationMethod.New(*images)
    method.SetParameterObject(parameters)
    method.SetLogToConsole(False)
    method.SetNumberOfThreads(1)
    method.UpdateLargestPossibleRegion()
    field = itk.transformix_deformation_field(images[1], method.GetTransformParameterObject())
    seconds = time.process_time() - begin
    vectors = np.moveaxis(itk.array_from_image(field)[..., ::-1], -1, 0)
    np.savez(target, displacement=np.ascontiguousarray(vectors, np.float32), seconds=seconds)


if __name__ == "__main__":
    main()
