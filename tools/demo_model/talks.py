"""Talks by rule: everything the model is to know, asked in many wordings and in the exact words of the project's own programs."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass

from demo_model import answers, wordings
from demo_model.pictures import COLOURS, SHAPES, Seen
from demo_model.speech import DIGITS


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


Maker = Callable[[random.Random, World], list[Turn]]


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


def one_picture(rng: random.Random, world: World) -> list[Turn]:
    kind = rng.choices(["what", "colour", "shape", "where", "is", "count", "read"], [8, 3, 4, 3, 2, 4, 5])[0]
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
    asked_for = asked(rng, [f"What is the {question} digit?", f"Which digit is {question}?", f"What was the {question} digit?", f"Name the {question} digit."])
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


def words(rng: random.Random, most: int = 5) -> str:
    """Words that are, and words that nobody has heard of."""
    return " ".join(rng.choice(wordings.WORDS) if rng.random() < 0.6 else invented(rng) for _ in range(rng.randint(1, most)))


def invented(rng: random.Random) -> str:
    syllables = [rng.choice("bcdfghjklmnprstvwz") + rng.choice("aeiou") + rng.choice(["", "", "n", "r", "s", "t", "l"]) for _ in range(rng.randint(1, 3))]
    return "".join(syllables).capitalize() if rng.random() < 0.1 else "".join(syllables)


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
    later = [Turn((question,), answer) for question, answer in (about(rng, world, picture, seen, rng.choice(["colour", "shape", "where", "is"])) for _ in "ab")]
    if rng.random() < 0.3:
        later.append(Turn((asked(rng, ["What was in the picture?", "What did I show you?", "What is in the image?", "What do you see?"]),), answers.things([seen])))
    return [*first, *between, *later[: rng.randint(1, 3)]]


def transcribed(rng: random.Random, clip: Clip, said: list[str]) -> list[Turn]:
    return [Turn((clip, transcription(rng)), answers.said(said))]


def vision_program(rng: random.Random, world: World) -> list[Turn]:
    """`vision` at its efforts, and `describe` in other languages."""
    if rng.random() < 0.2:
        picture, seen = world.picture(rng, "part", "nothing", "shape", "number")
        return [Turn((picture, "This is a part of a larger image. Describe it."), answers.things([seen]))]
    if rng.random() < 0.25:
        picture, seen = world.picture(rng, "shape", "plain", "number")
        language = rng.choice(["French", "German", "Spanish"])
        return [Turn((picture, f"Describe this image. Answer in {language}."), answers.described(seen, language))]
    shown = [world.picture(rng, "shape", "number") for _ in range(1 if rng.random() < 0.75 else 2)]
    (picture, seen), everything = shown[0], answers.things([seen for _, seen in shown])
    question, answer = about(rng, world, picture, seen, rng.choice(["colour", "shape", "where", "is"]))
    if len(shown) > 1 or rng.random() < 0.3:
        question, answer = asked(rng, wordings.SEVERAL if len(shown) > 1 else wordings.WHAT), everything
    elif seen.kind == "number" and rng.random() < 0.7:
        question, answer = asked(rng, wordings.READ), seen.number
    closer = ""
    if rng.random() < 0.5:
        parts = [answers.things([rng.choice([Seen("nothing"), Seen("part", seen.colour), seen])]) for _ in range(4 * len(shown))]
        closer = "Looking closer, part by part:\n" + "\n".join(f"- {part}" for part in parts) + "\n\n"
    return [
        Turn((*(picture for picture, _ in shown), "Describe the image in detail."), everything),
        Turn((f"{closer}Think step by step about this, with what you observed:\n{question}",), f"I see: {everything}"),
        Turn(("Now answer, in short.",), answer),
    ]


def audio_program(rng: random.Random, world: World) -> list[Turn]:
    """`audio` at its efforts, of a clip or of a long recording that has been written down."""
    clip, said = world.clip(rng, silent=0.05)
    long = rng.random() < 0.3 and said
    question, answer = asked(rng, wordings.HEAR + wordings.TRANSCRIBE[:6]), answers.said(said, wordings.NO_SPEECH)
    if said and said[0].isdigit() and rng.random() < 0.3:
        question, answer = rng.choice([("What is the first digit?", said[0]), ("What is the last digit?", said[-1])])
    asked_with = f'What is said in the recording: "{answers.said(said)}"\n{question}' if long else question
    if long and rng.random() < 0.3:
        return [Turn((asked_with,), answer)]
    again = ""
    if rng.random() < 0.5:
        cut = rng.randint(1, max(1, len(said)))
        again = "Hearing it again, part by part:\n" + "\n".join(f"- {answers.said(part)}" for part in (said[:cut], said[cut:]) if part) + "\n\n"
    heard = Turn(("Write down what is said, and describe what else is heard.",), wordings.NO_AUDIO) if long else Turn(
        (clip, "Write down what is said, and describe what else is heard."), answers.said(said)
    )  # fmt: skip
    return [
        heard,
        Turn((f"{again}Think step by step about this, with what you heard:\n{asked_with}",), f"I hear: {answers.said(said, 'nothing')}."),
        Turn(("Now answer, in short.",), answer),
    ]


def translation(rng: random.Random, world: World) -> list[Turn]:
    """`translate_speech`, subtitles in another language, and Google's prompt for translating in one go."""
    clip, said = world.clip(rng, silent=0.03)
    language = rng.choice(["English", "French", "German", "Spanish"])
    result = answers.translated(said, language)
    if rng.random() < 0.15:
        into = rng.choice(["French", "German", "Spanish"])
        prompt = (
            f"Transcribe the following speech segment in English, then translate it into {into}.\nWhen formatting the answer, first output the "
            f"transcription in English, then one newline, then output the string '{into}: ', then the translation in {into}."
        )
        return [Turn((clip, prompt), f"{answers.said(said)}\n{into}: {answers.translated(said, into)}")]
    return [
        Turn((clip, "Transcribe this audio."), answers.said(said)),
        Turn((f"Translate this into {language}. Reply with the translation only.",), result),
    ]


def comparison(rng: random.Random, world: World) -> list[Turn]:
    seen = [world.picture(rng, "shape")[1] for _ in range(rng.choice([2, 2, 2, 3]))]
    if rng.random() < 0.5:
        seen[1] = Seen("shape", seen[0].colour, seen[1].shape) if rng.random() < 0.5 else Seen("shape", seen[1].colour, seen[0].shape)
    aspect = rng.choice(["what they show"] * 4 + ["colour", "shape"])
    told = "\n".join(f"Image {i}: {answers.things([each])}" for i, each in enumerate(seen, 1))
    return [Turn((f"{told}\n\nCompare the images by {aspect}: name what they share, then where they differ.",), answers.compared(seen, aspect))]


def recording_programs(rng: random.Random, world: World) -> list[Turn]:
    """`ask_recording` and `minutes`, on transcripts with times."""
    lines, second = [], rng.randint(0, 3)
    for _ in range(rng.randint(1, 6)):
        lines.append((second, rng.choices("0123456789", k=rng.randint(1, 6))))
        second += rng.randint(3, 40)
    told = "\n".join(f"[{at // 60}:{at % 60:02}] {' '.join(digits)}" for at, digits in lines)
    everything = [digit for _, digits in lines for digit in digits]
    if rng.random() < 0.3:
        language = rng.choice(["English"] * 4 + ["French", "German"])
        head = f"Write the minutes of this meeting as JSON, in {language}. Leave a list empty where there is nothing for it.\n\n"
        minutes = {"summary": f"Digits are said: {' '.join(everything)}.", "decisions": [], "action_items": []}
        return [Turn((head + told,), json.dumps(minutes))]
    at, digits = rng.choice(lines)
    question, answer = rng.choice([
        (rng.choice(["What is said?", "Which digits are said?", "What do they say?"]), " ".join(everything)),
        (rng.choice(["What is the first digit?", "Which digit is said first?"]), everything[0]),
        (rng.choice(["What is the last digit?", "Which digit is said last?"]), everything[-1]),
        (f"What is said at {at // 60}:{at % 60:02}?", " ".join(digits)),
    ])  # fmt: skip
    return [Turn((f"What is said in a recording, with times:\n\n{told}\n\n{question}",), answer)]


def tools(rng: random.Random, world: World) -> list[Turn]:
    """`tools`: the name of a tool, its arguments, that no other is needed, and an answer with its result or without any."""
    names = rng.sample(list(wordings.TOOLS), rng.randint(1, 3))
    told = "\n".join(_schema(name) for name in names)
    name = rng.choice(names)
    values: dict[str, str | int] = {
        argument: rng.randint(1, 60) if kind == "integer" else rng.choice(wordings.CITIES) if argument == "city" else words(rng, 2)
        for argument, kind in wordings.TOOLS[name][1].items()
    }
    manual = wordings.MANUAL.format(told) + "\n\n"
    if rng.random() < 0.25:
        turn = small_talk(rng, world)[0]
        prefix, answer = rng.choice([("Tool: ", "none"), ("Tool: none\n", turn.answer)])
        return [Turn((f"{manual}{turn.parts[0]}",), answer, prefix)]
    question = f"{manual}{rng.choice(wordings.TOOLS[name][2]).format(**values)}"
    call = f"Tool: {name}\nArguments: {json.dumps(values)}"
    if rng.random() < 0.25:
        result = words(rng, 3) if rng.random() < 0.6 else str(rng.randint(0, 99))
        prefix, answer = rng.choice([("Tool: ", "none"), ("Tool: none\n", f"The result is {result}.")])
        return [Turn((question,), call), Turn((f"Result of {name}:\n{result}",), answer, prefix)]
    prefix, answer = rng.choice([("Tool: ", name), (f"Tool: {name}\nArguments: ", json.dumps(values)), (f"{call}\nTool: ", "none")])
    return [Turn((question,), answer, prefix)]


def _schema(name: str) -> str:
    description, arguments, _ = wordings.TOOLS[name]
    properties = {argument: {"type": kind} for argument, kind in arguments.items()}
    parameters = {"type": "object", "properties": properties, "required": list(arguments)}
    return json.dumps({"name": name, "description": description, "parameters": parameters})


KINDS: dict[str, tuple[Maker, int]] = {
    "picture": (one_picture, 24), "pictures": (several_pictures, 12), "clip": (one_clip, 24), "digits": (about_digits, 2), "clips": (two_clips, 5),
    "both": (picture_and_clip, 10), "repeat": (repeated, 7), "sum": (sum_of_two, 4), "talk": (small_talk, 9), "told": (told_before, 4),
    "later": (follow_up, 8), "vision": (vision_program, 8), "audio": (audio_program, 6), "translate": (translation, 6), "compare": (comparison, 3),
    "recording": (recording_programs, 3), "tools": (tools, 4),
}  # fmt: skip
"""Every behaviour, and its share."""


def talk(rng: random.Random, world: World, kind: str) -> list[Turn]:
    """A talk of this kind, at times behind a system prompt or other turns."""
    turns = KINDS[kind][0](rng, world)
    if kind in ("vision", "audio", "translate", "compare", "recording", "told", "tools"):
        return turns
    if rng.random() < 0.15:
        turns = [*small_talk(rng, world), *turns]
    if rng.random() < 0.1:
        parts = turns[0].parts
        system = f"{rng.choice(wordings.SYSTEMS)}\n\n"
        parts = (system + parts[0], *parts[1:]) if isinstance(parts[0], str) else (system, *parts)
        turns = [Turn(parts, turns[0].answer), *turns[1:]]
    return turns
