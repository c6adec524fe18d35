"""A local emulator of Gemini, run as a process: its REST protocol, its faults, and drawn pictures."""
