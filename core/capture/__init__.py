"""What a pass over a text says of a model: statistics folded as they come; nothing else is kept."""
