"""NutePrune: learned masks under a sparsity target, taught by numerous teachers. Nothing is imported here."""
