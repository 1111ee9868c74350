"""A run as a folder: what it is asked, where it stands, who works on it. No torch here."""
