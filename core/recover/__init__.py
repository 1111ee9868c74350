"""LoRA post-training of a pruned model. Nothing is imported here: torch and peft load where they are used."""
