"""The 2017 program SimExm: its configuration files, its model and its output files."""
