"""The ledger: durable rows for requests, for each call to Gemini before it is sent, and for its cost."""
