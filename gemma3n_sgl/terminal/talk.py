"""`gemma3n chat` as a conversation."""

from __future__ import annotations

import readline  # noqa: F401  gives input() line editing and a history
from dataclasses import dataclass, field

from gemma3n_sgl.conversation import Conversation, Image, Part, Turn
from gemma3n_sgl.errors import Gemma3nError, InvalidValue
from gemma3n_sgl.registry import MODEL, Registry
from gemma3n_sgl.terminal.given import file_bytes, value_of
from gemma3n_sgl.terminal.session import Session
from gemma3n_sgl.terminal.showing import say, tell_error

HELP = "/image FILE and /audio FILE go with your next message; /reset forgets the talk, /quit (or Ctrl-D) ends it; Ctrl-C stops an answer."


@dataclass
class Talk:
    """A conversation with a person: what has been said, and what goes with the next message."""

    session: Session
    registry: Registry
    system: str = ""
    attached: list[Part] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)

    def go_on(self) -> None:
        """Ask and answer until the person has had enough."""
        say(HELP, "dim")
        while True:
            try:
                line = input(self._prompt()).strip()
            except EOFError:
                print()
                return
            except KeyboardInterrupt:
                print()
                continue
            if line in ("/quit", "/exit"):
                return
            try:
                self.take(line)
            except Gemma3nError as error:
                tell_error(error)
            except KeyboardInterrupt:
                say("(stopped)", "dim")

    def take(self, line: str) -> None:
        """One line of the person's: a command, or a message that is answered."""
        command, _, rest = line.partition(" ")
        if command in ("/image", "/audio"):
            self.attached.append(attachment(rest.strip().strip("'\""), command[1:]))
        elif command == "/reset":
            self.turns.clear()
            self.attached.clear()
        elif command == "/help":
            say(HELP, "dim")
        elif command.startswith("/") and command.count("/") == 1:
            raise InvalidValue(f"There is no command {command}. {HELP}")
        elif line or self.attached:
            self.ask(line)

    def ask(self, text: str) -> None:
        """Answer a message. What was said before it was stopped or broke off stays; else the attachments wait for the next."""
        asked = Turn("user", (*self.attached, *([text] if text else [])))
        conversation = Conversation((*self.turns, asked), self.system)
        program, options = self.registry.choose(MODEL, conversation)
        said: list[str] = []
        try:
            self.session.answer(program, program.bind(conversation, options), said.append)
        finally:
            if answer := "".join(said).strip():
                self.turns += [asked, Turn("assistant", (answer,))]
                self.attached.clear()

    def _prompt(self) -> str:
        pictures = sum(isinstance(part, Image) for part in self.attached)
        counts = {"picture": pictures, "sound": len(self.attached) - pictures}
        held = ", ".join(f"{count} {kind}{'s' if count > 1 else ''}" for kind, count in counts.items() if count)
        return f"[{held}] > " if held else "> "


def attachment(path: str, kind: str) -> Part:
    """The picture or the sound in a file; MediaError or InvalidValue for anything else."""
    if not path:
        raise InvalidValue(f"Which file? /{kind} FILE")
    value = value_of(file_bytes(path), path)
    if isinstance(value, str) or isinstance(value, Image) != (kind == "image"):
        raise InvalidValue(f"{path} is not {'a picture' if kind == 'image' else 'a sound'}.")
    return value
