"""The later stages: the language model on soft tokens that were computed once (talk), then everything together on fresh ones (join).

    python -m demo_model.speaking talk|join DATA RUNS --steps N [--seed N] [--rate R] [--threads N]
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import torch

from demo_model import checkpoint, mind, talks
from demo_model.checkpoint import AUDIO_TOKENS, HIDDEN, IMAGE_TOKENS, Model
from demo_model.mind import Batch, Row, Words
from demo_model.pictures import LABELS
from demo_model.sets import Clips, Pictures, followed_by_silence, sent, stacked
from demo_model.talks import KINDS
from demo_model.towers import WEIGHTS, Ears, Eyes
from demo_model.training import Averages, Steps, audio_tokens, every_place, image_tokens, log, tokens_of
from demo_model.turns import Clip, Picture, Turn, World

CHECK_EVERY = 300


class Sight:
    """Which places of pictures and clips a talk gets, and the sets they come from."""

    def __init__(self, data: Path, split: str, pictures: int | None = None, clips: int | None = None) -> None:
        self.pictures, self.clips = Pictures(data, split), Clips(data, split)
        seen, said = self.pictures.seen[:pictures], self.clips.said[:clips]
        certain = (self.pictures.labels[: len(seen), list(LABELS).index("place")] < 9).any(1).tolist()
        self.world = World(seen, certain, said)

    def places(self, part: Picture | Clip, rng: random.Random, whole: bool, longest: int) -> list[int]:
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
            longest = max((sent(self.clips.frames[part.index]) for part in media if isinstance(part, Clip)), default=0)
            rows.append(words.row(turns, {i: self.places(part, rng, whole, longest) for i, part in enumerate(media)}))
        return rows


def batches(sight: Sight, words: Words, rng: random.Random, whole: bool) -> list[list[Row]]:
    """Rows of similar lengths, some thousand tokens together; a handful of batches."""
    rows = sorted(sight.rows(words, sight.drawn(rng, 160 if whole else 320), rng, whole), key=lambda row: len(row.ids))
    budget = 5000 if whole else 3000
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
    """Soft tokens of towers that stay as they are, computed once for all pictures and clips."""

    def __init__(self, model: Model, sight: Sight) -> None:
        with torch.no_grad():
            self._padding = mind.padding_token(model).half()
            self._clips, self._pictures = _heard(model, sight), _seen(model, sight)
        log("soft tokens of", len(self._pictures), "pictures and", len(self._clips), "clips")

    def __call__(self, rows: list[Row]) -> torch.Tensor | None:
        found = [self._part(part, row.places[i]) for row in rows for i, part in enumerate(row.media)]
        return torch.cat(found).float() if found else None

    def _part(self, part: Picture | Clip, places: list[int]) -> torch.Tensor:
        if isinstance(part, Picture):
            return self._pictures[part.index, places]
        heard = self._clips[part.index]
        return torch.cat([heard, self._padding.expand(AUDIO_TOKENS - len(heard), -1)])[places]


def _seen(model: Model, sight: Sight) -> torch.Tensor:
    """float16 [pictures, 256, H]."""
    found = torch.empty(len(sight.world.seen), IMAGE_TOKENS, HIDDEN, dtype=torch.float16)
    for begin in range(0, len(found), 32):
        batch = list(range(begin, min(begin + 32, len(found))))
        found[batch] = image_tokens(model, sight.pictures.batch(batch)).half()
    return found


def _heard(model: Model, sight: Sight) -> list[torch.Tensor]:
    """float16 [tokens, H] of each clip as it is sent."""
    clips, found = sight.clips, [torch.empty(0)] * len(sight.world.said)
    order = sorted(range(len(found)), key=clips.frames.__getitem__)
    for begin in range(0, len(order), 16):
        batch = order[begin : begin + 16]
        mels = [followed_by_silence(clips.mel(i), sent(clips.frames[i]) - clips.frames[i]) for i in batch]
        made, counts = audio_tokens(model, *stacked(mels))
        for i, soft, count in zip(batch, made, counts, strict=True):
            found[i] = soft[:count].half().clone()
    return found


class Fresh:
    """Soft tokens computed anew from worn pictures and clips, and the towers' own losses on the way."""

    def __init__(self, model: Model, sight: Sight, eyes: Eyes, ears: Ears, rng: random.Random) -> None:
        self._model, self._sight, self._eyes, self._ears, self._rng = model, sight, eyes, ears, rng
        self.whole, self.loss = False, torch.zeros(())

    def __call__(self, rows: list[Row]) -> torch.Tensor | None:
        """With `whole` rows the towers learn nothing: their part of the work is saved."""
        self.loss = torch.zeros(())
        parts = [(part, row.places[i], row) for row in rows for i, part in enumerate(row.media)]
        with torch.set_grad_enabled(not self.whole):
            seen = self._seen([(part, places) for part, places, _ in parts if isinstance(part, Picture)])
            heard = self._heard([(part, places, row) for part, places, row in parts if isinstance(part, Clip)])
        found = [next(seen) if isinstance(part, Picture) else next(heard) for part, _, _ in parts]
        return torch.cat(found) if found else None

    def _seen(self, wanted: list[tuple[Picture, list[int]]]) -> Iterator[torch.Tensor]:
        if not wanted:
            return iter(())
        indices = [part.index for part, _ in wanted]
        places = every_place(len(wanted)) if self.whole else torch.tensor([each for _, each in wanted])
        soft = image_tokens(self._model, self._sight.pictures.batch(indices, self._rng), None if self.whole else places)
        if not self.whole:
            losses = self._eyes.loss(soft, self._sight.pictures.labels[indices].gather(2, places[:, None].expand(-1, len(LABELS), -1)))
            self.loss = self.loss + 0.5 * sum(WEIGHTS[name] * loss for name, loss in losses.items())
        return iter(soft)

    def _heard(self, wanted: list[tuple[Clip, list[int], Row]]) -> Iterator[torch.Tensor]:
        if not wanted:
            return iter(())
        clips = self._sight.clips
        mels = []
        for part, _, row in wanted:
            longest = max(clips.frames[each.index] for each in row.media if isinstance(each, Clip))
            more = 0 if self._rng.random() < 0.8 else self._rng.randrange(4)
            frames = sent(longest, more) if self.whole else tokens_of(clips.frames[part.index]) * 16 + 32
            mels.append(followed_by_silence(clips.mel(part.index, self._rng), frames - clips.frames[part.index]))
        soft, counts = audio_tokens(self._model, *stacked(mels))
        if not self.whole:
            self.loss = self.loss + 0.3 * self._ears.loss(soft, [len(mel) for mel in mels], [clips.said[part.index] for part, _, _ in wanted])
        padding = mind.padding_token(self._model)
        filled = [torch.cat([each[:count], padding.expand(AUDIO_TOKENS - count, -1)]) for each, count in zip(soft, counts, strict=True)]
        return iter([each[places] for each, (_, places, _) in zip(filled, wanted, strict=True)])


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


def train_talk(data: Path, runs: Path, steps: int, seed: int, rate: float) -> None:
    model, words, rng = checkpoint.built(0), mind.vocabulary(runs), random.Random(seed)
    loaded(model, runs, "see", "model.vision_tower.", "model.embed_vision.")
    loaded(model, runs, "hear", "model.audio_tower.", "model.embed_audio.")
    sight, held = Sight(data, "train", 6000, 6000), Sight(data, "test", 300, 300)
    soft, soft_held = Kept(model, sight), Kept(model, held)
    language = model.model.language_model
    for name, weight in model.named_parameters():
        weight.requires_grad_("language_model" in name)
    pace, losses, waiting, whole = Steps(language.parameters(), rate, steps), Averages(), [], False
    checkpoint.agree(model)
    while pace.done < steps:
        if not waiting:
            whole = pace.done > 0.6 * steps and rng.random() < 0.5
            waiting = batches(sight, words, rng, whole)
        rows = waiting.pop()
        made = soft(rows)
        with torch.autocast("cpu", torch.bfloat16):  # a third faster
            loss = mind.mean_loss(*mind.scores(model, Batch.of(rows), made))
        pace.take(loss)
        checkpoint.agree(model)
        losses.add("whole" if whole else "loss", loss.item())
        if pace.done % 50 == 0:
            log("talk", pace.done, losses, f"rate {pace.rate:.1e}")
        if pace.done % CHECK_EVERY == 0 or pace.done == steps:
            log("held out", checked(model, held, words, soft_held))
            torch.save({"model": model.state_dict()}, runs / "talk.pt")


def train_together(data: Path, runs: Path, steps: int, seed: int, rate: float) -> None:
    model, words, rng = checkpoint.built(0), mind.vocabulary(runs), random.Random(seed)
    loaded(model, runs, "talk")
    model.model.vision_tower.to(memory_format=torch.channels_last)
    eyes, ears = Eyes(), Ears(model)
    eyes.load_state_dict(torch.load(runs / "see.pt")["head"])
    ears.load_state_dict(torch.load(runs / "hear.pt")["head"])
    sight, held = Sight(data, "train"), Sight(data, "test", 300, 300)
    soft = Fresh(model, sight, eyes, ears, rng)
    pace, losses, waiting = Steps([*model.parameters(), *eyes.parameters(), *ears.parameters()], rate, steps), Averages(), []
    while pace.done < steps:
        if not waiting:
            soft.whole = rng.random() < 0.5
            waiting = batches(sight, words, rng, soft.whole)
        rows = waiting.pop()
        made = soft(rows)
        with torch.autocast("cpu", torch.bfloat16, enabled=pace.done < 0.7 * steps):
            loss = mind.mean_loss(*mind.scores(model, Batch.of(rows), made))
        pace.take(loss + soft.loss * max(0.0, 1 - 1.4 * pace.done / steps))  # the towers' own losses fade out
        checkpoint.agree(model)
        losses.add("whole" if soft.whole else "loss", loss.item())
        if pace.done % 50 == 0:
            log("join", pace.done, losses, f"rate {pace.rate:.1e}")
        if pace.done % CHECK_EVERY == 0 or pace.done == steps:
            model.eval()
            log("held out", checked(model, held, words, Kept(model, held)))
            torch.save({"model": model.state_dict()}, runs / "join.pt")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=["talk", "join"])
    parser.add_argument("data", type=Path)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--threads", type=int, default=2)
    wanted = parser.parse_args()
    torch.set_num_threads(wanted.threads)
    torch.manual_seed(wanted.seed)
    if wanted.stage == "join":
        train_together(wanted.data, wanted.runs, wanted.steps, wanted.seed, wanted.rate)
    else:
        train_talk(wanted.data, wanted.runs, wanted.steps, wanted.seed, wanted.rate)


if __name__ == "__main__":
    main()
