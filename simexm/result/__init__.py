"""Open what a run or an analysis wrote: images, labels, tables, its plan."""
