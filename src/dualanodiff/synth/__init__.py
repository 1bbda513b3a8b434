"""Procedural pictures of industrial parts with defects and their exact masks."""
