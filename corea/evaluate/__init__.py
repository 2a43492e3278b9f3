"""How good is each tier, does its confidence mean anything, and what would a cascade of them cost and lose?"""
