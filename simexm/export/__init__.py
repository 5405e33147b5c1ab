"""Results as TIFF, OME-TIFF, GIF and PNG, written plane by plane."""
