"""An HTTP proxy that makes every Dify app an OpenAI model."""
