"""The last stage: the language model learns to talk of what eyes and ears tell it, in soft tokens that are computed once.

Two processes learn at once, each from talks of its own, and change the same weights without waiting for each other.

    python -m demo_model.speaking DATA RUNS --steps N [--again] [--seed N] [--rate R] [--minutes M]
"""

from __future__ import annotations

import argparse
import math
import random
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import torch

from demo_model import checkpoint, mind, talks
from demo_model.checkpoint import AUDIO_TOKENS, HIDDEN, IMAGE_TOKENS, Model
from demo_model.mind import Batch, Row, Words
from demo_model.pictures import LABELS
from demo_model.sets import Clips, Pictures, followed_by_silence, sent, stacked
from demo_model.talks import KINDS
from demo_model.training import Averages, Steps, audio_tokens, image_tokens, log, side_by_side, tokens_of
from demo_model.turns import Clip, Picture, Turn, World

CHECK_EVERY = 250
MEL, LONGEST = 128, 2950
"""Bands of a mel frame; frames of the longest clip."""

HALVES = torch.cpu.get_capabilities().get("avx512_bf16", False)
"""Whether this processor multiplies bfloat16 itself: it learns a third faster then, where another takes four times as long."""


class Sight:
    """Which places of pictures and clips a talk gets, and the sets they come from."""

    def __init__(self, data: Path, split: str, pictures: int | None = None, clips: int | None = None) -> None:
        self.pictures, self.clips = Pictures(data, split), Clips(data, split)
        seen, said = self.pictures.seen[:pictures], self.clips.said[:clips]
        certain = (self.pictures.labels[: len(seen), list(LABELS).index("place")] < 9).any(1).tolist()
        self.world = World(seen, certain, said)

    def places(self, part: Picture | Clip, rng: random.Random, whole: bool) -> list[int]:
        """Those of a picture that matter and some more, those of a clip that it fills and some of the rest; the last one always."""
        if whole:
            return list(range(IMAGE_TOKENS if isinstance(part, Picture) else AUDIO_TOKENS))
        if isinstance(part, Picture):
            most = rng.randrange(6, 24) if self.world.seen[part.index].kind == "shape" else 48
            return [*self.pictures.places([part.index], 56, most)[0].tolist()[:-1], IMAGE_TOKENS - 1]
        spoken = tokens_of(self.clips.frames[part.index])
        rest = rng.sample(range(spoken, AUDIO_TOKENS - 1), min(AUDIO_TOKENS - 1 - spoken, rng.randrange(1, 10)))
        return [*range(spoken), *sorted(rest), AUDIO_TOKENS - 1]

    def drawn(self, rng: random.Random, count: int) -> list[list[Turn]]:
        chosen = rng.choices(list(KINDS), [weight for _, weight in KINDS.values()], k=count)
        return [talks.talk(rng, self.world, kind) for kind in chosen]

    def rows(self, words: Words, chosen: list[list[Turn]], rng: random.Random, whole: bool) -> list[Row]:
        rows = []
        for turns in chosen:
            media = [part for turn in turns for part in turn.parts if not isinstance(part, str)]
            rows.append(words.row(turns, [self.places(part, rng, whole) for part in media]))
        return rows


def batches(sight: Sight, words: Words, rng: random.Random, whole: bool) -> list[list[Row]]:
    """Rows of similar lengths, some thousand tokens together; a handful of batches."""
    rows = sorted(sight.rows(words, sight.drawn(rng, 160 if whole else 320), rng, whole), key=lambda row: len(row.ids))
    budget = 3500 if whole else 1700
    made: list[list[Row]] = [[]]
    for row in rows:
        if made[-1] and (len(made[-1]) + 1) * len(row.ids) > budget:
            made.append([])
        made[-1].append(row)
    rng.shuffle(made)
    return made


class Soft(Protocol):
    """Where the soft tokens of rows come from: [all of the batch, H] in order, or None without media."""

    def __call__(self, rows: list[Row]) -> torch.Tensor | None: ...


class Kept:
    """Soft tokens of towers that stay as they are, computed once for all pictures and clips, and kept in `file`.

    A share of the clips, `filled`, are followed by more silence than their own, as the project fills them up beside a longer one.
    """

    def __init__(self, model: Model, sight: Sight, file: Path, *, filled: float = 0.0) -> None:
        self._frames, self._filled, self._rng = sight.clips.frames, filled, random.Random(7)
        with torch.no_grad():
            silence = followed_by_silence(torch.zeros(0, MEL), sent(LONGEST))
            self._silence = audio_tokens(model, *stacked([silence]))[0][0].half()
        if file.exists():
            self._pictures, self._clips = torch.load(file, mmap=True)
            return
        with torch.no_grad():
            self._pictures = torch.empty(len(sight.world.seen), IMAGE_TOKENS, HIDDEN, dtype=torch.float16).share_memory_()
            self._clips = torch.empty(len(sight.world.said), AUDIO_TOKENS, HIDDEN, dtype=torch.float16).share_memory_()
            side_by_side(partial(_see, model, sight, self._pictures), partial(_hear, model, sight, self._clips))
        torch.save((self._pictures, self._clips), file)
        log("soft tokens of", len(self._pictures), "pictures and", len(self._clips), "clips")

    def __call__(self, rows: list[Row]) -> torch.Tensor | None:
        found = [self._part(part, row.places[i]) for row in rows for i, part in enumerate(row.media)]
        return torch.cat(found).float() if found else None

    def _part(self, part: Picture | Clip, places: list[int]) -> torch.Tensor:
        if isinstance(part, Picture):
            return self._pictures[part.index, places]
        soft, own = self._clips[part.index, places], tokens_of(sent(self._frames[part.index]))
        if self._rng.random() >= self._filled:
            return soft
        until = self._rng.randint(own, len(self._silence))
        added = [i for i, place in enumerate(places) if own <= place < until]
        soft[added] = self._silence[[places[i] for i in added]]
        return soft


def _see(model: Model, sight: Sight, found: torch.Tensor) -> None:
    """Fill `found` [pictures, 256, H]."""
    for begin in range(0, len(found), 32):
        batch = list(range(begin, min(begin + 32, len(found))))
        found[batch] = image_tokens(model, sight.pictures.batch(batch)).half()


def _hear(model: Model, sight: Sight, found: torch.Tensor) -> None:
    """Fill `found` [clips, 188, H] with each clip as it is sent."""
    clips = sight.clips
    found[:] = mind.padding_token(model).half()
    order = sorted(range(len(found)), key=clips.frames.__getitem__)
    for begin in range(0, len(order), 16):
        batch = order[begin : begin + 16]
        mels = [followed_by_silence(clips.mel(i), sent(clips.frames[i]) - clips.frames[i]) for i in batch]
        made, counts = audio_tokens(model, *stacked(mels))
        for i, soft, count in zip(batch, made, counts, strict=True):
            found[i, :count] = soft[:count].half()


def loaded(model: Model, runs: Path, stage: str, *parts: str) -> None:
    """Take over the weights of a stage, those whose names begin with one of the parts, or all."""
    weights = torch.load(runs / f"{stage}.pt")["model"]
    model.load_state_dict({name: weight for name, weight in weights.items() if not parts or name.startswith(parts)}, strict=False)


def checked(model: Model, sight: Sight, words: Words, soft: Soft, each: int = 30) -> dict[str, float]:
    """The share of talks of each kind that are answered word for word, at full length."""
    model.eval()
    found = {}
    with torch.no_grad():
        for kind in KINDS:
            rng, good = random.Random(5), []
            for _ in range(each // 10):
                rows = sight.rows(words, [talks.talk(rng, sight.world, kind) for _ in range(10)], rng, True)
                batch = Batch.of(rows)
                good += mind.right(batch, *mind.scores(model, batch, soft(rows)))
            found[kind] = round(sum(good) / len(good), 2)
    model.train()
    return found


@dataclass
class Course:
    """What the learners share, and how long each of them learns."""

    data: Path
    runs: Path
    steps: int
    seed: int
    rate: float
    minutes: float


def train(course: Course, *, again: bool) -> None:
    """`again` goes on from what is there."""
    model, words = checkpoint.built(0), mind.vocabulary(course.runs)
    if again:
        loaded(model, course.runs, "talk")
    loaded(model, course.runs, "see", "model.vision_tower.", "model.embed_vision.")
    loaded(model, course.runs, "hear", "model.audio_tower.", "model.embed_audio.")
    sight, held = Sight(course.data, "train", 8000, 14000), Sight(course.data, "test", 300, 300)
    soft, soft_held = Kept(model, sight, course.runs / "kept.pt", filled=0.4), Kept(model, held, course.runs / "kept-held-out.pt")
    for name, weight in model.named_parameters():
        weight.requires_grad_("language_model" in name)
    checkpoint.agree(model)
    model.share_memory()
    side_by_side(*(partial(_learn, course, model, words, sight, soft, held, soft_held, learner) for learner in range(2)))


def _learn(course: Course, model: Model, words: Words, sight: Sight, soft: Soft, held: Sight, soft_held: Soft, learner: int) -> None:
    rng, losses, waiting, whole = random.Random(course.seed + learner), Averages(), list[list[Row]](), False
    torch.manual_seed(course.seed + learner)
    pace = Steps(model.parameters(), course.rate, course.steps, course.minutes)
    while pace.share < 1:
        if not waiting:
            whole = pace.share > 0.3 and rng.random() < 0.3
            waiting = batches(sight, words, rng, whole)
        rows = waiting.pop()
        made = soft(rows)
        with torch.autocast("cpu", torch.bfloat16, enabled=HALVES):
            loss = mind.mean_loss(*mind.scores(model, Batch.of(rows), made))
        pace.take(loss)
        checkpoint.agree(model)
        losses.add("whole" if whole else "loss", loss.item())
        if not learner:
            _report(course, model, pace, losses, held, words, soft_held)


def _report(course: Course, model: Model, pace: Steps, losses: Averages, held: Sight, words: Words, soft: Soft) -> None:
    """Say now and then how it goes, and keep what there is."""
    if pace.done % 25 == 0:
        log("talk", pace.done, losses, f"rate {pace.rate:.1e}")
    if pace.done % CHECK_EVERY == 0 or pace.share == 1:
        torch.save({"model": model.state_dict()}, course.runs / "talk.pt")
        log("held out", checked(model, held, words, soft))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--minutes", type=float, default=math.inf, help="the most it may take")
    wanted = parser.parse_args()
    torch.set_num_threads(1)
    course = Course(wanted.data, wanted.runs, wanted.steps, wanted.seed, wanted.rate, wanted.minutes)
    train(course, again=wanted.again)


if __name__ == "__main__":
    main()
