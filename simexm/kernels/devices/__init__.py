"""CPU and GPU with one interface."""
