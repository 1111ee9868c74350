"""A model from anywhere, with its texts: loaded, saved and read back."""
