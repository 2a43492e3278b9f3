"""Whether llama.cpp, with the GGUF adapter on the quantised base, says what torch says with the weights of that file.

Adapters are trained first, by the pipeline's own rollouts and warm-up. Then 50 held-out questions with replies that end
in ``Confidence: `` are put to both, token by token the same, and the distributions over the ten digits are compared.
The same weights kept as F32, F16 and Q8_0 tell what llama.cpp's own arithmetic adds: where weights are quantised, its
matrix products round the activations to 8 bits as well. Needs the train extra and takes a quarter of an hour; what was
trained is kept in ``build/export-parity``. Run: .venv-train/bin/python -m bench export_parity
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.measure import Figure
from corea.batch.rows import Question
from corea.catalogue import CATALOGUE
from corea.models import embedded
from corea.models.download import pull
from corea.models.embedded import EmbeddedModel, EngineSettings
from corea.train import data, export, models, rollouts, warmup
from corea.train.config import TrainConfig, parse

PROMPTS = 50
#: The most that the digits' log-probabilities may differ by, on average; and how often the likeliest must agree.
MOST, AGREE = 0.05, 0.98
WORK = Path("build/export-parity")
#: Activations are rounded in blocks of so many where weights are Q4_1 or Q8_0 (ggml's Q8_0 and Q8_1).
BLOCK = 32

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """Log-probabilities of the ten digits among themselves, (N, 10) each, by torch and by llama.cpp."""

    ours: Floats
    theirs: Floats

    @property
    def apart(self) -> float:
        """Mean |Δ| over prompts and digits."""
        return float(np.abs(self.ours - self.theirs).mean())

    @property
    def stated_apart(self) -> float:
        """Mean |Δ| of the digit that torch finds likeliest."""
        best = self.ours.argmax(axis=1)[:, None]
        return float(np.abs(np.take_along_axis(self.ours - self.theirs, best, axis=1)).mean())

    @property
    def same_top(self) -> float:
        return float((self.ours.argmax(axis=1) == self.theirs.argmax(axis=1)).mean())

    @property
    def lost_lead(self) -> float:
        """The largest lead, in torch's probability, of a top digit that is another one's in llama.cpp; 0 for none."""
        rows = np.arange(len(self.ours))
        lead = np.exp(self.ours.max(axis=1)) - np.exp(self.ours[rows, self.theirs.argmax(axis=1)])
        return float(lead.max())

    @property
    def confidence_apart(self) -> float:
        """Mean |Δ E[c]|: what a threshold is compared with."""
        values = (np.arange(10) + 0.5) / 10
        return float(np.abs((np.exp(self.ours) - np.exp(self.theirs)) @ values).mean())


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A model, and the precisions its weights are tried in besides their own. ``learned``: questions to learn from."""

    name: str
    label: str
    kept: tuple[str, ...]
    learned: int
    batch: int
    most_share: float


SUBJECTS = (
    Subject(
        name="qwen2.5-coder-0.5b",
        label="Qwen2.5-Coder-0.5B Q4_K_M",
        kept=("F16",),
        learned=120,
        batch=2,
        most_share=0.1,
    ),
    Subject(
        name="smollm2-135m",
        label="SmolLM2-135M Q4_1",
        kept=("Q8_0", "F16", "F32"),
        learned=1000,
        batch=4,
        most_share=0.25,
    ),
)


def measure() -> list[Figure]:
    small = asyncio.run(pull(CATALOGUE["smollm2-135m"]))
    sampled = settings(small, WORK / "smollm2-135m", batch=4)
    questions = data.load(sampled.data)
    # Both are taught on, and asked about, the smaller one's replies: right and wrong ones.
    replies = asyncio.run(_rollouts(sampled, [*questions.train, *questions.held_out]))
    made = []
    for subject in SUBJECTS:
        file = asyncio.run(pull(CATALOGUE[subject.name]))
        made += _of(subject, file, questions, replies)
    return made


def _of(
    subject: Subject, file: Path, questions: data.TrainingData, replies: Sequence[rollouts.Rollout]
) -> list[Figure]:
    config = settings(file, WORK / subject.name, batch=subject.batch, most_share=subject.most_share)
    folder = config.output
    base = _warmed_up(config, questions.train[: subject.learned], replies)
    prompts = ended(base, questions.held_out, replies)
    adapter = export.to_gguf(folder / "warmup" / "adapter", models.config_of(folder / "base"), folder / "adapter.gguf")
    ours = by_torch(base, prompts)
    made = _figures(subject.label, Parity(ours=ours, theirs=by_llama(base, file, adapter, prompts)), held=True)
    for kept in subject.kept:
        served = requantised(file, folder / f"{kept}.gguf", kept)
        same = ours
        if kept == "Q8_0":
            # Its values are not those that were trained on: torch gets them too.
            other = models.load_base(str(served), cache=folder / "base-Q8_0")
            same = by_torch(models.with_adapter(other, folder / "warmup" / "adapter"), prompts)
        made += _figures(
            f"{subject.label} kept as {kept}",
            Parity(ours=same, theirs=by_llama(base, served, adapter, prompts)),
            held=False,
        )
    with base.model.disable_adapter():
        plain = Parity(ours=ours, theirs=by_torch(base, prompts))
    if "Q8_0" in subject.kept:
        round_activations(base)
        rounded = Parity(ours=ours, theirs=by_torch(base, prompts))
        made += _figures(f"{subject.label}, torch with its activations rounded to 8 bits", rounded, held=False)
    # Agreement could be the base's alone, were this small.
    made += _figures(f"{subject.label}, torch without the adapter", plain, held=False)
    return made


def settings(file: Path, folder: Path, *, batch: int, most_share: float = 0.25) -> TrainConfig:
    """A short warm-up on sums that the model sometimes gets right."""
    task = 'name = "chain_sum", settings = { min_terms = 2, max_terms = 2, min_digits = 1, max_digits = %d }'
    tasks = ", ".join(f"{{ count = 100, seed = {digits}, {task % digits} }}" for digits in (1, 2))
    return parse(
        f'base = "{file}"\noutput = "{folder}"\n'
        f"[data]\nheld_out = 0.4\ntasks = [{tasks}]\n"
        '[rollouts]\nengine = "embedded"\nsamples = 2\nmax_tokens = 64\nbatch = 8\n'
        f"[warmup]\nreplies = 1\nbatch = {batch}\nlearning_rate = 5e-4\nmost_share = {most_share}\n",
        source="export_parity",
    )


async def _rollouts(config: TrainConfig, questions: Sequence[Question]) -> list[rollouts.Rollout]:
    async with rollouts.endpoint(config) as source:
        return await rollouts.run(
            config,
            questions,
            source,
            journal=config.output / "rollouts.jsonl",
            fingerprint=config.fingerprint("rollouts"),
            on_start=lambda wanted, there: print(f"{wanted} replies wanted, {there} there already"),
            on_row=lambda _: None,
        )


def _warmed_up(config: TrainConfig, questions: Sequence[Question], replies: Sequence[rollouts.Rollout]) -> models.Base:
    folder = config.output / "warmup"
    if not (folder / "adapter").exists():
        base = models.load_base(config.base, cache=config.output / "base")
        made = warmup.lessons(questions, replies, config.warmup, rng=random.Random(config.seed))
        warmup.run(config, base, made, tell=print, fingerprint=config.fingerprint("rollouts", "warmup"))
    base = models.with_adapter(models.load_base(config.base, cache=config.output / "base"), folder / "adapter")
    base.model.eval()
    return base


def ended(base: models.Base, questions: Sequence[Question], replies: Sequence[rollouts.Rollout]) -> list[list[int]]:
    """Tokens of questions with the model's own replies in the protocol's form, up to the place of the digit."""
    by_id = {question.id: question for question in questions}
    found: dict[str, list[int]] = {}
    for reply in replies:
        if reply.id not in by_id or reply.id in found:
            continue
        lesson = warmup.rewritten(by_id[reply.id], reply, digit=0)
        if lesson is not None:
            row = warmup.encoded(lesson, base)
            found[reply.id] = row["input_ids"][: -row["digit_back"]]
    if len(found) < PROMPTS:
        raise SystemExit(f"only {len(found)} of {len(questions)} held-out questions have a reply with an answer")
    return list(found.values())[:PROMPTS]


def by_torch(base: models.Base, prompts: Sequence[list[int]]) -> Floats:
    import torch

    rows = []
    for ids in prompts:
        with torch.inference_mode():
            logits = base.model(torch.tensor([ids]), logits_to_keep=1).logits[0, -1]
        rows.append(torch.log_softmax(logits[list(base.digit_ids or ())].double(), dim=-1).numpy())
    return np.stack(rows)


def round_activations(base: models.Base) -> None:
    """Round what goes into every matrix of the base, as ggml does for Q8_0 and Q8_1: 8 bits and a half-width scale."""
    import torch

    def rounded(module: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        blocks = inputs[0].reshape(-1, BLOCK)
        scale = blocks.abs().amax(dim=1, keepdim=True) / 127
        steps = torch.round(torch.where(scale > 0, blocks / scale, 0.0))
        return ((steps * scale.half().float()).reshape(inputs[0].shape), *inputs[1:])

    for name, module in base.model.named_modules():
        if isinstance(module, torch.nn.Linear) and "lora_" not in name:
            module.register_forward_pre_hook(rounded)


def by_llama(base: models.Base, file: Path, adapter: Path, prompts: Sequence[list[int]]) -> Floats:
    """Through the engine that serves embedded tiers, with their settings."""
    digits = list(base.digit_ids or ())
    model = EmbeddedModel("parity", EngineSettings(path=file, adapters=((adapter, 1.0),), context_tokens=2048))
    asyncio.run(model.load())
    (engine,) = embedded._engines.values()
    rows = []
    for ids in prompts:
        asked: dict[str, Any] = {"prompt": ids, "n_predict": 1, "n_probs": 2000, "temperature": 0}
        told = engine.server.handle_completions(asked)
        tops = told["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
        heard = {top["id"]: top["logprob"] for top in tops}
        row = np.array([heard[digit] for digit in digits])
        rows.append(row - np.logaddexp.reduce(row))
    asyncio.run(model.aclose())
    return np.stack(rows)


def requantised(file: Path, out: Path, kept: str) -> Path:
    """The same model with its matrices kept in another precision; everything else word for word."""
    import gguf

    if out.exists():
        return out
    of = gguf.GGMLQuantizationType[kept]
    reader = gguf.GGUFReader(file)
    partial = out.with_suffix(".partial")
    writer = gguf.GGUFWriter(partial, arch=str(reader.fields["general.architecture"].contents()))
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        element = field.types[1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), field.types[0], element)
    for tensor in reader.tensors:
        if len(tensor.shape) == 1:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
        else:
            values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
            writer.add_tensor(tensor.name, gguf.quants.quantize(values, of), raw_dtype=of)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    partial.replace(out)
    return out


def _figures(name: str, parity: Parity, *, held: bool) -> list[Figure]:
    return [
        Figure(
            name=f"{name}: mean |Δ log-probability| of the ten digits",
            value=parity.apart,
            unit="nats",
            limit=MOST if held else None,
            detail=f"{parity.stated_apart:.3g} of the likeliest digit; {parity.confidence_apart:.2g} of E[c]",
        ),
        Figure(
            name=f"{name}: share of {len(parity.ours)} prompts with the same top digit",
            value=parity.same_top,
            unit="",
            limit=AGREE if held else None,
            at_least=held,
            detail=f"{len(set(parity.ours.argmax(axis=1)))} digits are on top somewhere; one that lost led by "
            f"at most {parity.lost_lead:.2g} of probability",
        ),
    ]
