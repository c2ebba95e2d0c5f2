"""Provider plugins: how they are found, checked, bound, given what they need, and kept from harming the relay."""
