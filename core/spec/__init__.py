"""What a run is asked to do, checked when it is written down. No torch here."""
