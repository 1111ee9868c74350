"""How good and how fast a model is. Nothing is imported here."""
