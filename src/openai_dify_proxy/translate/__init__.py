"""Pure mappings between Dify, Replicate and OpenAI."""
