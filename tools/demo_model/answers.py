"""What is true of pictures and clips, in the model's words."""

from __future__ import annotations

from demo_model import wordings
from demo_model.pictures import Seen

_COUNTS = ("no", "one", "two", "three", "four")


def thing(seen: Seen) -> str:
    """What a picture shows, within a sentence."""
    if seen.kind == "number":
        return f"the number {seen.number}"
    if seen.kind == "several":
        return f"{_COUNTS[seen.count]} shapes"
    if seen.kind == "nothing":
        return "nothing"
    kind = {"plain": "plain {} image", "part": "part of a {} shape"}.get(seen.kind, f"{{}} {seen.shape}").format(seen.colour)
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


def sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def in_order(parts: list[str]) -> str:
    """First a red circle, then a blue square, then …"""
    return ", then ".join([f"First {parts[0]}", *parts[1:]]) if len(parts) > 1 else parts[0]


def things(seen: list[Seen]) -> str:
    return sentence(in_order([thing(each) for each in seen]))


def shape(seen: Seen) -> str:
    return sentence(seen.shape) if seen.kind == "shape" else "No shape."


def said(words: list[str], nothing: str = "") -> str:
    return " ".join(words) or nothing


def seen_and_said(seen: list[Seen], clips: list[list[str]]) -> str:
    heard = in_order([said(words, "nothing") for words in clips])
    return f"{sentence(in_order([thing(each) for each in seen]))[:-1]}; you said {heard[0].lower() + heard[1:]}."


def translated(words: list[str], language: str) -> str:
    """Digits and known words in another language."""
    if words and words[0].isdigit():
        return " ".join(wordings.NUMBERS[language][int(word)] for word in words)
    return " ".join(words if language == "English" else [wordings.TRANSLATED[language][word] for word in words])


def described(seen: Seen, language: str) -> str:
    """`thing` as a sentence in another language."""
    if seen.kind == "number":
        return {"French": "Le nombre", "German": "Die Zahl", "Spanish": "El número"}[language] + f" {seen.number}."
    word = wordings.TRANSLATED[language]
    colour = word[seen.colour]
    if language == "German":
        noun, ending, article = ("Bild", "es", "ein") if seen.kind == "plain" else _german(seen.shape)
        return sentence(f"{article} {wordings.ENDINGS.get(colour, colour)}{ending} {noun}")
    noun = {"French": "image", "Spanish": "imagen"}[language] if seen.kind == "plain" else word[seen.shape]
    feminine = noun in ("image", "imagen", "étoile", "estrella")
    article = {"French": ("un", "une"), "Spanish": ("un", "una")}[language][feminine]
    return sentence(f"{article} {noun} {wordings.FEMININE[language].get(colour, colour) if feminine else colour}")


def _german(name: str) -> tuple[str, str, str]:
    noun = wordings.TRANSLATED["German"][name]
    return (noun, "er", "ein") if noun in ("Kreis", "Stern") else (noun, "es", "ein")


def compared(seen: list[Seen], aspect: str) -> str:
    """What pictures of shapes share, then where they differ."""
    colours, shapes = [each.colour for each in seen], [each.shape for each in seen]
    by_colour, by_shape = f"in colour: {', '.join(colours)}", f"in shape: {', '.join(shapes)}"
    same_colour, same_shape = len(set(colours)) == 1, len(set(shapes)) == 1
    if "colo" in aspect:
        return f"All are {colours[0]}." if same_colour else f"They differ {by_colour}."
    if "shape" in aspect:
        return f"All are {shapes[0]}s." if same_shape else f"They differ {by_shape}."
    if same_colour and same_shape:
        return f"All are {colours[0]} {shapes[0]}s. They do not differ."
    if same_colour or same_shape:
        return f"All are {colours[0]}. They differ {by_shape}." if same_colour else f"All are {shapes[0]}s. They differ {by_colour}."
    return f"They share nothing. They differ {by_colour}; {by_shape}."
