"""The dashboard. Never imports torch or transformers: models live in workers and in the engine."""
