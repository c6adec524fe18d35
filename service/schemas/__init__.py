"""What comes in and goes out, whatever carries it: field rules and answer models, without aiohttp."""
