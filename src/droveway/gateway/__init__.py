"""The HTTP server: one OpenAI-compatible door in front of every vendor."""
