"""Everything that speaks with Gemini: the client, the reply, the models, the prompt."""
