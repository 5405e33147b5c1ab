"""CPU and GPU behind one interface."""
