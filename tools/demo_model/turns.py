"""What talks are made of: turns, what may be shown and said in them, and how people word things."""

from __future__ import annotations

import random
from dataclasses import dataclass

from demo_model import wordings
from demo_model.pictures import Seen


@dataclass(frozen=True)
class Picture:
    index: int


@dataclass(frozen=True)
class Clip:
    index: int


Part = str | Picture | Clip


@dataclass(frozen=True)
class Turn:
    """What is asked, and the model's answer; the answer begins behind `prefix`, which a program writes in the model's place."""

    parts: tuple[Part, ...]
    answer: str
    prefix: str = ""


@dataclass(frozen=True)
class World:
    """What may be shown and said: pictures by kind, what each shows, clips by whether something is said."""

    seen: list[Seen]
    placed: list[bool]
    said: list[list[str]]

    def picture(self, rng: random.Random, *kinds: str) -> tuple[Picture, Seen]:
        while True:
            i = rng.randrange(len(self.seen))
            if self.seen[i].kind in (kinds or ("shape", "number", "plain", "several")):
                return Picture(i), self.seen[i]

    def clip(self, rng: random.Random, *, silent: float = 0.12) -> tuple[Clip, list[str]]:
        wanted = rng.random() >= silent
        while True:
            i = rng.randrange(len(self.said))
            if bool(self.said[i]) == wanted:
                return Clip(i), self.said[i]


def asked(rng: random.Random, choices: list[str]) -> str:
    """One of the wordings, at times without its full stop, in small letters, or politely."""
    text = rng.choice(choices)
    if len(text) > 80 or rng.random() > 0.25:
        return text
    text = text.rstrip(".?!:") if rng.random() < 0.5 else text
    text = text.lower() if rng.random() < 0.5 else text
    return rng.choice(["Please ", "OK, ", "Now ", "So, ", "And "]) + text if rng.random() < 0.2 else text


def around(rng: random.Random, media: list[Part], text: str) -> tuple[Part, ...]:
    """Media before their question, or, less often, behind it."""
    return (*media, text) if rng.random() < 0.75 else (text, *media)


def words(rng: random.Random, most: int = 5) -> str:
    """Words that are, and words that nobody has heard of."""
    return " ".join(rng.choice(wordings.WORDS) if rng.random() < 0.6 else invented(rng) for _ in range(rng.randint(1, most)))


def invented(rng: random.Random) -> str:
    """A word that nobody has heard of."""
    ends = ["", "", "n", "r", "s", "t", "l"]
    word = "".join(rng.choice("bcdfghjklmnprstvwz") + rng.choice("aeiou") + rng.choice(ends) for _ in range(rng.randint(1, 3)))
    return word.capitalize() if rng.random() < 0.1 else word
