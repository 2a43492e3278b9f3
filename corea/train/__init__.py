"""Training a small model to say how sure it is. ``import corea.train`` loads neither torch nor TRL."""
