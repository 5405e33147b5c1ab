"""What programs for calcium imaging found in a movie, and the truth of a simulated one."""
