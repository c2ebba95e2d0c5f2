"""What the tests are made of: relays, stand-ins, clients, proxies, judges."""
