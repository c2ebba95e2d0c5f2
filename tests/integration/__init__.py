"""Tests of a relay and of stand-ins in one process, over real sockets."""
