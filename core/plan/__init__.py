"""What goes: scores and a target become the units that are removed, and what that saves. No torch here."""
