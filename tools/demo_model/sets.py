"""What `render` wrote, as batches: pictures with their labels, clips as mel frames."""

from __future__ import annotations

import math
import pickle
import random
from pathlib import Path

import numpy as np
import torch

from demo_model.pictures import LABELS, NOTHING, Seen

FLOOR = math.log(1e-5)
"""What the feature extractor says of digital silence."""

SHAPE = list(LABELS).index("shape")


class Pictures:
    """`seen[i]` is what is in picture i."""

    def __init__(self, folder: Path, split: str) -> None:
        self.pixels = np.load(folder / f"pictures-{split}.npy", mmap_mode="r")
        self.labels = torch.from_numpy(np.load(folder / f"labels-{split}.npy")).long().flatten(2)
        self.seen: list[Seen] = pickle.loads((folder / f"seen-{split}.pkl").read_bytes())

    def batch(self, indices: list[int], rng: random.Random | None = None) -> torch.Tensor:
        """float [B, 3, 256, 256] in 0–1; with `rng`, a little lighter or darker."""
        pixels = torch.from_numpy(np.stack([self.pixels[i] for i in indices])).permute(0, 3, 1, 2).float() / 255
        if rng is not None:
            for picture in pixels:
                picture.mul_(rng.uniform(0.94, 1.04)).add_(rng.uniform(-0.02, 0.02)).clamp_(0, 1)
        return pixels.contiguous(memory_format=torch.channels_last)

    def places(self, indices: list[int], count: int, most: int) -> torch.Tensor:
        """`count` of the 256 places of each picture, in order, [B, count]: up to `most` of those that show something, others at random."""
        there = self.labels[indices, SHAPE] != NOTHING
        chance = torch.rand(there.shape)
        rank = torch.where(there, chance + 1, chance).argsort(1, descending=True).argsort(1)
        return torch.where(there & (rank < most), chance + 2, torch.where(there, chance * 0.8, chance)).topk(count, 1).indices.sort(1).values


class Clips:
    """`said[i]` is what is said in clip i, `frames[i]` how long it is (10 ms each)."""

    def __init__(self, folder: Path, split: str) -> None:
        self._mel = np.load(folder / f"mel-{split}.npy", mmap_mode="r")
        clips = pickle.loads((folder / f"clips-{split}.pkl").read_bytes())
        self._begins = [clip[0] for clip in clips]
        self.frames = [clip[1] for clip in clips]
        self.said: list[list[str]] = [clip[2] for clip in clips]

    def mel(self, index: int, rng: random.Random | None = None) -> torch.Tensor:
        """float [frames, 128]; with `rng`, louder or softer and with gaps."""
        begin = self._begins[index]
        mel = torch.from_numpy(self._mel[begin : begin + self.frames[index]].astype(np.float32))
        return mel if rng is None else _worn(mel, rng)


def _worn(mel: torch.Tensor, rng: random.Random) -> torch.Tensor:
    mel = torch.where(mel < FLOOR + 0.02, mel, mel + rng.uniform(-1.5, 1)).clamp_min(FLOOR)
    for _ in range(rng.randrange(3)):
        wide = rng.randrange(1, 14)
        low = rng.randrange(128 - wide)
        mel[:, low : low + wide] = mel.mean()
    if rng.random() < 0.3 and len(mel) > 30:
        long = rng.randrange(1, 6)
        begin = rng.randrange(len(mel) - long)
        mel[begin : begin + long] = mel.mean()
    return mel


def stacked(mels: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """float [B, longest, 128], and a mask that is true where there is nothing."""
    longest = max(map(len, mels))
    together, empty = torch.zeros(len(mels), longest, 128), torch.ones(len(mels), longest, dtype=torch.bool)
    for i, mel in enumerate(mels):
        together[i, : len(mel)], empty[i, : len(mel)] = mel, False
    return together, empty


def sent(frames: int) -> int:
    """Mel frames of a clip as the project sends it: filled up to a multiple of 2.5 s, or to 29.5 s if it is nearly that."""
    seconds = 29.5 if frames > 1967 else min(29.5, math.ceil((frames + 3) / 250) * 2.5)
    return (math.ceil(seconds * 125) * 128 - 513) // 160 + 1


def followed_by_silence(mel: torch.Tensor, frames: int) -> torch.Tensor:
    return torch.cat([mel, torch.full((max(0, frames), 128), FLOOR)])


def alike(lengths: list[int], budget: int, rng: random.Random) -> list[list[int]]:
    """Indices in batches of similar lengths that add up to about `budget` each, shuffled."""
    order = sorted(range(len(lengths)), key=lambda i: lengths[i] * rng.uniform(0.9, 1.1))
    batches: list[list[int]] = [[]]
    for i in order:
        if (len(batches[-1]) >= 4 and (len(batches[-1]) + 1) * lengths[i] > budget) or len(batches[-1]) == 40:
            batches.append([])
        batches[-1].append(i)
    rng.shuffle(batches)
    return batches
