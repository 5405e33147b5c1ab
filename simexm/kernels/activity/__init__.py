"""Activity of cells over time: spikes, calcium, fluorescence."""
