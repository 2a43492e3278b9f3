"""The OpenAI-compatible server in front of a cascade. It knows the wire; the cascade knows none of it."""
