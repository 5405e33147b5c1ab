"""Labels in TIFF, OME-TIFF, ImageJ and LSM files."""
