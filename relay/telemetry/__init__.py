"""What the relay tells about itself while it runs: log lines, counters, how late the event loop is."""
