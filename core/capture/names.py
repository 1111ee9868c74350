"""The names of what a pass can say of gradients and of heads, as criteria ask for it."""

#: Of the gradient of one backward, by name, in the order of `kernels.products`.
PER_BACKWARD = ("gradient_sum", "gradient_first_per_sample", "gradient_second", "gradient_mix_per_sample")
#: Of the gradient over all samples: absolute values, taken last.
OVER_DATA = ("gradient_first", "gradient_mix")
#: Statistics per index of a parameter.
PER_INDEX = (*PER_BACKWARD, *OVER_DATA)
#: Per unit and structure, since it is no sum over the unit's indices.
COARSE = "gradient_coarse"
#: What needs the gradient of every sample by itself, and so one backward per sample.
PER_SAMPLE = frozenset({*PER_BACKWARD[1:], "gradient_mix", COARSE})
GRADIENTS = frozenset({*PER_INDEX, COARSE})
#: How differently two heads attend.
DIVERGENCE = "head_divergence"
