"""Client keys: callers, their allowed models, and their limits."""
