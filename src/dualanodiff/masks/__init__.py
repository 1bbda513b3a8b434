"""Masks from part pictures: by key colour, U^2-Net, SAM or attention."""
