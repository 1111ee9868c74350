"""Interactive parts of the page: functions that make `gr.HTML` elements, drawn by `assets/js/`."""
