"""Jobs over stored volumes and tables, with tables and scores as what they find."""
