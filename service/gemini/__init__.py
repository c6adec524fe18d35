"""The client of Gemini: calls with retries, replies, the table of models, the prompt."""
