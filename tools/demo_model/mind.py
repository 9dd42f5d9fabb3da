"""Talks as the model gets them: tokens, places, soft tokens of pictures and clips; and what the language model makes of them."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, field
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch.nn import functional

from demo_model import talks, wordings
from demo_model.checkpoint import AUDIO, AUDIO_TOKENS, END_OF_TURN, IMAGE, IMAGE_TOKENS, MEDIA_VOCAB, TEXT_VOCAB, Model, tokenizer
from demo_model.pictures import COLOURS, SHAPES, Seen
from demo_model.turns import Clip, Picture, Turn, World

PLAINLY = {"full_attention": None, "sliding_attention": None}
"""Causal attention alone: padding comes last and is never looked at."""

_MEDIA = {
    Picture: ("\n\n<start_of_image>\0<end_of_image>\n\n", IMAGE, IMAGE_TOKENS),
    Clip: ("\n\n<start_of_audio>\1<end_of_audio>\n\n", AUDIO, AUDIO_TOKENS),
}
"""How media stand in a prompt, the token of their places, and how many there are."""


@dataclass
class Row:
    """One talk: token ids, their positions, what the next token is to be (-100: not trained), and its media with their wanted places."""

    ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    wanted: list[int] = field(default_factory=list)
    media: list[Picture | Clip] = field(default_factory=list)
    places: list[list[int]] = field(default_factory=list)

    def text(self, ids: list[int], *, trained: bool = False) -> None:
        begin = self.positions[-1] + 1 if self.positions else 0
        self._put(ids, list(range(begin, begin + len(ids))), trained)

    def soft(self, part: Picture | Clip, places: list[int]) -> None:
        """A picture or clip of which some places are there; what follows stands where it would behind all of them."""
        _, token, width = _MEDIA[type(part)]
        if places[-1] != width - 1:
            raise ValueError("the last place of a picture or clip is always kept")
        begin = self.positions[-1] + 1
        self._put([token] * len(places), [begin + place for place in places], False)
        self.media.append(part)
        self.places.append(places)

    def _put(self, ids: list[int], positions: list[int], trained: bool) -> None:
        if self.ids:
            self.wanted.append(ids[0] if trained and ids else -100)
        self.ids += ids
        self.positions += positions
        self.wanted += ids[1:] if trained else [-100] * (len(ids) - 1)


class Words:
    """The tokenizer, with what it has said of a text before."""

    def __init__(self, made: Tokenizer) -> None:
        self.made, self._known = made, dict[str, list[int]]()

    def __call__(self, text: str) -> list[int]:
        if text not in self._known:
            if len(self._known) > 200_000:
                self._known.clear()
            self._known[text] = self.made.encode(text, add_special_tokens=False).ids
        return self._known[text]

    def row(self, turns: list[Turn], places: list[list[int]]) -> Row:
        """A talk as a row; `places` are those that are there of its media, in order."""
        row, opened = Row(), "<bos>"
        for turn in turns:
            content = "".join(part if isinstance(part, str) else _MEDIA[type(part)][0] for part in turn.parts)
            prompt = f"{opened}<start_of_turn>user\n{content}<end_of_turn>\n<start_of_turn>model\n{turn.prefix}"
            shown = iter([part for part in turn.parts if not isinstance(part, str)])
            for piece in re.split("([\0\1])", prompt):
                if piece in ("\0", "\1"):
                    part = next(shown)
                    row.soft(part, places[len(row.media)])
                elif piece:
                    row.text(self(piece))
            row.text([*self(turn.answer), END_OF_TURN] if turn.answer else [END_OF_TURN], trained=True)
            opened = "\n"
        return row


def corpus() -> list[str]:
    """What the tokenizer learns its pieces from."""
    rng = random.Random(0)
    seen = [Seen("shape", colour, shape, place=rng.randrange(9), count=1) for colour in COLOURS for shape in SHAPES]
    seen += [Seen("number", "red", number=str(rng.randrange(10, 9999))) for _ in range(20)] + [Seen("plain", c) for c in COLOURS]
    seen += [Seen("several", count=count) for count in (2, 3, 4)] + [Seen("part", "red", "star"), Seen("nothing")]
    said = [rng.choices("0123456789", k=rng.randint(1, 10)) for _ in range(30)] + [[word] for word in wordings.TRANSLATED["French"]] + [[]]
    world, texts = World(seen, [True] * len(seen), said), ["user", "model"] * 2000 + [*wordings.WORDS, *wordings.NAMES] * 3
    for kind, (_, weight) in talks.KINDS.items():
        for _ in range(60 * weight):
            for turn in talks.talk(rng, world, kind):
                texts += [part for part in turn.parts if isinstance(part, str)] + [turn.prefix + turn.answer]
    return texts


def vocabulary(runs: Path) -> Words:
    """The tokenizer of these runs, learnt when it is first asked for."""
    file = runs / "tokenizer.json"
    if not file.exists():
        tokenizer(corpus()).save(str(file))
    return Words(Tokenizer.from_file(str(file)))


@dataclass(frozen=True)
class Batch:
    ids: torch.Tensor
    positions: torch.Tensor
    wanted: torch.Tensor

    @classmethod
    def of(cls, rows: list[Row]) -> Batch:
        longest = max(len(row.ids) for row in rows)
        filled = [torch.full((len(rows), longest), value, dtype=torch.long) for value in (0, 0, -100)]
        for i, row in enumerate(rows):
            for tensor, values in zip(filled, (row.ids, row.positions, row.wanted), strict=True):
                tensor[i, : len(values)] = torch.tensor(values)
        return cls(*filled)


def scores(model: Model, batch: Batch, soft: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits [answers' tokens, vocabulary] and what they should be; `soft` [all soft tokens of the batch, H]."""
    language = model.model.language_model
    embedded = language.embed_tokens(batch.ids)
    if soft is not None:
        embedded = embedded.masked_scatter(((batch.ids == IMAGE) | (batch.ids == AUDIO))[..., None], soft)
    by_layer = language.get_per_layer_inputs(torch.where(batch.ids < TEXT_VOCAB, batch.ids, 0))
    hidden = language(
        inputs_embeds=embedded, per_layer_inputs=by_layer, position_ids=batch.positions, attention_mask=PLAINLY, use_cache=False
    ).last_hidden_state
    asked = batch.wanted != -100
    return torch.tanh(model.lm_head(hidden[asked]) / 30) * 30, batch.wanted[asked]


def right(batch: Batch, logits: torch.Tensor, wanted: torch.Tensor) -> list[bool]:
    """Which talks are answered word for word, given that all before was."""
    good = torch.ones_like(batch.wanted, dtype=torch.bool)
    good[batch.wanted != -100] = logits.argmax(-1) == wanted
    return good.all(1).tolist()


def mean_loss(logits: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(logits, wanted)


def padding_token(model: Model) -> torch.Tensor:
    """What stands behind a clip's own tokens up to 188, [1, H]."""
    return model.model.embed_audio(input_ids=torch.tensor([[TEXT_VOCAB + 2 * MEDIA_VOCAB - 1]]))[0]
