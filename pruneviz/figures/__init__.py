"""One file per figure: records -> Info (numbers, tested) -> drawing."""
