"""A driver in a process of its own, to be killed or stopped: SPEC OUTPUT SCHEDULER OVERWRITE."""

from __future__ import annotations

import sys
from pathlib import Path

from simexm.api import Simulation
from simexm.errors import SimexmError


def main() -> None:
    spec, output, scheduler, overwrite = sys.argv[1:]
    simulation = Simulation.load(spec)
    try:
        if scheduler:
            import distributed

            with distributed.Client(scheduler, set_as_default=False) as client:  # type: ignore[no-untyped-call]
                simulation.run(Path(output), client=client, overwrite=overwrite == "True", quiet=True)
        else:
            simulation.run(Path(output), overwrite=overwrite == "True", quiet=True)
    except SimexmError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
