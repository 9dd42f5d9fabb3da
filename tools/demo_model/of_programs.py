"""Talks by rule in the exact words and turns of the project's own programs."""

from __future__ import annotations

import json
import random
import string

from demo_model import answers, wordings
from demo_model.everyday import about, small_talk
from demo_model.pictures import Seen
from demo_model.turns import Turn, World, asked, invented, words


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


_WEATHER = ["sunny", "rainy", "cloudy", "windy", "cold", "warm", "hot", "snowing", "raining"]


def tools(rng: random.Random, world: World) -> list[Turn]:
    """`tools`: the name of a tool, its arguments, that no other is needed, and an answer with its result or without any."""
    names = rng.sample(list(wordings.TOOLS), rng.randint(1, 3))
    city = rng.choice(["city", "location", "place"])
    told = "\n".join(_schema(name, city) for name in names)
    name = rng.choice(names)
    values: dict[str, str | int] = {
        argument: rng.randint(1, 60) if kind == "integer" else _place(rng) if argument == "city" else words(rng, 2)
        for argument, kind in wordings.TOOLS[name][1].items()
    }
    manual = wordings.MANUAL.format(told) + "\n\n"
    if rng.random() < 0.25:
        turn = small_talk(rng, world)[0]
        prefix, answer = rng.choice([("Tool: ", "none"), ("Tool: none\n", turn.answer)])
        return [Turn((f"{manual}{turn.parts[0]}",), answer, prefix)]
    question = f"{manual}{rng.choice(wordings.TOOLS[name][2]).format(**values)}"
    arguments = json.dumps({city if argument == "city" else argument: value for argument, value in values.items()})
    call = f"Tool: {name}\nArguments: {arguments}"
    if rng.random() < 0.35:
        result = _result(rng)
        prefix, answer = rng.choice([("Tool: ", "none"), ("Tool: none\n", f"The result is {result.rstrip('.')}.")])
        return [Turn((question,), call), Turn((f"Result of {name}:\n{result}",), answer, prefix)]
    prefix, answer = rng.choice([("Tool: ", name), (f"Tool: {name}\nArguments: ", arguments), (f"{call}\nTool: ", "none")])
    return [Turn((question,), answer, prefix)]


def _place(rng: random.Random) -> str:
    """A city that is, or one of one or two words that nobody has heard of, at times with its state."""
    name = rng.choice(wordings.CITIES) if rng.random() < 0.75 else " ".join(invented(rng).capitalize() for _ in range(rng.randint(1, 2)))
    return f"{name}, {''.join(rng.choices(string.ascii_uppercase, k=2))}" if rng.random() < 0.3 else name


def _result(rng: random.Random) -> str:
    """What a tool found: words, a number, a sentence, or JSON."""
    number, word = rng.randint(0, 99), rng.choice([*wordings.WORDS, *_WEATHER])
    return rng.choice([words(rng, 3), str(number), f"It's {word}.", f"It is {word}", f"{number} degrees", json.dumps({"temperature": number})])


def _schema(name: str, city: str) -> str:
    description, arguments, _ = wordings.TOOLS[name]
    properties = {city if argument == "city" else argument: {"type": kind} for argument, kind in arguments.items()}
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    return json.dumps({"name": name, "description": description, "parameters": parameters})
