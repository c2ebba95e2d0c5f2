"""Twelve Data: forex by polling within a plan's credits, or live from ticks."""

from providers.twelve_data.provider import TwelveDataProvider

__all__ = ["TwelveDataProvider"]
