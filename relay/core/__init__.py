"""What every part of the relay is made of: values, time, intervals, errors; no I/O but the making of HTTP sessions."""
