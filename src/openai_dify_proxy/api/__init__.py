"""The HTTP API: one module per endpoint family, and the modules that they share."""
