"""LiteLLM's ``config.yaml`` → a ``corea.toml``: its models as tiers, cheapest first.

Knows LiteLLM's file, not LiteLLM. What has no counterpart is listed, place by place, in comments at the end: nothing
is dropped in silence, and no value is quoted, as it may be a secret. What comes out loads.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from corea.config import CascadeConfig, parse
from corea.errors import InputError
from corea.importing import toml_text
from corea.importing.deployments import (
    NO_COUNTERPART,
    Defaults,
    Deployment,
    as_number,
    deployment,
    model_name_of,
    variable_in,
)
from corea.importing.toml_text import Value

#: A guess, and said to be one: only the user's own questions tell where it belongs.
THRESHOLD = 0.9
_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """``toml`` holds the remarks as well; ``tiers`` are the names, cheapest first."""

    toml: str
    tiers: tuple[str, ...]
    remarks: tuple[str, ...]


def convert(
    document: Any, *, small: str | None = None, large: str | None = None, environ: Mapping[str, str] = os.environ
) -> Imported:
    """``small`` and ``large`` are model names of the file; without them, all its models become tiers.

    ``environ`` is looked at for addresses only. Raises :class:`InputError` where no cascade can be made of it.
    """
    if not isinstance(document, dict) or not isinstance(document.get("model_list"), list):
        raise InputError("there is no model_list; give LiteLLM's config.yaml")
    remarks = _Remarks()
    sections = _Sections(remarks)
    for name, section in document.items():
        sections.read(str(name), section)
    found: list[Deployment] = []
    said: dict[str, list[str]] = {}
    for index, entry in enumerate(document["model_list"]):
        place = f"model_list[{index}]"
        if any(one.model_name == model_name_of(entry) for one in found):
            remarks.note(place, "another deployment of the same model: a tier has one address; balance in front of it")
            continue
        # What is said of a model that is not chosen in the end concerns nobody.
        told = _Remarks()
        one = deployment(entry, place, defaults=sections.defaults, note=told.note, environ=environ)
        if one is None:
            remarks.told += told.told
        else:
            found.append(one)
            said[one.model_name] = told.told
    chosen = _chosen(found, small, large, remarks)
    for one in chosen:
        remarks.told += said[one.model_name]
    names = _tier_names(chosen, remarks)
    text = _written(chosen, names, sections, remarks.told)
    # By construction it loads; a user is not the one to find out where it does not.
    parse(text, source="the imported configuration")
    return Imported(toml=text, tiers=names, remarks=tuple(remarks.told))


@dataclass(slots=True)
class _Remarks:
    told: list[str] = field(default_factory=list)

    def note(self, place: str, words: str) -> None:
        shown = place if len(place) <= 100 else f"{place[:99]}…"
        self.told.append(toml_text.comment(f"{shown}: {words}").removeprefix("# "))


class _Sections:
    """What the sections beside ``model_list`` say."""

    def __init__(self, remarks: _Remarks) -> None:
        self._note = remarks.note
        self._settings: dict[str, dict[str, Value]] = {"ledger": {}, "gateway": {}}
        self._timeout_s: float | None = None
        self._max_retries: int | None = None

    @property
    def defaults(self) -> Defaults:
        return Defaults(timeout_s=self._timeout_s, max_retries=self._max_retries)

    @property
    def settings(self) -> Mapping[str, Mapping[str, Value]]:
        return self._settings

    def read(self, name: str, section: Any) -> None:
        if name == "model_list" or section is None:
            return
        if name == "environment_variables" and isinstance(section, dict):
            for variable in section:
                self._note(f"{name}.{variable}", "its value was not copied; set the variable where corea runs")
            return
        if name not in ("litellm_settings", "router_settings", "general_settings") or not isinstance(section, dict):
            self._note(name, NO_COUNTERPART)
            return
        for key, value in section.items():
            if value is not None:
                self._read_one(name, str(key), value)

    def _read_one(self, section: str, key: str, value: Any) -> None:
        words = self._taken(section, key, value)
        if words is not None:
            self._note(f"{section}.{key}", words)

    def _taken(self, section: str, key: str, value: Any) -> str | None:
        """None where the value was taken over; else what to say of it."""
        number, gateway = as_number(value), self._settings["gateway"]
        match section, key:
            case "general_settings", "master_key":
                return self._master_key(value)
            case "general_settings", "max_request_size_mb" if number is not None and 0.001 <= number <= 4096:
                gateway["max_body_bytes"] = max(1024, int(number * _MIB))
                return None
            case "general_settings", "global_max_parallel_requests" if number is not None and 1 <= number <= 10**6:
                gateway["max_active"] = int(number)
                return None
            case "litellm_settings" | "router_settings", "num_retries" if number is not None and 0 <= number <= 10:
                self._max_retries = int(number)
                return None
            case ("litellm_settings", "request_timeout") | ("router_settings", "timeout") if (
                number is not None and 0.001 <= number <= 86_400
            ):
                self._timeout_s = float(number)
                return None
            case "litellm_settings", "turn_off_message_logging" if isinstance(value, bool):
                self._settings["ledger"]["store_texts"] = not value
                return None
            case "litellm_settings", "json_logs" if isinstance(value, bool):
                gateway["log_format"] = "json" if value else "text"
                return None
            case "litellm_settings", "callbacks" | "success_callback" if value in (["otel"], "otel"):
                gateway["otel"] = True
                return "spans go where the OTEL_* variables say; it takes the extra otel"
        return _WORDS.get(key, NO_COUNTERPART)

    def _master_key(self, value: object) -> str | None:
        variable = variable_in(value)
        self._settings["gateway"]["api_key_env"] = variable or "COREA_API_KEY"
        if variable is not None:
            return None
        return "the key in the file was not copied; run: export COREA_API_KEY=…, and renew that key"


_WORDS = {
    "fallbacks": "a tier that fails is skipped, and the next one is asked; see on_error and on_exhausted",
    "default_fallbacks": "a tier that fails is skipped, and the next one is asked; see on_error and on_exhausted",
    "context_window_fallbacks": "a question that does not fit a tier goes to the next one by itself",
    "drop_params": "a parameter that a tier can't be judged with sends the request to the last tier as it is",
    "cache": "answers are not cached; the header Idempotency-Key repeats one",
    "cache_params": "answers are not cached; the header Idempotency-Key repeats one",
    "callbacks": "there are no callbacks; /metrics is for Prometheus, gateway.otel for OpenTelemetry",
    "success_callback": "there are no callbacks; /metrics is for Prometheus, gateway.otel for OpenTelemetry",
    "failure_callback": "there are no callbacks; /metrics is for Prometheus, gateway.otel for OpenTelemetry",
    "num_retries": "is not a number of retries from 0 to 10; each tier has max_retries",
    "allowed_fails": "a tier is left alone by the share of its calls that fail: breaker of a tier",
    "cooldown_time": "a tier is left alone by the share of its calls that fail: breaker of a tier, open_s",
    "routing_strategy": "the cascade asks the cheapest tier first, always",
    "model_group_alias": "there are no aliases; clients name a tier, or corea for the cascade",
    "database_url": "was not copied, as it may hold a password; the ledger is ledger.url, and keys are made anew",
    "store_model_in_db": "models that are only in LiteLLM's database are not in this file",
    "set_verbose": "there is one level of detail",
}


def _chosen(
    found: Sequence[Deployment], small: str | None, large: str | None, remarks: _Remarks
) -> tuple[Deployment, ...]:
    """The tiers, cheapest first."""
    names = [one.model_name for one in found]
    for option, name in (("--small", small), ("--large", large)):
        if name is not None and name not in names:
            raise InputError(f"{option}: no model {name!r} can be a tier; there are: {', '.join(names) or 'none'}")
    if len(found) < 2:
        why = f"; {remarks.told[0]}" if remarks.told and not found else ""
        raise InputError(f"a cascade needs two models to chat with, and the file has {len(found)}{why}")
    first = next((one for one in found if one.model_name == small), None)
    last = next((one for one in found if one.model_name == large), None)
    if first is None or last is None:
        unpriced = [one.model_name for one in found if one.price is None]
        if unpriced:
            message = f"no price of {unpriced[0]!r} is known, so nobody can say which model is cheap"
            raise InputError(f"{message}; name both: --small NAME --large NAME")
    ordered = sorted(found, key=_cost)
    if first is None and last is None:
        if len(ordered) > 2:
            words = f"all {len(ordered)} models are tiers; most cascades want two: --small NAME --large NAME"
            remarks.note("model_list", words)
        return tuple(ordered)
    first = first or next(one for one in ordered if one is not last)
    last = last or next(one for one in reversed(ordered) if one is not first)
    if first is last:
        raise InputError("--small and --large name the same model; choose two")
    if first.price is not None and last.price is not None and _cost(first) > _cost(last):
        raise InputError(f"{first.model_name!r} costs more than {last.model_name!r}; name them the other way round")
    for one in found:
        if one is not first and one is not last:
            remarks.note(one.place, f"{one.model_name} is not part of the cascade, and clients can't reach it here")
    return (first, last)


def _cost(one: Deployment) -> int:
    return 0 if one.price is None else one.price.reference_nano_usd


def _tier_names(chosen: Sequence[Deployment], remarks: _Remarks) -> tuple[str, ...]:
    """The models' own names where they can be: clients go on using them."""
    # Clients name the cascade so.
    taken = ["corea"]
    for one in chosen:
        plain = re.sub(r"[^A-Za-z0-9_.-]+", "-", one.model_name).strip("-._")[:56] or "model"
        name = next(n for n in (plain, *(f"{plain}-{count}" for count in range(2, 10_000))) if n not in taken)
        taken.append(name)
        if name != one.model_name:
            remarks.note(one.place, f"clients who asked for {one.model_name} name the tier {name}")
    return tuple(taken[1:])


def _written(chosen: Sequence[Deployment], names: Sequence[str], sections: _Sections, remarks: Sequence[str]) -> str:
    lines = [
        "# Made from LiteLLM's configuration by: corea config import litellm. What was not taken over is at the end.",
        '# Clients say model="corea" for the cascade. LiteLLM listens on 0.0.0.0:4000; corea serve: --host, --port.',
    ]
    # A request may take as long as its slowest model was given before.
    longest_s = max((float(str(one.settings.get("timeout_s", 0))) for one in chosen), default=0.0)
    cascade: dict[str, Value] = {"deadline_s": longest_s} if longest_s > CascadeConfig().deadline_s else {}
    for section, settings in {"cascade": cascade, **sections.settings}.items():
        if settings:
            lines += ["", f"[{section}]", *toml_text.lines(settings)]
    for name, one in zip(names, chosen, strict=True):
        lines += ["", "[[tiers]]", *toml_text.lines({"name": name, **one.settings})]
        if one is not chosen[-1]:
            lines += [
                "# Not calibrated, a guess: certify your own (corea eval run, corea certify).",
                f"threshold = {THRESHOLD}",
                'confidence = { estimator = "verbalized" }',
            ]
    if remarks:
        lines += ["", "# Not taken over:", *(toml_text.comment(f"- {remark}") for remark in remarks)]
    return "\n".join(lines) + "\n"
