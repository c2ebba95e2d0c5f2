"""The commands of `relay` that talk to a running relay, one module each; `relay.cli` gathers them."""
