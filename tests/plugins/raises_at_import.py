"""Broken: fails before it is a module."""

raise RuntimeError("the stars are not right")
