"""Tests with processes and browsers: the command, signals, floods, soaks."""
