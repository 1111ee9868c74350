"""How good and how fast a model is: perplexity, text, efficiency, sensitivity, benchmarks."""
