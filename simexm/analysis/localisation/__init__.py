"""Localisation microscopy: from frames to tables of molecules, their pictures, and scores."""
