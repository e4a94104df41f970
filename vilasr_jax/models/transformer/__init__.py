"""The decoder, and parts of vision towers, that model families have in common."""
