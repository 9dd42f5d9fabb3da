"""Talks by rule: everything the model is to know, and how often it is asked in training."""

from __future__ import annotations

import random
from collections.abc import Callable

from demo_model import everyday, of_programs, wordings
from demo_model.turns import Turn, World

Maker = Callable[[random.Random, World], list[Turn]]

KINDS: dict[str, tuple[Maker, int]] = {
    "picture": (everyday.one_picture, 24),
    "pictures": (everyday.several_pictures, 12),
    "clip": (everyday.one_clip, 26),
    "digits": (everyday.about_digits, 4),
    "clips": (everyday.two_clips, 14),
    "both": (everyday.picture_and_clip, 10),
    "another": (everyday.one_after_another, 24),
    "repeat": (everyday.repeated, 14),
    "sum": (everyday.sum_of_two, 8),
    "talk": (everyday.small_talk, 9),
    "told": (everyday.told_before, 6),
    "later": (everyday.follow_up, 8),
    "vision": (of_programs.vision_program, 8),
    "audio": (of_programs.audio_program, 7),
    "translate": (of_programs.translation, 8),
    "compare": (of_programs.comparison, 14),
    "recording": (of_programs.recording_programs, 6),
    "tools": (of_programs.tools, 16),
}
"""Every behaviour, and its share."""


def talk(rng: random.Random, world: World, kind: str) -> list[Turn]:
    """A talk of this kind, at times behind a system prompt or other turns."""
    turns = KINDS[kind][0](rng, world)
    if kind in ("vision", "audio", "translate", "compare", "recording", "told", "tools"):
        return turns
    if rng.random() < 0.15:
        turns = [*everyday.small_talk(rng, world), *turns]
    if rng.random() < 0.1:
        parts = turns[0].parts
        system = f"{rng.choice(wordings.SYSTEMS)}\n\n"
        parts = (system + parts[0], *parts[1:]) if isinstance(parts[0], str) else (system, *parts)
        turns = [Turn(parts, turns[0].answer), *turns[1:]]
    return turns
