"""What the markets of Binance have in common; `providers.binance` and `providers.binance_usdm` say what differs.

What the venue documents of spot is named by its page in https://github.com/binance/binance-spot-api-docs, as of
2026-07-21.
"""
