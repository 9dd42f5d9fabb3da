"""How often the model is right, asked over HTTP like any client does it: held-out pictures, voices, fonts and wordings.

    python -m demo_model.evaluate URL [--count N] [--only GROUP] [--seed N]
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image, ImageDraw

from demo_model import answers, everyday, pictures, speech, wordings
from demo_model.asking import Case, answer
from demo_model.pictures import Seen
from demo_model.turns import World

SEED = 30_000_000
NEW_WORDINGS = (
    ("Hello friend", "Hi, good morning", "Hey!", "Hello, nice to see you", "Good evening to you"),
    ("Who are you, please?", "Tell me who you are.", "What are you called?", "Which model is this?", "What are you exactly?"),
    ("What can you do for me?", "Please help me.", "What do you do?", "What are you capable of?", "How can you be of help?"),
    ("Thanks, that is great", "Thank you so much", "OK thanks", "Thank you, well done", "Thanks a million"),
    ("Bye for now", "Goodbye then", "See you soon", "Good bye, see you", "I am going, bye"),
    ("How are you doing?", "Hello, how are you?", "How are things going?", "Are you doing well?", "How are you feeling today?"),
)
PLAIN_COLOURS = {
    "red": (220, 20, 30), "orange": (255, 140, 0), "yellow": (250, 220, 0), "green": (0, 150, 50), "blue": (30, 60, 220), "purple": (130, 40, 170),
    "black": (0, 0, 0), "white": (255, 255, 255),
}  # fmt: skip


class Rendered:
    """Fresh renders that no training has seen."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    def picture(self, kind: str = "shape") -> tuple[Image.Image, Seen]:
        image, _, seen = pictures.drawn(self.rng, kind, "test")
        return image, seen

    def clip(self, kind: str = "digits", voices: str = "train") -> tuple[np.ndarray, list[str]]:
        return speech.clip(self.rng, kind, voices)

    def otherwise_drawn(self) -> tuple[Image.Image, Seen]:
        """A shape as a simple drawing program makes it."""
        rng = self.rng
        colour, shape = rng.choice(list(PLAIN_COLOURS)), rng.choice(pictures.SHAPES)
        paper = (200, 200, 200) if colour in ("white", "black") else rng.choice([(255, 255, 255), (255, 255, 255), (40, 40, 60)])
        image = Image.new("RGB", (300, 200), paper)
        side = rng.randint(20, 160)
        x, y = rng.randint(0, 300 - side), rng.randint(0, 200 - side)
        draw, ink = ImageDraw.Draw(image), PLAIN_COLOURS[colour]
        box = (x, y, x + side, y + side)
        if shape == "circle":
            draw.ellipse(box, fill=ink)
        elif shape == "square":
            draw.rectangle(box, fill=ink)
        elif shape == "triangle":
            draw.polygon([(x + side / 2, y), (x + side, y + side), (x, y + side)], fill=ink)
        else:
            points = [(0.5, 0), (0.62, 0.36), (1, 0.36), (0.69, 0.59), (0.81, 0.95), (0.5, 0.73), (0.19, 0.95), (0.31, 0.59), (0, 0.36), (0.38, 0.36)]
            draw.polygon([(x + side * u, y + side * v) for u, v in points], fill=ink)
        return image, Seen("shape", colour, shape)


def one_picture(made: Rendered) -> Iterator[Case]:
    rng = made.rng
    for group, question, reply in (
        ("a picture: what", wordings.WHAT, lambda seen: answers.things([seen])),
        ("a picture: colour", wordings.COLOUR, lambda seen: answers.sentence(seen.colour)),
        ("a picture: shape", wordings.SHAPE, answers.shape),
        ("a picture: where", wordings.WHERE, lambda seen: wordings.PLACES[seen.place]),
    ):
        picture, seen = made.picture()
        yield Case(group, (picture, rng.choice(question)), reply(seen))
    picture, seen = made.otherwise_drawn()
    yield Case("a picture drawn otherwise", (picture, rng.choice(wordings.WHAT)), answers.things([seen]))
    picture, seen = made.picture("several")
    yield Case("how many shapes", (picture, rng.choice(wordings.COUNT)), str(seen.count))
    picture, seen = made.picture("number")
    yield Case("a printed number, other fonts", (picture, rng.choice(wordings.READ)), seen.number)
    picture, seen = made.picture()
    before = ((picture, rng.choice(wordings.WHAT)), answers.things([seen]))
    yield Case("a picture in an earlier turn", (rng.choice(wordings.COLOUR),), answers.sentence(seen.colour), before=(before,))
    picture, seen = made.picture()
    yield Case("another picture in a later turn", (picture, rng.choice(wordings.WHAT)), answers.things([seen]), before=(before,))


def several_media(made: Rendered) -> Iterator[Case]:
    rng = made.rng
    for count in (2, 3):
        shown = [made.picture() for _ in range(count)]
        question = rng.choice(wordings.SEVERAL[:4] if count == 2 else ["Describe these images.", "What is in these images?", "Describe all images."])
        yield Case(f"{count} pictures, in order", (*(each for each, _ in shown), question), answers.things([seen for _, seen in shown]))
    (picture, seen), (clip, said) = made.picture(), made.clip()
    yield Case("a picture and speech", (picture, clip, rng.choice(wordings.BOTH)), answers.seen_and_said([seen], [said]))
    shown, (clip, said) = [made.picture() for _ in range(2)], made.clip()
    wanted = answers.seen_and_said([seen for _, seen in shown], [said])
    yield Case("two pictures and speech", (*(each for each, _ in shown), clip, "Describe both."), wanted)
    clips = [made.clip() for _ in range(2)]
    wanted = answers.in_order([" ".join(said) for _, said in clips])
    yield Case("two clips, in order", (*(each for each, _ in clips), "What is said in both?"), wanted)


def one_clip(made: Rendered) -> Iterator[Case]:
    rng = made.rng
    for voices, name in (("train", "known voices"), ("unheard", "voices never heard")):
        clip, said = made.clip("digits", voices)
        yield Case(f"1–10 digits, {name}", (clip, rng.choice(wordings.TRANSCRIBE[:10])), " ".join(said))
        clip, said = made.clip("pauses", voices)
        yield Case(f"digits with pauses, 3–29 s, {name}", (clip, "Transcribe this audio."), " ".join(said))
    clip, said = made.clip()
    yield Case("digits, Google's long prompt", (clip, wordings.TRANSCRIBE[-2]), " ".join(said))
    clip, said = made.clip("words")
    yield Case("1–3 words: yes, no, colours, shapes", (clip, "Transcribe this audio."), " ".join(said))
    clip, _ = made.clip("silence")
    yield Case("silence and noise", (clip, "Transcribe this audio."), "")
    clip, said = made.clip()
    before = ((clip, "Transcribe this audio."), " ".join(said))
    yield Case("a clip in an earlier turn", (rng.choice(wordings.AGAIN),), " ".join(said), before=(before,))
    clip, said = made.clip()
    yield Case("another clip in a later turn", (clip, "Transcribe this audio."), " ".join(said), before=(before,))


def chat(made: Rendered) -> Iterator[Case]:
    rng = made.rng
    for group, talk in (("repeat 1–6 words, known or not", everyday.repeated), ("the sum of two numbers up to ten", everyday.sum_of_two)):
        [turn] = talk(rng, World([], [], []))
        yield Case(group, tuple(part for part in turn.parts if isinstance(part, str)), turn.answer)
    intent, told = rng.choice(list(wordings.INTENTS)[:6]), rng.choice(wordings.NAMES)
    yield Case("small talk, wording known", (rng.choice(wordings.INTENTS[intent]),), intent)
    yield Case("the system prompt is known", ("What is your name?",), f"I am {told}.", system=f"Your name is {told}.")
    before = ((f"My name is {told}.",), f"Hello, {told}!")
    yield Case("what was said before is known", ("What is my name?",), f"You are {told}.", before=(before,))


def programs(made: Rendered) -> Iterator[Case]:
    rng = made.rng
    picture, seen = made.picture()
    language = rng.choice(["French", "German", "Spanish"])
    yield Case("describe, other languages", (picture,), answers.described(seen, language), "gemma-3n:describe", (("language", language),))
    picture, seen = made.picture()
    for effort in ("low", "high"):
        options = (("effort", effort),)
        yield Case(f"vision, effort {effort}", (picture, "What shape is it?"), answers.shape(seen), "gemma-3n:vision", options)
    shown = [made.picture() for _ in range(2)]
    wanted = answers.compared([each for _, each in shown], "what they show")
    yield Case("compare two", tuple(each for each, _ in shown), wanted, "gemma-3n:compare")
    clip, said = made.clip()
    yield Case("transcribe", (clip,), " ".join(said), "gemma-3n:transcribe")
    language = rng.choice(["English", "French", "German", "Spanish"])
    yield Case("translate_speech", (clip,), answers.translated(said, language), "gemma-3n:translate_speech", (("language", language),))
    for effort in ("low", "high"):
        yield Case(f"audio, effort {effort}", (clip, "What did I say?"), " ".join(said), "gemma-3n:audio", (("effort", effort),))
    yield Case("ask_recording", (clip, "What is the last digit?"), said[-1], "gemma-3n:ask_recording")


def small_talk_in_new_words(made: Rendered) -> Iterator[Case]:
    for intent, asked in zip(wordings.INTENTS, NEW_WORDINGS, strict=False):
        for question in asked:
            yield Case("small talk, wording new", (question,), intent)


GROUPS: tuple[Callable[[Rendered], Iterator[Case]], ...] = (one_picture, several_media, one_clip, chat, programs)


def cases(count: int, seed: int = SEED) -> Iterator[Case]:
    """`count` of each kind, from one seed."""
    for number in range(count):
        for index, group in enumerate(GROUPS):
            yield from group(Rendered(random.Random(seed + number * len(GROUPS) + index)))
    yield from small_talk_in_new_words(Rendered(random.Random(seed)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--only", default="")
    parser.add_argument("--seed", type=int, default=SEED, help="training takes those below 30 million")
    parser.add_argument("--misses", type=int, default=2, help="how many wrong answers of each kind are shown")
    wanted = parser.parse_args()
    begun, chosen = time.monotonic(), [case for case in cases(wanted.count, wanted.seed) if wanted.only in case.group]
    with ThreadPoolExecutor(2) as pool:
        said = list(pool.map(lambda case: answer(wanted.url, case), chosen))
    print("| task | right |\n|---|---|")
    for group in dict.fromkeys(case.group for case in chosen):
        pairs = [(case, text) for case, text in zip(chosen, said, strict=True) if case.group == group]
        wrong = [(case, text) for case, text in pairs if text != case.wanted]
        print(f"| {group} | {len(pairs) - len(wrong)} of {len(pairs)} |")
        for case, text in wrong[: wanted.misses]:
            print(f"<!-- {[part for part in case.parts if isinstance(part, str)]} → {text!r}, not {case.wanted!r} -->")
    print(f"\n{len(chosen)} questions in {time.monotonic() - begun:.0f} s")


if __name__ == "__main__":
    main()
