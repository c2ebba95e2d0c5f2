"""What the relay says about itself over HTTP: status and metrics."""
