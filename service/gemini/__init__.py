"""The Gemini client: calls with retries, replies, the table of models, the prompt."""
