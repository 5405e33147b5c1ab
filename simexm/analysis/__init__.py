"""Jobs over stored volumes and tables that compute tables and scores."""
