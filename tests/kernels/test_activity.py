"""Activity: rates, correlation and kinetics are those asked for, and draws do not depend on how time and cells are cut."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from simexm.kernels.activity import traces
from simexm.kernels.activity.indicator import Hill, fit
from simexm.random import derive_key
from simexm.stages.sample.activity import Activity, Gate
from simexm.stages.sample.indicators import INDICATORS, Indicator

KEY = derive_key(7, "test")


def states(cells: int) -> traces.States:
    return traces.States(np.ones(cells, np.uint8), np.zeros(cells), np.zeros(cells))


def draw(cells: int, frames: int, mean: float = 0.1, **law: Any) -> NDArray[np.float64]:
    """Spikes of cells of equal rate."""
    ids = np.arange(1, cells + 1, dtype=np.uint64)
    usual = Activity(dye="ATTO488", gate=None).law(0.05)._replace(**law)
    found = traces.run(ids, 0, frames, np.full(cells, mean), np.zeros(cells, np.int64), usual, KEY, states(cells))
    return np.asarray(found["spikes"], np.float64)


@pytest.mark.parametrize("name", INDICATORS)
def test_one_spike_gives_the_published_figures(name: str) -> None:
    """Of a spike that is played in frames of half a millisecond: largest dF/F, rise, and half decay within 3 %."""
    indicator = Indicator(preset=name)
    law = Activity(dye="ATTO488", indicator=indicator, gate=None).law(0.0005)
    given = np.zeros((1, 6000), np.int64)
    given[0, 0] = 1
    one = np.array([3], np.uint64)
    found = traces.run(one, 0, 6000, np.zeros(1), np.zeros(1, np.int64), law, KEY, states(1), given)
    dff = found["brightness"][0].astype(np.float64)
    rest = indicator.curve.brightness(indicator.rest_nM)
    dff = dff / rest - 1
    top = int(dff.argmax())
    half_up, half_down = int(np.argmax(dff > dff[top] / 2)), top + int(np.argmax(dff[top:] < dff[top] / 2))
    assert dff[top] == pytest.approx(indicator.spike_dff, rel=0.03)
    assert (half_up if indicator.half_rise else top) * 0.5 == pytest.approx(indicator.rise_ms, rel=0.03, abs=1)
    assert (half_down - top) * 0.5 == pytest.approx(indicator.half_decay_ms, rel=0.03)
    assert INDICATORS[name].source


def test_bright_cells_saturate() -> None:
    """However many the spikes, the brightness ends at that of the saturated indicator."""
    law = Activity(dye="ATTO488", indicator=Indicator(preset="GCaMP6s"), gate=None).law(0.05)
    given = np.full((1, 200), 50, np.int64)
    one = np.array([3], np.uint64)
    found = traces.run(one, 0, 200, np.zeros(1), np.zeros(1, np.int64), law, KEY, states(1), given)["brightness"]
    assert (np.diff(found[0, :20]) > 0).all()
    assert 0.99 < found.max() < 1.0


def test_spikes_are_poisson_and_of_the_mean() -> None:
    spikes = draw(100, 2000)
    n = spikes.size
    assert spikes.mean() == pytest.approx(0.1, abs=5 * (0.1 / n) ** 0.5)
    assert spikes.var() / spikes.mean() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("shared", [0.2, 0.6])
def test_shared_input_gives_the_correlation_asked_for(shared: float) -> None:
    """Of cells of equal rate; another group has none with them."""
    r = np.asarray(np.corrcoef(draw(30, 40_000, shared=shared)))
    assert r[np.triu_indices(30, 1)].mean() == pytest.approx(shared, abs=0.03)
    ids, law = np.arange(2, dtype=np.uint64), Activity(dye="ATTO488", gate=None).law(0.05)._replace(shared=shared)
    other = traces.run(ids, 0, 4000, np.full(2, 0.1), np.arange(2), law, KEY, states(2))["spikes"]
    assert abs(np.asarray(np.corrcoef(other))[0, 1]) < 0.06


def test_bursts_keep_the_rate_and_raise_the_variance() -> None:
    spikes = draw(100, 2000, burst_share=0.5, burst_spikes=5)
    # events of mean m with 1 or 5 spikes: the mean is m 3, the variance m (1 + 25) / 2
    assert spikes.mean() == pytest.approx(0.1, rel=0.04)
    assert spikes.var() / spikes.mean() == pytest.approx(13 / 3, rel=0.06)


def test_gate_stays_as_long_as_asked() -> None:
    """Without spikes while quiet, the active share and the mean active time are the gate's."""
    law = Activity(dye="ATTO488", gate=Gate(active_s=1, quiet_s=3, quiet_rate=0)).law(0.05)
    ids = np.arange(1, 101, dtype=np.uint64)
    found = traces.run(ids, 0, 4000, np.full(100, 40.0), np.zeros(100, np.int64), law, KEY, states(100))
    on = found["spikes"] > 0
    assert on.mean() == pytest.approx(0.25, abs=0.02)
    begins = (on[:, 1:] & ~on[:, :-1]).sum()
    assert on.sum() / begins == pytest.approx(1 / law.closes, rel=0.05)


def test_time_and_cells_are_cut_anywhere() -> None:
    """A frame's bytes are those of the whole movie, whatever was computed together."""
    law = Activity(dye="ATTO488", correlation=0.3, burst_share=0.2).law(0.05)
    ids = np.array([5, 2**40 + 1, 9, 77], np.uint64)
    mean, groups = np.array([0.1, 0.4, 0.02, 0.3]), np.array([0, 1, 0, 1])
    whole = traces.run(ids, 0, 500, mean, groups, law, KEY, states(4))
    some = np.array([1, 3])
    kept = states(2)
    parts = [
        traces.run(ids[some], first, n, mean[some], groups[some], law, KEY, kept)
        for first, n in ((0, 1), (1, 202), (203, 297))
    ]
    for name, values in whole.items():
        np.testing.assert_array_equal(np.concatenate([p[name] for p in parts], axis=1), values[some])


def test_rates_and_expression_are_lognormal_of_the_mean() -> None:
    stage = Activity(dye="ATTO488", rate_hz=1, rate_sigma=0.8, gate=None, cell_fraction=0.5)
    ids = np.arange(1, 20_001, dtype=np.uint64)
    rates, uM = stage.rates_hz(ids, 3), stage.concentrations_uM(ids, 3)
    assert rates.mean() == pytest.approx(1, rel=0.03)
    assert np.log(rates).std() == pytest.approx(0.8, rel=0.02)
    assert (uM > 0).mean() == pytest.approx(0.5, abs=0.02)
    assert uM[uM > 0].std() / uM[uM > 0].mean() == pytest.approx(0.3, rel=0.05)


def test_what_no_indicator_or_neuron_does_is_refused() -> None:
    with pytest.raises(ValueError, match="above the"):
        fit(Hill(300, 2, 5), 50, 10.0, 0.05, 0.2, half_rise=False)
    with pytest.raises(ValueError, match="no response rises"):
        fit(Hill(300, 2, 50), 50, 0.2, 1.0, 0.01, half_rise=False)
    with pytest.raises(ValueError, match="presets are GCaMP6f"):
        Indicator(preset="GCaMP7")
    with pytest.raises(ValueError, match="more than the 500 Hz"):
        Activity(dye="ATTO488", rate_hz=400, gate=Gate(active_s=1, quiet_s=9, quiet_rate=0))
    with pytest.raises(ValueError, match="half_decay_ms"):
        Indicator(half_decay_ms=-1)
