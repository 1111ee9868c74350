"""How much each group gives: measured at several widths, spread by a knapsack, improved round by round."""
