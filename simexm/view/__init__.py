"""Pictures, reports, the viewer, and what notebooks show."""
