"""OpenAI's messages, one module per endpoint family."""
