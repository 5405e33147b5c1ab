"""From cells to emitters: positions of dyes, and photons per dye."""
