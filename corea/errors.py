"""Every error COREA raises, as one tree. Each message is one line, and says what to do.

::

    CoreaError
    ├── ConfigError            a configuration value is missing, unknown or wrong
    ├── InputError             a question, a file or an argument cannot be used
    ├── ExtraMissing           an optional dependency is not installed
    ├── EngineMissing          llama.cpp's library cannot be loaded
    ├── CatalogueError         a model file cannot be had
    │   ├── UnknownModel       no such name in the catalogue, no such file
    │   ├── ModelFileError     the file is there but is not a usable model
    │   ├── SourceUnreachable  no source of the file could be reached
    │   ├── ChecksumMismatch   the bytes are not the ones the catalogue promises
    │   └── DiskFull           the file does not fit
    ├── ModelError             a model was asked and did not answer
    │   ├── UpstreamRefused    no connection
    │   ├── UpstreamTimeout    no answer in time
    │   ├── UpstreamStatus     an HTTP error status
    │   │   ├── RateLimited    429
    │   │   └── Unauthorized   401 or 403
    │   ├── UpstreamGarbage    an answer that is not a chat completion
    │   ├── ContextOverflow    the question does not fit the model's context
    │   └── CircuitOpen        the model was not asked, because it failed too often just now
    ├── TrainingStopped        going on would only spoil the model
    ├── NotCertified           a tier was not asked, because its certificate promises nothing
    ├── TierSkipped            a tier was not asked, because a policy or a gate said so
    ├── DeadlineExceeded       the request's time ran out
    ├── CascadeExhausted       no tier answered; carries the trace
    └── LedgerError            the ledger cannot be read or written
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from corea.types import Trace


class CoreaError(Exception):
    """Base of every error raised on purpose."""


class ConfigError(CoreaError):
    """A configuration value is missing, unknown or wrong. ``field`` is its dotted path, e.g. ``tiers[0].threshold``."""

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message if field is None else f"{field}: {message}")
        self.field = field


class InputError(CoreaError):
    """A question, a file or an argument cannot be used."""


class ExtraMissing(CoreaError):
    """An optional dependency is not installed."""

    def __init__(self, *, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed; run: pip install 'corea[{extra}]'")


class EngineMissing(CoreaError):
    """llama.cpp's library cannot be loaded."""


class CatalogueError(CoreaError):
    """A model file cannot be had."""


class UnknownModel(CatalogueError):
    """Neither a name in the catalogue nor a file."""


class ModelFileError(CatalogueError):
    """The file is there but is not a usable model."""


class SourceUnreachable(CatalogueError):
    """No source of the file could be reached."""


class ChecksumMismatch(CatalogueError):
    """The bytes are not the ones the catalogue promises; they were deleted, never used."""


class DiskFull(CatalogueError):
    """The file does not fit on the disk; what was fetched so far is kept for the next try."""


class ModelError(CoreaError):
    """A model was asked and did not answer.

    ``may_be_billed``: the model may have worked before it failed, now or in an earlier try, and nobody said how much.
    """

    may_be_billed = False


class UpstreamRefused(ModelError):
    """No connection to the endpoint."""


class UpstreamTimeout(ModelError):
    """No answer in time."""

    may_be_billed = True

    def __init__(self, *, model: str, elapsed_s: float) -> None:
        super().__init__(
            f"{model} gave no answer in {elapsed_s:.1f} s; raise the tier's timeout_s or check the endpoint"
        )
        self.model = model
        self.elapsed_s = elapsed_s


class UpstreamStatus(ModelError):
    """The endpoint answered with an HTTP error. ``retry_after_s`` is what it asked for, if it did."""

    def __init__(self, message: str, *, status: int, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_s = retry_after_s


class RateLimited(UpstreamStatus):
    """The endpoint answered 429."""


class Unauthorized(UpstreamStatus):
    """The endpoint answered 401 or 403: the key is missing, wrong or not allowed."""


class UpstreamGarbage(ModelError):
    """The endpoint answered something that is not a chat completion: HTML, cut JSON, missing fields."""

    may_be_billed = True


class ContextOverflow(ModelError):
    """The question does not fit the model's context."""


class CircuitOpen(ModelError):
    """The model was not asked, because it failed too often just now; ``retry_after_s`` from now it is asked again."""

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class TrainingStopped(CoreaError):
    """Going on would only spoil the model. The last checkpoint is from before."""


class NotCertified(CoreaError):
    """A tier was not asked: its certificate promises nothing, so its answer could not be kept."""


class TierSkipped(CoreaError):
    """A tier was not asked: ``policy`` names the policy, or the gate, that left it out."""

    def __init__(self, message: str, *, policy: str) -> None:
        super().__init__(message)
        self.policy = policy


class DeadlineExceeded(CoreaError):
    """The request's time ran out before this tier could answer."""


class CascadeExhausted(CoreaError):
    """No tier gave an answer that could be handed out. ``trace`` tells what each of them did."""

    def __init__(self, message: str, *, trace: Trace) -> None:
        super().__init__(message)
        self.trace = trace


class LedgerError(CoreaError):
    """The ledger cannot be read or written."""
