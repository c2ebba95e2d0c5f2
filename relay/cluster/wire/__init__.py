"""How relays write what they tell each other, and how it is checked on arrival; pure."""
