"""Records read from run directories, for all tabs. Nothing here draws."""
