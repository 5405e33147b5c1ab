"""Open what a run or an analysis wrote."""
