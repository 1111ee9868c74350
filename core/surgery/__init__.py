"""A plan applied to a model: reversibly as masks, or for good, with a check that both do the same."""
