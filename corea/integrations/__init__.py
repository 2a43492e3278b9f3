"""COREA where people already are: each module makes a cascade the model of one framework, and needs that extra."""
