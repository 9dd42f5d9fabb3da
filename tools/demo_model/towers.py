"""The first two stages: eyes and ears, each by itself, told at every place and moment what is there. Both run side by side, a core each.

    python -m demo_model.towers hear|see DATA RUNS --steps N [--until N] [--again] [--rate R]
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import torch
from torch.nn import functional

from demo_model import checkpoint
from demo_model.checkpoint import AUDIO_HIDDEN, HIDDEN, Model
from demo_model.pictures import COLOURS, LABELS, NO_LABEL, NOTHING, SHAPES, Seen
from demo_model.sets import SHAPE, Clips, Pictures, alike, followed_by_silence, stacked
from demo_model.speech import TOKENS
from demo_model.training import Averages, Steps, audio_tokens, image_tokens, log, tokens_of

WEIGHTS = {"colour": 1.0, "shape": 1.0, "digit": 1.5, "rank": 1.0, "count": 0.6, "place": 0.6}
SHARES = {"shape": 0.4, "number": 0.42, "several": 0.1, "part": 0.05, "plain": 0.03}
"""Of the kinds of pictures, when they are seen `--again`: print takes longest to learn."""

CHECK_EVERY = 250


class Ears(torch.nn.Module):
    """CTC on the conformer's frames (40 ms) and on the soft tokens (160 ms): what is said, for training alone."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.frame, self.token = torch.nn.Linear(AUDIO_HIDDEN, len(TOKENS) + 1), torch.nn.Linear(HIDDEN, len(TOKENS) + 1)
        self._frames = torch.empty(0)
        model.model.audio_tower.conformer[-1].register_forward_hook(lambda module, given, made: setattr(self, "_frames", made))

    def loss(self, soft: torch.Tensor, frames: list[int], said: list[list[str]]) -> torch.Tensor:
        """`soft` [B, N, H] has just been computed from clips of so many mel frames."""
        wanted = torch.tensor([TOKENS.index(word) + 1 for words in said for word in words], dtype=torch.long)
        counts = torch.tensor([len(words) for words in said])
        total = soft.new_zeros(())
        for scores, lengths in (
            (self.frame(self._frames), [(count + 3) // 4 for count in frames]),
            (self.token(soft), [tokens_of(count) for count in frames]),
        ):
            steps = torch.tensor(lengths).clamp(max=scores.shape[1])
            total = total + functional.ctc_loss(scores.log_softmax(-1).transpose(0, 1), wanted, steps, counts, zero_infinity=True)
        return total

    def read(self, soft: torch.Tensor, tokens: list[int]) -> list[list[str]]:
        found = []
        for row, count in zip(self.token(soft).argmax(-1).tolist(), tokens, strict=True):
            changes = [token for before, token in zip([0, *row], row[:count], strict=False) if token and token != before]
            found.append([TOKENS[token - 1] for token in changes])
        return found


class Eyes(torch.nn.Module):
    """What each soft token lies in, by LABELS: for training alone."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = torch.nn.ModuleDict({name: torch.nn.Linear(HIDDEN, most) for name, most in LABELS.items()})

    def loss(self, soft: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """`soft` [B, N, H], `labels` [B, 6, N]. Places with something there weigh twice as much as all others."""
        there = labels[:, SHAPE] != NOTHING
        weight = torch.where(there, 1 / there.sum(1, keepdim=True).clamp(min=1), 0.5 / (~there).sum(1, keepdim=True).clamp(min=1))
        losses = {}
        for index, (name, head) in enumerate(self.heads.items()):
            wanted = labels[:, index]
            each = functional.cross_entropy(head(soft).flatten(0, 1), wanted.flatten(), ignore_index=NO_LABEL, reduction="none")
            losses[name] = (each.view_as(weight) * weight).sum(1).mean()
        return losses

    def read(self, soft: torch.Tensor) -> list[Seen]:
        chances = {name: head(soft).softmax(-1) for name, head in self.heads.items()}
        digits = torch.einsum("bnr,bnd->brd", chances["rank"][..., :4], chances["digit"][..., :10])
        sure = chances["rank"][..., :4].max(1).values
        found = []
        for i in range(len(soft)):
            number = "".join(str(int(digits[i, rank].argmax())) for rank in range(4) if sure[i, rank] > 0.5)
            best = {name: int(chances[name][i, :, :-1].sum(0).argmax()) for name in ("colour", "count", "place")}
            shape = int(chances["shape"][i, :, :4].sum(0).argmax())
            found.append(Seen("", list(COLOURS)[best["colour"]], SHAPES[shape], number, best["count"] + 1, best["place"]))
        return found


def train_ears(data: Path, runs: Path, steps: int, rate: float, *, until: int | None = None) -> None:
    """`until` stops before the learning rate has come down wholly."""
    model = checkpoint.built(0)
    ears, clips, rng = Ears(model), Clips(data, "train"), random.Random(1)
    held_out = {split: Clips(data, split) for split in ("test", "unheard")}
    pace = Steps([*model.model.audio_tower.parameters(), *model.model.embed_audio.parameters(), *ears.parameters()], rate, steps)
    averages, batches = Averages(), list[list[int]]()
    while pace.done < (until or steps):
        batches = batches or alike(clips.frames, 9000, rng)
        batch = batches.pop()
        mels = [followed_by_silence(clips.mel(i, rng), rng.choice([0, 10, 20, 40, 80, rng.randrange(250)])) for i in batch]
        soft, _ = audio_tokens(model, *stacked(mels))
        loss = ears.loss(soft, [len(mel) for mel in mels], [clips.said[i] for i in batch])
        pace.take(loss)
        averages.add("ctc", loss.item())
        if pace.done % 50 == 0:
            log("hear", pace.done, averages, f"rate {pace.rate:.1e}")
        if pace.done % CHECK_EVERY == 0 or pace.done == (until or steps):
            log("held out", {split: _heard_right(model, ears, held) for split, held in held_out.items()})
            torch.save({"model": model.state_dict(), "head": ears.state_dict()}, runs / "hear.pt")


def _heard_right(model: Model, ears: Ears, clips: Clips, count: int = 200) -> float:
    model.eval()
    right = 0
    with torch.no_grad():
        for i in range(min(count, len(clips.said))):
            soft, tokens = audio_tokens(model, *stacked([clips.mel(i)]))
            right += ears.read(soft, tokens)[0] == clips.said[i]
    model.train()
    return right / min(count, len(clips.said))


def train_eyes(data: Path, runs: Path, steps: int, rate: float, *, again: bool = False, until: int | None = None) -> None:
    """`again` goes on from what is there, at another learning rate; `until` stops before that has come down."""
    model = checkpoint.built(0)
    model.model.vision_tower.to(memory_format=torch.channels_last)
    eyes, pictures, held_out, rng = Eyes(), Pictures(data, "train"), Pictures(data, "test"), random.Random(4 if again else 2)
    if again:
        before = torch.load(runs / "see.pt")
        model.load_state_dict(before["model"])
        eyes.load_state_dict(before["head"])
    kinds = {kind: [i for i, seen in enumerate(pictures.seen) if seen.kind == kind] for kind in SHARES}
    pace = Steps([*model.model.vision_tower.parameters(), *model.model.embed_vision.parameters(), *eyes.parameters()], rate, steps)
    averages, waiting = Averages(), list[int]()
    while pace.done < (until or steps):
        waiting = waiting if len(waiting) >= 16 else rng.sample(range(len(pictures.seen)), len(pictures.seen))
        batch, waiting = waiting[:16], waiting[16:]
        if again:
            batch = [rng.choice(kinds[kind]) for kind in rng.choices(list(SHARES), list(SHARES.values()), k=16)]
        places = pictures.places(batch, 48, 32)
        soft = image_tokens(model, pictures.batch(batch, rng), places)
        losses = eyes.loss(soft, pictures.labels[batch].gather(2, places[:, None].expand(-1, len(LABELS), -1)))
        pace.take(sum(WEIGHTS[name] * loss for name, loss in losses.items()))
        for name, loss in losses.items():
            averages.add(name, loss.item())
        if pace.done % 50 == 0:
            log("see", pace.done, averages, f"rate {pace.rate:.1e}")
        if pace.done % CHECK_EVERY == 0 or pace.done == (until or steps):
            log("held out", _seen_right(model, eyes, held_out))
            torch.save({"model": model.state_dict(), "head": eyes.state_dict()}, runs / "see.pt")


def _seen_right(model: Model, eyes: Eyes, pictures: Pictures) -> dict[str, float]:
    model.eval()
    scores: dict[str, list[bool]] = {}
    with torch.no_grad():
        for begin in range(0, len(pictures.seen), 40):
            batch = list(range(begin, min(begin + 40, len(pictures.seen))))
            for i, read in zip(batch, eyes.read(image_tokens(model, pictures.batch(batch))), strict=True):
                seen = pictures.seen[i]
                if seen.kind == "shape":
                    scores.setdefault("colour", []).append(seen.colour == read.colour)
                    scores.setdefault("shape", []).append(seen.shape == read.shape)
                    scores.setdefault("place", []).append(seen.place == read.place)
                if seen.kind == "number":
                    scores.setdefault("number", []).append(seen.number == read.number)
                if seen.kind == "several":
                    scores.setdefault("count", []).append(seen.count == read.count)
    model.train()
    return {name: round(sum(right) / len(right), 3) for name, right in scores.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sense", choices=["hear", "see"])
    parser.add_argument("data", type=Path)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--until", type=int)
    wanted = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    wanted.runs.mkdir(parents=True, exist_ok=True)
    if wanted.sense == "hear":
        train_ears(wanted.data, wanted.runs, wanted.steps, wanted.rate, until=wanted.until)
    else:
        train_eyes(wanted.data, wanted.runs, wanted.steps, wanted.rate, again=wanted.again, until=wanted.until)


if __name__ == "__main__":
    main()
