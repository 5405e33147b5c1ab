"""The 2017 program: its configuration files, its model and its output files."""
