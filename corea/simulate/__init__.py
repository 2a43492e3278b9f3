"""What would have happened under another policy: recorded traffic replayed, and days of traffic made up.

``replay`` needs no more than COREA itself; ``days`` and ``graded`` read outcomes, and need corea[evaluate].
"""
