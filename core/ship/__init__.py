"""A pruned model where others run it: what each format can hold, said beforehand, and its files written."""
