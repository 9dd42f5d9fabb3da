"""Talks by rule about pictures, clips and nothing much: everyday questions in many wordings."""

from __future__ import annotations

import random

from demo_model import answers, wordings
from demo_model.pictures import COLOURS, SHAPES, Seen
from demo_model.speech import DIGITS
from demo_model.turns import Clip, Part, Picture, Turn, World, around, asked, invented, words


def one_picture(rng: random.Random, world: World) -> list[Turn]:
    kind = rng.choices(["what", "colour", "shape", "where", "is", "count", "read"], [8, 3, 4, 7, 2, 4, 5])[0]
    if kind == "count":
        picture, seen = world.picture(rng, "several", "several", "shape") if rng.random() < 0.85 else world.picture(rng, "shape")
        return [Turn(around(rng, [picture], asked(rng, wordings.COUNT)), str(seen.count))]
    if kind == "read":
        picture, seen = world.picture(rng, "number")
        return [Turn(around(rng, [picture], asked(rng, wordings.READ)), seen.number)]
    if kind == "what":
        picture, seen = world.picture(rng)
        return [Turn((picture,) if rng.random() < 0.08 else around(rng, [picture], asked(rng, wordings.WHAT)), answers.things([seen]))]
    picture, seen = world.picture(rng, "shape") if kind in ("where", "is") else world.picture(rng, "shape", "plain", "number")
    question, answer = about(rng, world, picture, seen, kind)
    return [Turn(around(rng, [picture], question), answer)]


def about(rng: random.Random, world: World, picture: Picture, seen: Seen, kind: str) -> tuple[str, str]:
    """A question about one thing in a picture that has been shown, and its answer."""
    if kind == "where" and world.placed[picture.index]:
        return asked(rng, wordings.WHERE), wordings.PLACES[seen.place]
    if kind == "is" and seen.kind == "shape":
        if rng.random() < 0.5:
            name = seen.colour if rng.random() < 0.5 else rng.choice(list(COLOURS))
            return asked(rng, [f"Is it {name}?"]), "Yes." if name == seen.colour else "No."
        name = seen.shape if rng.random() < 0.5 else rng.choice(SHAPES)
        return asked(rng, [f"Is it a {name}?", f"Is this a {name}?"]), "Yes." if name == seen.shape else "No."
    if kind == "shape":
        return asked(rng, wordings.SHAPE), answers.shape(seen)
    return asked(rng, wordings.COLOUR), answers.sentence(seen.colour)


def several_pictures(rng: random.Random, world: World) -> list[Turn]:
    shown = [world.picture(rng, *(("shape",) if rng.random() < 0.8 else ())) for _ in range(rng.choice([2, 2, 3]))]
    media: list[Part] = [picture for picture, _ in shown]
    if rng.random() < 0.1:
        media = [part for picture, name in zip(media, ["First:", "Second:", "Third:"], strict=False) for part in (name, picture)]
    parts = tuple(media) if rng.random() < 0.08 else around(rng, media, asked(rng, wordings.SEVERAL))
    return [Turn(parts, answers.things([seen for _, seen in shown]))]


def transcription(rng: random.Random) -> str:
    if rng.random() < 0.8:
        return asked(rng, wordings.TRANSCRIBE)
    language = rng.choice(wordings.LANGUAGES)
    text = f"Transcribe the following speech segment in {language} into {language} text."
    return wordings.LONG.format(text) if rng.random() < 0.4 else text


def one_clip(rng: random.Random, world: World) -> list[Turn]:
    clip, said = world.clip(rng, silent=0.1)
    if rng.random() < 0.25:
        question = "" if rng.random() < 0.25 else asked(rng, wordings.HEAR)
        return [Turn(around(rng, [clip], question) if question else (clip,), answers.said(said, wordings.NO_SPEECH))]
    context = f"Names and words that may occur: {words(rng)}" if rng.random() < 0.08 else ""
    prompt = "Transcribe this audio." if rng.random() < 0.3 else transcription(rng)
    return [Turn((context, clip, prompt) if context else around(rng, [clip], prompt), answers.said(said))]


def about_digits(rng: random.Random, world: World) -> list[Turn]:
    clip, said = world.clip(rng, silent=0)
    if not said[0].isdigit():
        return one_clip(rng, world)
    question, answer = rng.choice([("first", said[0]), ("last", said[-1])])
    forms = ["What is the {} digit?", "Which digit is {}?", "What was the {} digit?", "Name the {} digit."]
    asked_for = asked(rng, [form.format(question) for form in forms])
    if rng.random() < 0.5:
        return [Turn((clip, asked_for), answer)]
    return [Turn((clip, asked(rng, wordings.HEAR)), answers.said(said)), Turn((asked_for,), answer)]


def two_clips(rng: random.Random, world: World) -> list[Turn]:
    (first, one), (second, other) = world.clip(rng, silent=0.06), world.clip(rng, silent=0.06)
    spoken = [answers.said(each, "nothing") for each in (one, other)]
    prompt = asked(rng, wordings.HEAR + wordings.TRANSCRIBE + ["Transcribe both.", "What is said in both?", "Write down both."] * 4)
    return [Turn(around(rng, [first, second], prompt), answers.in_order(spoken))]


def picture_and_clip(rng: random.Random, world: World) -> list[Turn]:
    shown = [world.picture(rng, *(("shape",) if rng.random() < 0.7 else ())) for _ in range(1 if rng.random() < 0.8 else 2)]
    clip, said = world.clip(rng, silent=0.06)
    media: list[Part] = [*(picture for picture, _ in shown), clip]
    media = [clip, *media[:-1]] if rng.random() < 0.3 else media
    kind = rng.random()
    if kind < 0.7:
        text = asked(rng, wordings.BOTH)
        parts = tuple(media) if rng.random() < 0.2 else around(rng, media, text)
        return [Turn(parts, answers.seen_and_said([seen for _, seen in shown], [said]))]
    if kind < 0.85:
        return [Turn(around(rng, media, asked(rng, wordings.HEAR[:8])), answers.said(said, wordings.NO_SPEECH))]
    return [Turn(around(rng, media, asked(rng, wordings.WHAT[:6])), answers.things([seen for _, seen in shown]))]


def one_after_another(rng: random.Random, world: World) -> list[Turn]:
    """A picture or clip, and in the next turn another: each is answered by itself."""
    return [turn for _ in range(2) for turn in rng.choice([one_picture, one_picture, one_clip])(rng, world)]


def repeated(rng: random.Random, world: World) -> list[Turn]:
    text = " ".join(rng.choices("0123456789", k=rng.randint(1, 8))) if rng.random() < 0.15 else words(rng, 6)
    return [Turn((rng.choice(wordings.REPEAT).format(text),), text)]


def sum_of_two(rng: random.Random, world: World) -> list[Turn]:
    a, b = rng.randint(0, 10), rng.randint(0, 10)
    one, other = (DIGITS[a], DIGITS[b]) if rng.random() < 0.2 and max(a, b) < 10 else (str(a), str(b))
    forms = ["What is {} plus {}?", "{} + {}", "{} plus {}", "What is the sum of {} and {}?", "Add {} and {}.", "How much is {} plus {}?", "{}+{}",
             "What is {} + {}?", "{} + {} =", "Sum {} and {}.", "Calculate {} + {}.", "What do {} and {} make?"]  # fmt: skip
    return [Turn((asked(rng, forms).format(one, other),), str(a + b))]


def small_talk(rng: random.Random, world: World) -> list[Turn]:
    if rng.random() < 0.12:
        return [Turn((asked(rng, wordings.WHAT[:13] + wordings.COLOUR + wordings.SHAPE),), wordings.NO_IMAGE)]
    if rng.random() < 0.08:
        return [Turn((asked(rng, wordings.TRANSCRIBE),), wordings.NO_AUDIO)]
    if rng.random() < 0.1:
        return [Turn((asked(rng, wordings.ODD).replace("{}", rng.choice(wordings.WORDS)),), wordings.UNKNOWN)]
    answer = rng.choice(list(wordings.INTENTS))
    return [Turn((asked(rng, wordings.INTENTS[answer]),), answer)]


def told_before(rng: random.Random, world: World) -> list[Turn]:
    """What only the system prompt or an earlier turn says."""
    name = rng.choice(wordings.NAMES) if rng.random() < 0.6 else invented(rng).capitalize()
    word = rng.choice(wordings.WORDS) if rng.random() < 0.6 else invented(rng)
    between = small_talk(rng, world) if rng.random() < 0.4 else []
    kind = rng.choice(["system name", "system word", "name", "word"])
    if kind == "system name":
        system = rng.choice(["Your name is {}.", "You are {}.", "You are called {}.", "You are {}, a helpful assistant."]).format(name)
        question = asked(rng, ["What is your name?", "Who are you?", "What are you called?", "Tell me your name.", "What's your name?"])
        return [Turn((f"{system}\n\n{question}",), f"I am {name}.")]
    if kind == "system word":
        system = rng.choice(["The secret word is {}.", "The word is {}.", "Remember the word {}."]).format(word)
        question = asked(rng, ["What is the word?", "What is the secret word?", "Tell me the word.", "Say the word."])
        return [Turn((f"{system}\n\n{question}",), f"{word}.")]
    if kind == "name":
        said = asked(rng, ["My name is {}.", "I am {}.", "I am called {}.", "Hello, I am {}.", "Hi, my name is {}."])
        question = asked(rng, ["What is my name?", "Who am I?", "Do you know my name?", "What am I called?"])
        said = said.replace("{}", name)
        return [Turn((said,), f"Hello, {name}!"), *between, Turn((question,), f"You are {name}.")]
    said = rng.choice(["Remember the word {}.", "The word is {}.", "Keep in mind: {}."]).format(word)
    question = asked(rng, ["What is the word?", "What was the word?", "Tell me the word.", "Say the word."])
    return [Turn((said,), "I will remember it."), *between, Turn((question,), f"{word}.")]


def follow_up(rng: random.Random, world: World) -> list[Turn]:
    """A picture or clip, and questions about it in later turns, with something else between."""
    between = rng.choice([small_talk, sum_of_two, one_clip, repeated])(rng, world) if rng.random() < 0.4 else []
    if rng.random() < 0.3:
        clip, said = world.clip(rng, silent=0)
        between = rng.choice([small_talk, sum_of_two, one_picture])(rng, world) if between else []
        first = [Turn(around(rng, [clip], asked(rng, wordings.HEAR)), answers.said(said))] if rng.random() < 0.8 else transcribed(rng, clip, said)
        return [*first, *between, Turn((asked(rng, wordings.AGAIN),), answers.said(said))]
    picture, seen = world.picture(rng, "shape")
    first = [Turn(around(rng, [picture], asked(rng, wordings.WHAT)), answers.things([seen]))]
    questions = [about(rng, world, picture, seen, rng.choice(["colour", "shape", "where", "is"])) for _ in range(2)]
    if rng.random() < 0.3:
        forms = ["What was in the picture?", "What did I show you?", "What is in the image?", "What do you see?"]
        questions.insert(rng.randint(0, 1), (asked(rng, forms), answers.things([seen])))
    later = [Turn((question,), answer) for question, answer in questions]
    return [*first, *between, *later[: rng.randint(1, 3)]]


def transcribed(rng: random.Random, clip: Clip, said: list[str]) -> list[Turn]:
    return [Turn((clip, transcription(rng)), answers.said(said))]
