"""The pruning engine. Nothing is imported here, so specs, events and plans can be read without torch."""
