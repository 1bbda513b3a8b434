"""Comparisons in one resumable run: generators, bases, speeds."""
