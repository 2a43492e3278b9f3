"""A training run, typed and frozen, read from TOML. Unknown keys are errors.

Knows what each stage needs, not how it is done. Paths in the file are relative to where the command runs.
"""

from __future__ import annotations

import hashlib
import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from corea.config import complaint
from corea.errors import ConfigError
from corea.train.rewards import Distance, Name, Reward

Reporter = Literal["tensorboard", "mlflow", "wandb", "trackio", "none"]
_NOT_IN_THE_EXTRA = ("mlflow", "wandb", "trackio")


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)


class TaskConfig(_Frozen):
    """Questions made by reasoning-gym. ``settings`` are the task's own: they tune how hard it is."""

    name: str = Field(min_length=1)
    count: int = Field(default=500, ge=1)
    seed: int = 0
    settings: dict[str, bool | int | float | str] = {}


class DataConfig(_Frozen):
    """What is trained on. Questions too like one of ``tests`` are taken out."""

    #: Question files, JSONL or JSONL.gz; each needs gold answers.
    questions: tuple[Path, ...] = ()
    #: At most so many of each file.
    limit: int | None = Field(default=None, ge=1)
    tasks: tuple[TaskConfig, ...] = ()
    #: Files of questions that must not be trained on, nor any that share ``ngram`` words in a row with them.
    tests: tuple[Path, ...] = ()
    ngram: int = Field(default=8, ge=3, le=50)
    #: Share of the questions kept from training, for ``calibrate``.
    held_out: float = Field(default=0.1, ge=0, lt=1)

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.questions and not self.tasks:
            raise ValueError("there is nothing to train on; name question files, or reasoning-gym tasks")
        return self


class RolloutsConfig(_Frozen):
    """Samples of the untrained model: what the warm-up is written from, and how hard each question is."""

    #: ``transformers`` samples in this process; ``embedded`` by llama.cpp; ``openai`` from any compatible endpoint.
    engine: Literal["transformers", "embedded", "openai"] = "transformers"
    #: What ``embedded`` loads (catalogue name or GGUF file) or ``openai`` asks for; by default the model's ``base``.
    model: str | None = None
    base_url: str | None = Field(default=None, pattern=r"^https?://[^\s]+$")
    api_key_env: str | None = Field(default=None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    #: Answers a question.
    samples: int = Field(default=8, ge=2, le=256)
    temperature: float = Field(default=1.0, gt=0, le=2)
    max_tokens: int = Field(default=512, ge=8)
    #: Replies generated together (``transformers``), or requests under way (the others).
    batch: int = Field(default=32, ge=1)

    @model_validator(mode="after")
    def _endpoint(self) -> Self:
        if self.engine == "openai" and self.base_url is None:
            raise ValueError('engine "openai" needs a base_url, such as http://127.0.0.1:8000/v1')
        if self.engine != "openai" and self.base_url is not None:
            raise ValueError(f'base_url is for engine "openai", not "{self.engine}"')
        return self


class LoraConfig(_Frozen):
    """Low-rank adapters on the attention and feed-forward matrices; ``rank = 0`` trains all weights instead."""

    rank: int = Field(default=16, ge=0, le=512)
    alpha: float = Field(default=32.0, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    #: In so many of the uppermost layers only: the others are not walked back through, which halves a CPU's work.
    last_layers: int | None = Field(default=None, ge=1)


class WarmupConfig(_Frozen):
    """Supervised, on the model's own rollouts rewritten into the protocol."""

    epochs: int = Field(default=1, ge=1)
    #: Replies a question, at most.
    replies: int = Field(default=2, ge=1)
    #: ``lines`` learns the two last lines only. ``reply`` learns the reasoning before them too: it is the model's own,
    #: but a very small model that does not see it forgets to reason, and answers at once. ``right`` learns the
    #: reasoning of the right replies alone, and the two last lines of all (rejection sampling, arXiv 2308.01825).
    learn: Literal["lines", "reply", "right"] = "lines"
    #: No digit keeps more replies than this share of all: questions always answered right would teach 9, little else.
    most_share: float = Field(default=0.25, ge=0.1, le=1)
    learning_rate: float = Field(default=1e-4, gt=0, allow_inf_nan=False)
    batch: int = Field(default=8, ge=1)
    accumulate: int = Field(default=1, ge=1)
    #: Weight of the ConfTuner loss on the digit; 0 leaves it out.
    conftuner: float = Field(default=0.0, ge=0, allow_inf_nan=False)


class RewardConfig(_Frozen):
    """Which reward, see :mod:`corea.train.rewards`."""

    name: Name = "hybrid"
    distance: Distance | None = None
    mix: float | None = Field(default=None, ge=0, le=1)
    calibration_weight: float | None = Field(default=None, gt=0, le=1)
    digit_weight: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    format_weight: float = Field(default=0.2, ge=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _of_this_reward(self) -> Self:
        for key, belongs in (
            ("distance", self.name == "corea"),
            ("mix", self.name == "hybrid"),
            ("digit_weight", self.name == "hybrid"),
            ("calibration_weight", self.name != "hybrid"),
        ):
            if getattr(self, key) is not None and not belongs:
                raise ValueError(f'{key} means nothing to the reward "{self.name}"; remove it')
        return self

    @property
    def reward(self) -> Reward:
        given = {key: value for key, value in self if value is not None}
        return Reward(**given)


class RlConfig(_Frozen):
    """GRPO. A step takes ``questions`` · ``samples`` replies on every process."""

    #: 0 leaves it out: the result is that of the warm-up.
    steps: int = Field(default=200, ge=0)
    questions: int = Field(default=8, ge=1)
    samples: int = Field(default=8, ge=2, le=256)
    #: Replies in memory at once; lower it when memory runs out. It divides ``questions`` · ``samples``.
    batch: int = Field(default=8, ge=1)
    max_tokens: int = Field(default=512, ge=8)
    temperature: float = Field(default=1.0, gt=0, le=2)
    learning_rate: float = Field(default=1e-5, gt=0, allow_inf_nan=False)
    #: Weight of the divergence from the base model; 0 needs no reference model.
    kl_weight: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    reward: RewardConfig = RewardConfig()
    #: Questions of every measured pass rate in turn, rather than as they come.
    mixed_difficulty: bool = True
    #: Stop after so many steps in a row in which all replies state one digit; 0 never does.
    collapse_steps: int = Field(default=20, ge=0)
    #: Steps between checkpoints.
    save_every: int = Field(default=50, ge=1)
    #: Generate with vLLM in this process (needs a GPU and ``pip install vllm``).
    vllm: bool = False

    @model_validator(mode="after")
    def _whole_batches(self) -> Self:
        if (self.questions * self.samples) % self.batch:
            raise ValueError(
                f"a step has {self.questions} · {self.samples} = {self.questions * self.samples} replies, which is no "
                f"multiple of batch = {self.batch}; choose a batch that divides it"
            )
        return self


class CalibrateConfig(_Frozen):
    """What the training was worth, and the confidence map: both from the questions held out."""

    method: Literal["platt", "isotonic", "temperature"] = "platt"
    #: ``embedded`` asks the GGUF adapter on its base, as a tier will; ``transformers`` the weights in this process. By
    #: default the first, where there is a GGUF adapter.
    engine: Literal["embedded", "transformers"] | None = None
    #: At most so many of the questions held out.
    limit: int = Field(default=500, ge=1)
    #: 0 takes the likeliest token each time.
    temperature: float = Field(default=0.0, ge=0, le=2)
    #: By default what ``rl`` was trained with.
    max_tokens: int | None = Field(default=None, ge=8)
    #: Questions under way at once.
    batch: int = Field(default=8, ge=1)


class ExportConfig(_Frozen):
    """What the run hands out."""

    gguf: bool = True
    #: Precision of the GGUF adapter.
    dtype: Literal["f32", "f16"] = "f16"
    #: The base model's name on the Hub, for the model card. By default the catalogue's.
    base_model: str | None = Field(default=None, pattern=r"^[\w.-]+/[\w.-]+$")


class LoggingConfig(_Frozen):
    """Where the curves of ``warmup`` and ``rl`` go as they are drawn, by transformers' own integrations.

    Each reads its own settings from the environment: ``MLFLOW_TRACKING_URI``, ``WANDB_PROJECT``, and so on.
    """

    report_to: tuple[Reporter, ...] = ("tensorboard",)

    @model_validator(mode="after")
    def _can_be_had(self) -> Self:
        if "none" in self.report_to and len(set(self.report_to)) > 1:
            raise ValueError('"none" stands alone; take it, or the others, out of report_to')
        # Told now, and not hours later, when the first of these stages begins.
        missing = [name for name in self.reporters if name in _NOT_IN_THE_EXTRA and find_spec(name) is None]
        if missing:
            raise ValueError(
                f"{missing[0]} is not installed; run: pip install {missing[0]}, or take it out of report_to"
            )
        return self

    @property
    def reporters(self) -> list[str]:
        """As transformers wants them: ``none`` is no name at all."""
        return [name for name in dict.fromkeys(self.report_to) if name != "none"]


class TrainConfig(_Frozen):
    """A whole run: ``rollouts``, ``warmup``, ``rl``, ``calibrate``, ``export``, each runnable alone."""

    #: Catalogue name, GGUF file or folder of a transformers model.
    base: str = Field(min_length=1)
    #: Where everything goes.
    output: Path
    seed: int = 0
    #: What is computed in. ``auto`` is bfloat16 on a GPU that has it, else float32. A CPU with AVX512-BF16 or AMX
    #: (``lscpu`` tells) trains two to three times as fast in bfloat16; weights that are trained stay float32.
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    data: DataConfig
    lora: LoraConfig = LoraConfig()
    rollouts: RolloutsConfig = RolloutsConfig()
    warmup: WarmupConfig = WarmupConfig()
    rl: RlConfig = RlConfig()
    calibrate: CalibrateConfig = CalibrateConfig()
    export: ExportConfig = ExportConfig()
    logging: LoggingConfig = LoggingConfig()

    @classmethod
    def load(cls, path: Path) -> TrainConfig:
        """Raises :class:`ConfigError`, one line, naming the field and the mend."""
        try:
            text = path.expanduser().read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as exc:
            why = getattr(exc, "strerror", None) or "it is not UTF-8"
            raise ConfigError(f"{path} cannot be read ({why}); give the path of a training configuration") from exc
        return parse(text, source=str(path))

    def fingerprint(self, *stages: str) -> str:
        """Of the base model, the data, the seed and these stages: checkpoints of other settings never mix."""
        trains = {"lora"} if set(stages) - {"rollouts"} else set()
        shape = self.model_dump_json(include={"base", "data", "seed", *trains, *stages})
        return hashlib.sha256(shape.encode()).hexdigest()[:16]


def parse(text: str, *, source: str) -> TrainConfig:
    """Configuration from TOML text. ``source`` is named in errors."""
    try:
        return TrainConfig.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as exc:
        raise ConfigError(f"{source}: not TOML: {exc}") from exc
    except ValidationError as exc:
        raise complaint(exc, source, root=TrainConfig, where=_dotted) from None


def _dotted(loc: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in loc)
