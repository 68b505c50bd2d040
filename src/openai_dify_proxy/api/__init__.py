"""HTTP in and out: one module per endpoint family, and what they share."""
