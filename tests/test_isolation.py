"""A stranger's file may crash its decoder, hang it or eat memory: that request is told, nobody else notices, and nothing is left behind."""

from __future__ import annotations

import asyncio
import base64
import functools
import io
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import psutil
import pytest
from scripted_engine import Reply, ScriptedEngine
from serving import Served, serving, until

from gemma3n_sgl import Conversation, Recording
from gemma3n_sgl.errors import Gemma3nError, MediaError, TooLarge
from gemma3n_sgl.media import Limits, apart, batches, open_image, open_recording, open_sound, playing_time
from gemma3n_sgl.media.limits import Apart
from gemma3n_sgl.settings import Settings

MEDIA = Path(__file__).parent / "media"
PICTURES = sorted(path.name for path in MEDIA.iterdir() if path.suffix in (".png", ".jpg", ".gif", ".webp"))
SOUNDS = sorted(path.name for path in MEDIA.iterdir() if path.suffix not in (".png", ".jpg", ".gif", ".webp", ".json", ".py"))
APART = Limits(apart=Apart())


def family() -> list[psutil.Process]:
    """The process that forks decoders, then the decoders."""
    alive = [child for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE]
    nursery = [child for child in alive if "gemma3n_sgl.media.worker" in " ".join(child.cmdline())]
    return [*nursery, *(worker for process in nursery for worker in process.children())]


def decoders() -> list[psutil.Process]:
    return [process for process in family() if process.ppid() != os.getpid()]


def at_work() -> list[psutil.Process]:
    """Decoders at work; waited for."""
    found: list[psutil.Process] = []
    until(lambda: found.extend(process for process in decoders() if process.status() == psutil.STATUS_RUNNING) or found)
    return found


def struck(number: signal.Signals) -> list[psutil.Process]:
    """The decoders that were at work, and have been sent the signal."""
    found = [process for process in decoders() if process.status() == psutil.STATUS_RUNNING]
    for process in found:
        process.send_signal(number)
    return found


@pytest.fixture(scope="module")
def heavy() -> bytes:
    """A PNG of 24 megapixels of noise, which takes a second to decode."""
    noise = np.random.default_rng(0).integers(0, 2, (1000, 6000, 3), dtype=np.uint8) * 200
    out = io.BytesIO()
    PIL.Image.fromarray(np.tile(noise, (4, 1, 1))).save(out, "PNG", compress_level=1)
    return out.getvalue()


def died(call: Callable[[], Any], what: str = "could not be decoded") -> None:
    """Told as the file's fault, in one sentence and what to do."""
    with pytest.raises(MediaError, match=what) as caught:
        call()
    assert caught.value.message.endswith(("PNG or JPEG.", "WAV or MP3."))


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_the_same_decoded_apart(name: str):
    data = (MEDIA / name).read_bytes()
    assert told(lambda: vars(open_image(data))) == told(lambda: vars(open_image(data, limits=APART)))
    assert told(lambda: bytes(open_image(data))) == told(lambda: bytes(open_image(data, limits=APART)))


@pytest.mark.slow
@pytest.mark.parametrize("name", SOUNDS)
def test_a_sound_is_the_same_decoded_apart(name: str):
    path, data = MEDIA / name, (MEDIA / name).read_bytes()
    assert told(lambda: bytes(as_clip(open_sound(data)))) == told(lambda: bytes(as_clip(open_sound(data, limits=APART))))
    here, elsewhere = (list(batches(open_recording(path, limits=limits))) for limits in (Limits(), APART))
    assert here == elsewhere
    assert playing_time(open_recording(path)) == pytest.approx(playing_time(open_recording(path, limits=APART)))


def as_clip(sound: Any) -> bytes:
    return sound.source if isinstance(sound, Recording) else sound


def told(call: Callable[[], Any]) -> Any:
    """What comes of it, the error too."""
    try:
        return call()
    except Gemma3nError as error:
        return type(error), error.message


def test_what_is_refused_apart_is_refused_in_the_same_words():
    for data in (b"", b"no picture", (MEDIA / "red-circle.png").read_bytes()[:300]):
        assert told(lambda data=data: open_image(data)) == told(lambda data=data: open_image(data, limits=APART))
    small = Limits(max_megapixels=0.001)
    tight = Limits(max_megapixels=0.001, apart=Apart())
    data = (MEDIA / "red-circle.png").read_bytes()
    assert told(lambda: open_image(data, limits=tight)) == told(lambda: open_image(data, limits=small))
    assert told(lambda: open_image(data, limits=tight))[0] is TooLarge


@pytest.mark.slow
def test_a_decoder_that_takes_too_long_is_ended(heavy: bytes):
    died(lambda: open_image(heavy, limits=Limits(apart=Apart(seconds=0.1))), r"takes more than 0\.1 s or 1024 MB")
    until(lambda: not any(process.status() == psutil.STATUS_RUNNING for process in decoders()))
    assert open_image(heavy, limits=APART).width == 1536


@pytest.mark.slow
def test_a_decoder_that_wants_too_much_memory_gets_none_of_ours(heavy: bytes):
    before = psutil.Process().memory_info().rss
    died(lambda: open_image(heavy, limits=Limits(apart=Apart(megabytes=24))))
    assert psutil.Process().memory_info().rss - before < 8e6
    assert open_image(MEDIA / "red-circle.png", limits=APART).width == 300


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL, signal.SIGBUS, signal.SIGSTOP])
def test_a_decoder_that_crashes_or_stops_costs_its_own_picture(heavy: bytes, number: signal.Signals, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(apart, "_LATER", 0.0)
    thread = threading.Thread(target=died, args=[lambda: open_image(heavy, limits=Limits(apart=Apart(seconds=3)))])
    thread.start()
    victims = at_work()
    for process in victims:
        process.send_signal(number)
    small = open_image(MEDIA / "red-circle.png", limits=APART)
    assert small.width == 300, "another meanwhile"
    thread.join()
    for process in victims:
        if process.is_running():
            process.kill()


@pytest.mark.slow
def test_a_decoder_that_died_while_it_had_nothing_to_do_is_not_missed():
    open_image(MEDIA / "red-circle.png", limits=APART)
    nursery, *workers = family()
    for process in [nursery, *workers]:
        with suppress(psutil.NoSuchProcess):  # it has gone with the nursery
            process.kill()
        until(lambda process=process: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE)
        assert open_image(MEDIA / "red-circle.png", limits=APART).width == 300
    assert family()[0].pid != nursery.pid


@pytest.mark.slow
def test_decoders_that_can_not_be_started_are_no_fault_of_the_file(tmp_path: Path):
    code = """
        from pathlib import Path
        from gemma3n_sgl.media import Limits, apart, open_audio, open_image
        from gemma3n_sgl.media.limits import Apart
        apart._BOOT = "import sys; sys.exit(3)"
        for open_it, name in ((open_image, "red-circle.png"), (open_audio, "314.mp3")):
            try:
                open_it(Path(sys.argv[1]) / name, limits=Limits(apart=Apart()))
            except RuntimeError as error:
                print(error)
    """
    line = [sys.executable, "-c", "import sys\n" + textwrap.dedent(code), str(MEDIA)]
    assert subprocess.run(line, capture_output=True, text=True, check=True).stdout.count("has ended") == 2


LEAVES = """
import os, sys, time
from pathlib import Path
import psutil
from gemma3n_sgl.media import Limits, open_image, batches, open_recording
from gemma3n_sgl.media.limits import Apart
assert not psutil.Process().children()
open_image(Path(sys.argv[1]))
list(batches(open_recording(Path(sys.argv[2]))))
assert not psutil.Process().children(), "a notebook has no such processes"
open_image(Path(sys.argv[1]), limits=Limits(apart=Apart()))
heard = batches(open_recording(Path(sys.argv[2]), limits=Limits(apart=Apart())))
next(heard)
print(*(child.pid for child in psutil.Process().children(recursive=True)), flush=True)
os.kill(os.getpid(), int(sys.argv[3])) if sys.argv[3] != "0" else None
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, signal.SIGTERM, signal.SIGKILL])
def test_decoders_end_with_the_process_that_had_them(number: int):
    line = [sys.executable, "-c", LEAVES, str(MEDIA / "red-circle.png"), str(MEDIA / "2min.mp3"), str(int(number))]
    done = subprocess.run(line, stdout=subprocess.PIPE, text=True)
    assert done.returncode == -number
    pids = [int(pid) for pid in done.stdout.split()]
    assert len(pids) >= 2
    until(lambda: not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in pids))


def test_a_decoder_knows_nothing_of_the_server_and_writes_nothing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GEMMA3N_API_KEYS", "secret-key")
    monkeypatch.setattr(apart, "_nursery", functools.cache(lambda pid: apart._Nursery()))
    open_image(MEDIA / "red-circle.png", limits=APART)
    nursery = next(process for process in family() if process.pid == apart._nursery(os.getpid())._process.pid)
    [worker] = nursery.children()
    assert set(nursery.environ()) <= {"LANG", "LD_LIBRARY_PATH", "OPENBLAS_NUM_THREADS", "PATH", "TMPDIR"}
    assert worker.rlimit(psutil.RLIMIT_FSIZE) == (0, 0) and worker.rlimit(psutil.RLIMIT_CORE) == (0, 0)
    assert worker.rlimit(psutil.RLIMIT_AS)[0] < 3e9
    assert not [link for link in (os.readlink(f"/proc/{worker.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{worker.pid}/fd")) if "inet" in link]


@pytest.fixture
def house() -> Iterator[tuple[ScriptedEngine, Served]]:
    engine = ScriptedEngine(Reply("Hello there.")).start()
    with serving(Settings(runtime_url=engine.url)) as served:
        yield engine, served
    engine.stop()


def picture(data: bytes) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{base64.b64encode(data).decode()}"}}


@pytest.mark.slow
def test_a_picture_that_crashes_its_decoder_is_named_and_the_requests_beside_it_do_not_notice(house, monkeypatch: pytest.MonkeyPatch):
    """With the signal a decoder dies of, sent while it is at work."""
    _, served = house
    small = picture((MEDIA / "red-circle.png").read_bytes())
    noise = np.random.default_rng(0).integers(0, 255, (2400, 2400, 3), dtype=np.uint8)
    out = io.BytesIO()
    PIL.Image.fromarray(noise).save(out, "PNG", compress_level=1)
    crashing = picture(out.getvalue())
    served.ask([small])
    for _ in range(20):  # it may be decoded before its decoder is seen at work
        with ThreadPoolExecutor(1) as beside:
            asking = beside.submit(served.ask, [{"type": "text", "text": "What?"}, crashing])
            until(lambda asking=asking: asking.done() or struck(signal.SIGSEGV))
            assert {served.ask([small]).status_code for _ in range(5)} == {200}
        if (answer := asking.result()).status_code != 200:
            break
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "invalid_media"
    assert answer.json()["error"]["param"] == "messages[0].content[1]"
    assert served.http.get("/health").status_code == 200


@pytest.mark.slow
def test_a_recording_whose_decoder_crashes_in_the_middle_ends_and_another_goes_on(house):
    engine, served = house
    crashed = threading.Event()
    engine.script = lambda prompt: Reply("Words.", held=crashed if len(engine.requests) > 20 else None)
    hour = (MEDIA / "2min.mp3").read_bytes() * 30

    def hear(data: bytes) -> Any:
        return served.http.post("/v1/audio/transcriptions", data={"model": "gemma-3n", "stream": "true"}, files={"file": ("a.mp3", data)}, timeout=60)

    told: list[Any] = []
    hearing = threading.Thread(target=lambda: told.append(hear(hour)))
    hearing.start()
    until(lambda: len(engine.requests) > 20)
    for process in decoders():
        process.send_signal(signal.SIGSEGV)
    crashed.set()
    assert hear((MEDIA / "20s.mp3").read_bytes()).status_code == 200
    hearing.join()
    assert '"code":"invalid_media"' in told[0].text
    assert "transcript.text.done" not in told[0].text


@pytest.mark.slow
def test_a_recording_that_nobody_hears_to_its_end_keeps_no_decoder():
    hour = open_recording((MEDIA / "2min.mp3").read_bytes() * 30, limits=APART)
    heard = [batches(hour) for _ in range(8)]
    for each in heard:
        next(each)
    until(lambda: len(family()) > 8)
    del heard, each
    until(lambda: len(family()) <= 1 + apart._SPARE)


@pytest.mark.slow
def test_what_it_costs(heavy: bytes):
    """A small picture at most 2 ms more; a photograph of 24 megapixels no more than 1.3 times what Pillow takes alone."""
    small = (MEDIA / "blue-square.jpg").read_bytes()
    photo = io.BytesIO()
    PIL.Image.open(io.BytesIO(heavy)).resize((6000, 4000)).save(photo, "JPEG", quality=80)

    def pillow() -> None:
        image = PIL.Image.open(io.BytesIO(photo.getvalue()))
        image.draft(None, (1536, 1024))
        image.resize((1536, 1024), PIL.Image.Resampling.LANCZOS, reducing_gap=3).save(io.BytesIO(), "JPEG", quality=92, subsampling=0)

    def best(call: Callable[[], Any], times: int) -> float:
        def once() -> float:
            began = time.perf_counter()
            call()
            return time.perf_counter() - began

        return min(once() for _ in range(times))

    def costs() -> bool:
        more = best(lambda: open_image(small, limits=APART), 50) - best(lambda: open_image(small), 50)
        ratio = best(lambda: open_image(photo.getvalue(), limits=APART), 7) / best(pillow, 7)
        return more < 0.002 and ratio < 1.3

    assert any(costs() for _ in range(5)), "of five tries on a machine that may be busy"


def test_a_conversation_of_strangers_pictures_runs_a_program_with_them(house):
    _, served = house
    assert Conversation.of(open_image(MEDIA / "red-circle.png", limits=APART))
    names = [name for name in PICTURES if name != "cut-off.png"]
    assert asyncio.run(many(served, [(MEDIA / name).read_bytes() for name in names])) == [200] * len(names)


async def many(served: Served, files: list[bytes]) -> list[int]:
    answers = await asyncio.gather(*(asyncio.to_thread(served.ask, [picture(data)]) for data in files))
    return [answer.status_code for answer in answers]


def test_decoders_that_take_long_to_be_loaded_take_nothing_of_a_files_own_time():
    code = """
        from pathlib import Path
        from gemma3n_sgl.media import Limits, apart, open_image
        from gemma3n_sgl.media.limits import Apart
        apart._LATER, apart._BOOT = 0.0, "import time; time.sleep(2)\\n" + apart._BOOT
        print(open_image(Path(sys.argv[1]) / "red-circle.png", limits=Limits(apart=Apart(seconds=1))).width)
    """
    line = [sys.executable, "-c", "import sys\n" + textwrap.dedent(code), str(MEDIA)]
    assert int(subprocess.run(line, capture_output=True, text=True, check=True).stdout) > 0
