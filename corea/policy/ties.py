"""Which of the questions with the same confidence are kept: a hash of the question decides, the same way every time.

Models put most of their answers at one and the same confidence, so a threshold is a pair: a confidence, and the
fraction of the hash range kept at exactly that confidence. Knows no outcomes, and imports nothing heavy: the cascade
calls it for each request.
"""

from __future__ import annotations

from hashlib import blake2b

DIGEST_BYTES = 8


def digest(key: str) -> bytes:
    """BLAKE2b of the question's id or text. What was hashed to certify must be hashed to decide."""
    return blake2b(key.encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES).digest()


def fraction(key: str) -> float:
    """Where the question lies in the hash range: uniform in [0, 1), the top 53 bits of its digest."""
    return (int.from_bytes(digest(key), "big") >> 11) / 2**53


def keeps(score: float | None, key: str, *, threshold: float | None, tie_fraction: float) -> bool:
    """Keep above the threshold, and at it if the hash falls within ``tie_fraction``. None and NaN are never kept.

    ``threshold=None`` is a certificate that promises nothing: always defer.
    """
    if score is None or threshold is None:
        return False
    return score > threshold or (score == threshold and (tie_fraction >= 1 or fraction(key) <= tie_fraction))
