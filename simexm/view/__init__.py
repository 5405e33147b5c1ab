"""Pictures, reports, notebooks, and the viewer in the browser."""
