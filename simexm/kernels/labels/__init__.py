"""Cell indices and the regions of cells."""
