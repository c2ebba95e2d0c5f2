"""Several relays as one: who opens which streams at providers, and what they tell each other; imported only if set."""
