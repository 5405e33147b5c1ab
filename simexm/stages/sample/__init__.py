"""The sample: regions of cells, labels, barcodes."""
