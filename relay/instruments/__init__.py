"""Which provider serves which symbol, by the lists that providers give."""
