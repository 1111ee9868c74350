"""Prompts worth asking every model: what it knows, whether it reasons, follows and stays fluent."""

from __future__ import annotations

#: Heading -> prompts. Plain texts are completed; questions suit models with a chat template.
LIBRARY: dict[str, tuple[str, ...]] = {
    "Facts": (
        "The capital of Australia is",
        "Water boils at sea level at a temperature of",
        "Who wrote the play Romeo and Juliet?",
    ),
    "Reasoning": (
        "Anna has three apples and buys two more. She gives one away. How many does she have?",
        "If all cats are animals and Tom is a cat, then Tom is",
        "Which is heavier, a kilogram of feathers or a kilogram of iron? Explain.",
    ),
    "Instructions": (
        "List three ways to save electricity at home.",
        "Write one polite sentence that declines an invitation to dinner.",
        "Summarise in one sentence: The meeting was moved from Monday to Thursday as two of us are ill.",
    ),
    "Fluency": (
        "The old lighthouse keeper climbed the stairs and",
        "In economics, inflation means that",
        "Dear customer, thank you for",
    ),
    "Code": ("def fibonacci(n):", "Write a SQL query that counts the rows of a table called users."),
}


def library_choices() -> list[tuple[str, str]]:
    """(label, prompt) of all of them, by heading."""
    return [(f"{heading}: {prompt}", prompt) for heading, prompts in LIBRARY.items() for prompt in prompts]
