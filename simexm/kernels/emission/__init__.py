"""From cells to emitters: where dyes sit, and how much light they give."""
