"""OpenAI requests as turns, and turn events as OpenAI answers and streams."""
