"""What a person sets going: launching runs, asking models, trying masks. Nothing here draws."""
