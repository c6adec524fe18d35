"""A local stand-in for Gemini: its wire protocol, its faults and the pictures it draws, as a process of its own."""
