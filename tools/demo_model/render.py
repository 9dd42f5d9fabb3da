"""Render the pictures and clips of training and of the held-out checks into a folder, once: the same ones from the same seed."""

from __future__ import annotations

import argparse
import pickle
import random
from collections.abc import Iterator
from multiprocessing import Pool
from pathlib import Path
from typing import Any

import numpy as np

from demo_model import pictures, speech

PICTURES = {"shape": 0.42, "number": 0.28, "several": 0.14, "part": 0.1, "plain": 0.06}
CLIPS = {"digits": 0.56, "pauses": 0.2, "words": 0.14, "silence": 0.1}
"""Shares of each kind."""

SEEDS = {"train": 0, "test": 10_000_000, "unheard": 20_000_000}


def main() -> None:
    """`python -m demo_model.render FOLDER [--pictures N] [--clips N]`"""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pictures", type=int, default=14_000)
    parser.add_argument("--clips", type=int, default=14_000)
    parser.add_argument("--held-out", type=int, default=400)
    wanted = parser.parse_args()
    wanted.folder.mkdir(parents=True, exist_ok=True)
    with Pool(2) as pool:
        for split, count in (("test", wanted.held_out), ("unheard", wanted.held_out), ("train", wanted.clips)):
            _write_clips(wanted.folder, split, pool.imap(_clip, [(split, i) for i in range(count)], chunksize=20))
        for split, count in (("test", wanted.held_out), ("train", wanted.pictures)):
            _write_pictures(wanted.folder, split, count, pool.imap(_picture, [(split, i) for i in range(count)], chunksize=50))


def _write_pictures(folder: Path, split: str, count: int, rendered: Iterator[Any]) -> None:
    """`pictures-SPLIT.npy` uint8 [N, 256, 256, 3], `labels-SPLIT.npy` uint8 [N, 6, 16, 16], `seen-SPLIT.pkl`."""
    pixels = np.lib.format.open_memmap(folder / f"pictures-{split}.npy", "w+", np.uint8, (count, 256, 256, 3))
    labels, seen = np.zeros((count, len(pictures.LABELS), pictures.GRID, pictures.GRID), np.uint8), []
    for i, (picture, places, what) in enumerate(rendered):
        pixels[i], labels[i] = picture, places
        seen.append(what)
    pixels.flush()
    np.save(folder / f"labels-{split}.npy", labels)
    (folder / f"seen-{split}.pkl").write_bytes(pickle.dumps(seen))
    print(split, count, "pictures", flush=True)


def _write_clips(folder: Path, split: str, rendered: Iterator[Any]) -> None:
    """`mel-SPLIT.npy` float16 [frames of all, 128], `clips-SPLIT.pkl`: (first frame, frames, what is said) of each."""
    mels, clips, begin = [], [], 0
    for mel, said in rendered:
        mels.append(mel)
        clips.append((begin, len(mel), said))
        begin += len(mel)
    np.save(folder / f"mel-{split}.npy", np.concatenate(mels))
    (folder / f"clips-{split}.pkl").write_bytes(pickle.dumps(clips))
    print(split, len(clips), "clips,", begin // 100, "s", flush=True)


def _picture(job: tuple[str, int]) -> Any:
    split, number = job
    rng = random.Random(SEEDS[split] + number)
    kind = rng.choices(list(PICTURES), list(PICTURES.values()))[0]
    picture, labels, seen = pictures.drawn(rng, kind, split)
    return pictures.squashed(picture), labels, seen


def _clip(job: tuple[str, int]) -> Any:
    split, number = job
    rng = random.Random(SEEDS[split] + 5_000_000 + number)
    kind = rng.choices(list(CLIPS), list(CLIPS.values()))[0]
    samples, said = speech.clip(rng, kind, "unheard" if split == "unheard" else "train")
    return heard(samples), said


def heard(samples: np.ndarray) -> np.ndarray:
    """What the model's feature extractor makes of 16-bit samples: float16 [frames, 128]; at least half a second, as every clip is sent."""
    if not _EXTRACTOR:
        from transformers import Gemma3nAudioFeatureExtractor  # heavy, and each worker needs it once

        _EXTRACTOR.append(Gemma3nAudioFeatureExtractor(feature_size=128, sampling_rate=speech.RATE, dither=0.0, mel_floor=1e-5))
    filled = np.pad(samples, (0, max(0, speech.RATE // 2 - len(samples))))
    made = _EXTRACTOR[0]([filled.astype(np.float32) / 32768], return_tensors="np")
    return made["input_features"][0][made["input_features_mask"][0].astype(bool)].astype(np.float16)


_EXTRACTOR: list[Any] = []

if __name__ == "__main__":
    main()
