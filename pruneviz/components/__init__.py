"""Interactive parts of the page: `gr.HTML` subclasses whose drawing happens in the browser (`assets/js/`)."""
