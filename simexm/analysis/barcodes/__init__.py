"""Read the barcodes of cells back from images."""
