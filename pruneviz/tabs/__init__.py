"""One file per tab: records in, components out."""
