"""A run at work: every stage announces itself, calls one part of the engine and writes its artifact."""
