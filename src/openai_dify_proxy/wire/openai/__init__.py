"""The messages of the OpenAI API, one module per endpoint family."""
