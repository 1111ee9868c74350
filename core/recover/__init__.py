"""What repairs a cut: layers refitted without training, LoRA, and the one training loop. Imports nothing."""
