"""What a notebook shows: sound with a player and its waveform, what was heard as a table, a bar while it is heard. Nothing else is markup."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from listening_engine import wav
from scripted_engine import Reply, ScriptedEngine
from test_recordings import encoded, talk

from gemma3n_sgl import Audio, Done, Recording, Segment, Usage, connect, open_recording
from gemma3n_sgl.errors import MediaError
from gemma3n_sgl.media import Live
from programs.audio import audio
from programs.chat import chat
from programs.transcribe import transcribe

MEDIA = Path(__file__).parent / "media"


class Page(HTMLParser):
    """The tags of some HTML, each with its attributes, and its text."""

    def __init__(self, source: str | None) -> None:
        super().__init__()
        assert source is not None
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def sole(self, tag: str) -> dict[str, str | None]:
        [found] = [attributes for name, attributes in self.tags if name == tag]
        return found

    def played(self) -> tuple[str, bytes]:
        kind, _, data = (self.sole("audio")["src"] or "").partition(";base64,")
        return kind.removeprefix("data:"), base64.b64decode(data)


def test_a_clip_has_a_player_and_a_waveform():
    clip = Audio.from_pcm(talk(2, [(1, 2)]).tobytes())
    page = Page(clip._repr_html_())
    assert page.played() == ("audio/wav", bytes(clip))
    heights = [float(bottom) - float(top) for top, bottom in re.findall(r" ([\d.]+)V([\d.]+)", page.sole("path")["d"] or "")]
    assert len(heights) == 240 and max(heights[:119]) < 1 < 40 < max(heights[121:]), "silence, then sound"


@pytest.mark.parametrize("samples", [np.zeros(0, "<i2"), np.zeros(1, "<i2"), np.full(16_000, -32768, "<i2"), np.zeros(16_000, "<i2")])
def test_silence_a_moment_and_the_loudest_sound_have_a_waveform(samples: np.ndarray):
    drawn = Page(Audio.from_pcm(samples.tobytes())._repr_html_()).sole("path")["d"] or ""
    assert "nan" not in drawn and all(0 <= float(y) <= 48.5 for y in re.findall(r"[ V]([\d.]+)", drawn))


PLAYED = {"314.mp3": "mpeg", "314.ogg": "ogg", "314.opus": "ogg", "314.wav": "wav", "314.m4a": "mp4", "314.webm": "webm", "314.flac": "flac"}


@pytest.mark.parametrize(("name", "kind"), PLAYED.items())
def test_a_small_recording_is_played_as_it_is(name: str, kind: str):
    for source in (MEDIA / name, (MEDIA / name).read_bytes()):
        page = Page(open_recording(source)._repr_html_())
        assert page.played() == (f"audio/{kind}", (MEDIA / name).read_bytes()) and page.sole("svg") and re.search(r", 0:0[12]$", page.text.strip())


@pytest.mark.slow
def test_a_large_one_is_played_in_part_and_says_so(tmp_path: Path):
    """Eleven minutes of WAV are 21 MB; a notebook gets 29 s of them."""
    path = tmp_path / "long.wav"
    path.write_bytes(wav(talk(660, [(1, 600)]).tobytes()))
    shown = open_recording(path)._repr_html_() or ""
    page = Page(shown)
    assert "11:00" in page.text and "the first 10:00 drawn" in page.text and "the first 29 s to play" in page.text
    assert len(page.played()[1]) == 44 + 29 * 32_000 and len(shown) < 1_300_000


def test_what_browsers_dont_play_is_played_as_wav():
    page = Page(open_recording(encoded(talk(10, [(1, 2)]), "pcm_s16be", "aiff"))._repr_html_())
    assert page.played()[0] == "audio/wav" and "to play" not in page.text


@pytest.mark.parametrize("source", [b"sound", MEDIA / "absent.mp3", b""])
def test_what_cant_be_played_is_told_and_named_as_it_is(source: bytes | Path):
    page = Page(Recording(source, "<script>a&b</script>")._repr_html_())
    assert "<script>a&b</script>:" in page.text and {tag for tag, _ in page.tags} == {"b"}


def test_looking_at_a_microphone_takes_nothing_from_it():
    live = Live(pieces=iter([b"\1\0"]))
    assert "microphone" in (live._repr_html_() or "") and next(live.pieces) == b"\1\0"


def test_what_was_heard_is_a_table_in_which_nothing_is_markup():
    segments = (Segment(0, 1.5, "<b onclick=x>one</b>"), Segment(61, 3662, "[…]", "It failed & <hard>."))
    page = Page(Done("one", "stop", Usage(), segments=segments)._repr_html_())
    assert [tag for tag, _ in page.tags].count("tr") == 3 and not {"b", "hard"} & {tag for tag, _ in page.tags}
    assert page.text == "fromtoheard0:000:01<b onclick=x>one</b>1:011:01:02[…] It failed & <hard>."


def test_an_answer_without_segments_shows_itself_as_text():
    assert Done("one", "stop", Usage())._repr_html_() is None


def bars(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err.replace("\r", "\n")


def test_a_bar_fills_while_a_recording_is_heard(scripted: ScriptedEngine, capsys: pytest.CaptureFixture[str]):
    scripted.script = Reply("yes", delay=0.1)
    recording, gemma = open_recording(wav(talk(70).tobytes())), connect(scripted.url)
    done = gemma.run(transcribe, recording=recording, progress=True)
    assert "transcribe:   0%" in (said := bars(capsys)) and "100%" in said and "70/70 s" in said
    assert re.search(r" [1-9]\d?%", said), "on the way too"
    assert gemma.run(transcribe, recording, progress=False).segments == done.segments and not bars(capsys)
    gemma.run(transcribe, recording)
    assert not bars(capsys), "outside of a notebook it is asked for"
    gemma.run(audio, recording, "What?", effort="none", progress=True)
    assert "100%" in bars(capsys), "in a talk too"
    gemma.run(chat, "Hello", progress=True)
    assert not bars(capsys)


def test_what_is_no_sound_is_refused_under_a_bar_too(scripted: ScriptedEngine):
    with pytest.raises(MediaError, match="no sound"):
        connect(scripted.url).run(transcribe, recording=Recording(b"x"), progress=True)
