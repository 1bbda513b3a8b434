"""Defects on real good parts: where, how big and how strong is asked for, and every other pixel stays the part's own."""
