"""What a request says of sampling, and what becomes of it in each engine call of a run."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sglang.lang.ir import SglSamplingParams


@dataclass(frozen=True)
class Sampling:
    """What a request says of sampling; None leaves it to Gemma's defaults (temperature 1.0, top_k 64, top_p 0.95, no hidden limit of length).

    The first group reaches every call of a program that does not set its own; the second what the client gets (the answer, a tool's
    arguments); the third only the answer, which one call must make.
    """

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    repetition_penalty: float | None = None
    seed: int | None = None

    max_tokens: int | None = None
    stop: tuple[str, ...] = ()

    min_tokens: int | None = None
    ignore_eos: bool = False
    stop_token_ids: tuple[int, ...] = ()
    logit_bias: Mapping[str, float] = field(default_factory=dict)
    form: Mapping[str, str] = field(default_factory=dict)
    """What the answer must look like, in the engine's words (`Constraint.params()`)."""
    prefix: str = ""
    """How the answer begins; the model goes on from there, and only that is told."""
    top_logprobs: int | None = None
    """Log probabilities of the answer's tokens, with so many of the likeliest beside each; None: none at all."""

    def with_a_seed(self) -> Sampling:
        """The same with a seed in any case, drawn where none is asked for."""
        return self if self.seed is not None else replace(self, seed=random.getrandbits(62))

    def another(self, index: int) -> Sampling:
        """For the `index`-th of several runs: a seed of its own, told by the first one's."""
        return self if self.seed is None or not index else replace(self, seed=(self.seed + index + 2**63) % 2**64 - 2**63)

    @property
    def demand(self) -> str:
        """OpenAI's name of a demand in it that only an answer made by one call can keep; "" where there is none."""
        demands = {
            "response_format": self.form,
            "continue_final_message": self.prefix,
            "logit_bias": self.logit_bias,
            "stop_token_ids": self.stop_token_ids,
            "min_tokens": self.min_tokens,
            "ignore_eos": self.ignore_eos,
            "logprobs": self.top_logprobs is not None,
        }
        return next((name for name, asked in demands.items() if asked), "")

    def defaults(self, preferred: Mapping[str, Any]) -> SglSamplingParams:
        """For the calls of a run: the request's own values, else what the engine was told to prefer, else Gemma's."""
        given = {}
        for name, usual in _USUAL.items():
            asked = getattr(self, name)
            if (value := preferred.get(name, usual) if asked is None else asked) is not None:
                given[name] = value
        return _Defaults(
            max_new_tokens=None, stop=[], stop_token_ids=[], logprob_start_len=None, top_logprobs_num=None, return_text_in_logprobs=None, **given
        )

    def plan(self, params: dict[str, Any], *, product: bool, streams: bool) -> tuple[dict[str, Any], tuple[str, ...]]:
        """The `sampling_params` of one engine call, from the program's own `params`, and the strings it stops at.

        `product`: it makes what the client gets, or a part of it; `streams`: it makes the whole answer.
        """
        if self.seed is not None:
            params["sampling_seed"] = self.seed
        if self.repetition_penalty is not None:
            params["repetition_penalty"] = self.repetition_penalty
        stops = (params["stop"],) if isinstance(params["stop"], str) else tuple(params["stop"] or ())
        if streams:
            stops += self.stop
            self._bind(params)
        if product:
            limits = [limit for limit in (params["max_new_tokens"], self.max_tokens) if limit is not None]
            params["max_new_tokens"] = min(limits, default=None)
        params["stop"] = list(stops)
        params["no_stop_trim"] = bool(stops)
        return params, stops

    def _bind(self, params: dict[str, Any]) -> None:
        if self.form:
            for name in ("regex", "json_schema", "ebnf"):
                params.pop(name, None)
            params |= self.form
        if self.min_tokens:
            params["min_new_tokens"] = self.min_tokens
        if self.ignore_eos:
            params["ignore_eos"] = True
        if self.stop_token_ids:
            params["stop_token_ids"] = [*(params.get("stop_token_ids") or []), *self.stop_token_ids]
        # with `min_new_tokens` an id beyond the vocabulary ends SGLang 0.5.23, which looks only whether those of `logit_bias` are in it
        checked = dict.fromkeys(map(str, self.stop_token_ids), 0.0) if self.min_tokens else {}
        if bias := checked | {str(int(token)): value for token, value in self.logit_bias.items()}:
            params["logit_bias"] = bias


GEMMA = Sampling(temperature=1.0, top_p=0.95, top_k=64, min_p=0.0)
"""Google's recommendation for Gemma 3n (its generation_config)."""

_USUAL = {name: getattr(GEMMA, name) for name in ("temperature", "top_p", "top_k", "min_p", "frequency_penalty", "presence_penalty")}


class _Defaults(SglSamplingParams):
    """SGLang copies them in depth for each call, which is most of what it does for one; only these two can be changed in place."""

    def __deepcopy__(self, memo: dict[int, Any]) -> _Defaults:
        made = object.__new__(_Defaults)
        made.__dict__ = self.__dict__ | {"stop": list(self.stop), "stop_token_ids": list(self.stop_token_ids or ())}
        return made
