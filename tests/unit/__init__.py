"""Tests without sockets, processes or files of others: what is pure, and what takes its surroundings as arguments."""
