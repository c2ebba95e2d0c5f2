"""Keeps the streams of a provider fed, whatever its feeds do."""
