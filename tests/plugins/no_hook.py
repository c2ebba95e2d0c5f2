"""Broken: has nothing that the host knows."""

ANSWER = 42
