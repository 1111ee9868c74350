"""Reading back what a run left: the door that the card of every saved model names."""

from core.models.saved import from_pretrained as from_pretrained
