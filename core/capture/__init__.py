"""What a pass over a text says of a model: statistics folded as they come, nothing kept that is not asked."""
