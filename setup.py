"""Adds what setup.cfg cannot say: the native write, built where there is a compiler, and left out elsewhere."""

from setuptools import Extension, setup

setup(ext_modules=[Extension("relay.streams._native_write", ["relay/streams/_native_write.c"], optional=True)])
