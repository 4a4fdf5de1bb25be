"""What inferences and training steps take on this device: measured so that a reviewer would believe it, and compared.

`run` measures `subject`s and gives a `document`; `compare` reads two of them; `history` decides what a birth carries.
"""
