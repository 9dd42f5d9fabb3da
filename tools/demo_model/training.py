"""What all stages of training share: steps, learning rates, soft tokens as the engine computes them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from multiprocessing import get_context
from typing import Any

import torch

from demo_model.checkpoint import Model


class Steps:
    """AdamW with warm-up and cosine over a set number of steps, or of minutes if those are over first.

    Steps whose gradient is not finite are left out.
    """

    def __init__(self, weights: Iterable[torch.nn.Parameter], peak: float, count: int, minutes: float = math.inf) -> None:
        trained = [weight for weight in weights if weight.requires_grad]
        groups = [
            {"params": [weight for weight in trained if weight.dim() > 1], "weight_decay": 0.01},
            {"params": [weight for weight in trained if weight.dim() <= 1], "weight_decay": 0.0},
        ]
        self._optimizer = torch.optim.AdamW(groups, lr=peak, betas=(0.9, 0.98), fused=True)
        self._weights, self._peak, self._count, self._seconds, self._begun = trained, peak, count, minutes * 60, time.monotonic()
        self.done = 0

    @property
    def share(self) -> float:
        """How much of it is over, 0 to 1."""
        return min(1.0, max(self.done / self._count, (time.monotonic() - self._begun) / self._seconds))

    @property
    def rate(self) -> float:
        share, warm, floor = self.share, 0.03, 0.03
        if share < warm:
            return self._peak * max(share, 0.001) / warm
        return self._peak * (floor + (1 - floor) * (1 + math.cos(math.pi * (share - warm) / (1 - warm))) / 2)

    def take(self, loss: torch.Tensor) -> None:
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self._weights, 1.0)
        if torch.isfinite(norm):
            for group in self._optimizer.param_groups:
                group["lr"] = self.rate
            self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self.done += 1


class Averages(dict[str, float]):
    """Running averages of losses, by name."""

    def add(self, name: str, value: float) -> None:
        self[name] = self.get(name, value) * 0.97 + 0.03 * value

    def __str__(self) -> str:
        return " ".join(f"{name} {value:.3f}" for name, value in sorted(self.items()))


def side_by_side(*jobs: Callable[[], None]) -> None:
    """Run jobs in processes of their own, a thread each; what is in shared memory they change together. Raises if one fails.

    Two threads of one process wait for each other at every operation, which on a busy machine takes longer than one alone.
    """
    context = get_context("fork")
    processes = [context.Process(target=job) for job in jobs]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        raise SystemExit("a process of the training has failed: what it said is above")


def log(*words: Any) -> None:
    print(time.strftime("%H:%M:%S"), *words, flush=True)


def image_tokens(model: Model, pixels: torch.Tensor, places: torch.Tensor | None = None) -> torch.Tensor:
    """Soft tokens [B, N, H] of the wanted places [B, N], all 256 if None.

    From the fusion adapter on, which is most of the cost, each of the 16 × 16 places is computed alone, so others can be left out.
    """
    tower = model.model.vision_tower.timm_model
    levels, hidden = [], tower.conv_stem(pixels)
    for index, block in enumerate(tower.blocks, 1):
        hidden = block(hidden)
        if index in tower.msfa_indices:
            levels.append(hidden)
    side = levels[0].shape[-1]
    fused = torch.cat([torch.nn.functional.interpolate(level, size=(side, side), mode="nearest") for level in levels], 1).flatten(2)
    if places is not None:
        fused = fused.gather(2, places[:, None].expand(-1, fused.shape[1], -1))
    fused = tower.msfa.norm(tower.msfa.ffn(fused[..., None]))
    return model.model.embed_vision(inputs_embeds=fused.flatten(2).transpose(1, 2) * 2048**0.5)


def audio_tokens(model: Model, mel: torch.Tensor, empty: torch.Tensor) -> tuple[torch.Tensor, list[int]]:
    """Soft tokens [B, most, H] of mel frames, and how many each clip has: one for 16 frames."""
    made = model.model.get_audio_features(mel, empty).pooler_output
    return made, [tokens_of(frames) for frames in (~empty).sum(1).tolist()]


def tokens_of(frames: int) -> int:
    return ((frames + 3) // 4 + 3) // 4
