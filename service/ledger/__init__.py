"""The ledger: a durable row for every request, every call to Gemini and what it cost, before and after it is made."""
