"""Workers that die, raise, or fill their memory, at every point of a block: the rest goes on, and the bytes are the same."""

from __future__ import annotations

from pathlib import Path

import distributed
import pytest

from simexm.errors import RunError
from simexm.result.result import Result
from tests.faults.faults import Fault, Faults, all_bytes, recorded, simulation

BLOCK = 9
BLOCKS = range(16)
POINTS = {
    "after the write, before the journal's line": Fault("kill", "after block", block=BLOCK),
}
MORE_POINTS = {
    "between shards": Fault("kill", "after publish", match=r"/0/c/", block=BLOCK),
}
RARE_POINTS = {
    "before the write": Fault("kill", "before publish", block=BLOCK),
    "between levels": Fault("kill", "before publish", match=r"/0/c/", block=BLOCK),
    "between shards and tables": Fault("kill", "before publish", match=r"\.parquet$", block=BLOCK),
}


@pytest.mark.parametrize(
    "fault",
    [
        *(pytest.param(fault, id=name) for name, fault in POINTS.items()),
        *(pytest.param(fault, id=name, marks=pytest.mark.slow) for name, fault in MORE_POINTS.items()),
        *(pytest.param(fault, id=name, marks=pytest.mark.release) for name, fault in RARE_POINTS.items()),
    ],
)
def test_worker_killed(
    reference: Result, client: distributed.Client, faults: Faults, tmp_path: Path, fault: Fault
) -> None:
    faults.set(fault)
    result = simulation().run(tmp_path / "small.zarr", client=client, quiet=True)
    (dead,) = faults.fired
    assert all_bytes(result) == all_bytes(reference)
    assert not (result.place.run / "scratch").exists()
    begun = faults.begun()
    assert set(begun) == set(BLOCKS)
    assert begun[BLOCK] == 2
    # again were done, once, only blocks that the dead worker did and had not yet handed over
    assert {b: n for b, n in begun.items() if n > 1}.keys() <= faults.begun(dead).keys()
    assert max(begun.values()) == 2


def test_block_that_raises_once(reference: Result, client: distributed.Client, faults: Faults, tmp_path: Path) -> None:
    faults.set(Fault("raise", "before block", block=BLOCK))
    result = simulation().run(tmp_path / "small.zarr", client=client, quiet=True)
    assert all_bytes(result) == all_bytes(reference)
    assert faults.begun() == {b: 2 if b == BLOCK else 1 for b in BLOCKS}


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        pytest.param(
            Fault("raise", "before block", block=BLOCK, times=99), "ValueError: this block is bad", id="raises"
        ),
        pytest.param(
            Fault("memory", "before block", block=BLOCK, times=99),
            "out of memory",
            id="fills the memory",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_block_that_never_succeeds(
    reference: Result, client: distributed.Client, faults: Faults, tmp_path: Path, fault: Fault, told: str
) -> None:
    """It is set aside, all others are finished, and the same command does that one alone when the cause is mended."""
    output = tmp_path / "small.zarr"
    faults.set(fault)
    with pytest.raises(RunError, match=rf"1 of 16 blocks failed.*{told}.*same command again"):
        simulation().run(output, client=client, quiet=True)
    assert not Result.open(output).complete
    assert recorded(output).keys() == set(BLOCKS) - {BLOCK}
    begun = faults.begun()
    assert begun[BLOCK] <= 4  # among others, and then three times alone
    dead = {b for process in faults.fired for b in faults.begun(process)}
    assert all(n == 1 or b in dead for b, n in begun.items())
    faults.set(None)
    result = simulation().run(output, client=client, quiet=True)
    assert all_bytes(result) == all_bytes(reference)
    assert {b: n - begun[b] for b, n in faults.begun().items() if n > begun[b]} == {BLOCK: 1}
    assert not (result.place.run / "failed.jsonl").exists()
