"""What a run will hold in memory, told before it is begun: from shapes, without weights and without torch."""
