"""A process that holds models, for answers and what-if masks."""
