"""Defects without learning: what others cut, pasted, drew and jittered, in the same folders as ours."""
