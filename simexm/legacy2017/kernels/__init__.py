"""Arrays in, arrays out: the arithmetic of the 2017 program."""
