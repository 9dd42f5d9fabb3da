"""`Gemma3nEndpoint`: SGLang's `RuntimeEndpoint` with several pictures and clips, pooled transport, deadlines, and errors that arrive.

It serves two callers. Stock programs, `program.run(…, backend=endpoint)`, go through `generate`, `generate_stream`, `select` and `fork` from
SGLang's worker threads, which swallow exceptions; so an error is kept here and raised by `end_program`, in the caller's thread. Programs run by
`gemma3n_sgl.running` use `payload` and `client` directly and raise where they stand.
"""

from __future__ import annotations

import copy
import gc
import json
import math
import sys
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from sglang.lang.backend.base_backend import BaseBackend
from sglang.lang.backend.runtime_endpoint import RuntimeEndpoint
from sglang.lang.chat_template import ChatTemplate
from sglang.lang.choices import ChoicesDecision
from sglang.lang.interpreter import StreamExecutor
from sglang.lang.ir import SglSamplingParams

from gemma3n_sgl.bridge import wait
from gemma3n_sgl.conversation import MAX_CLIP_SECONDS, Audio, Image
from gemma3n_sgl.engines import client_of
from gemma3n_sgl.errors import EngineError, InvalidValue, ProgramError
from gemma3n_sgl.forms import Constraint, json_schema
from gemma3n_sgl.holdback import neutralise
from gemma3n_sgl.language import AUDIO_TOKEN, IMAGE_TOKEN, TEMPLATE
from gemma3n_sgl.refusals import NONSENSE
from gemma3n_sgl.relay import relay
from gemma3n_sgl.transport import Deadlines

T = TypeVar("T")

LENGTH_STEP = 2.5
"""Seconds: clips are filled up with silence to a multiple of it, so that many have one length and are encoded together."""

INFO_TIMEOUT = 5.0
"""Seconds the engine may take to say what it serves; it never generates for that."""


class Gemma3nEndpoint(RuntimeEndpoint):
    """An engine that serves Gemma 3n, at `base_url`, or several of them, separated by commas. Making one asks nothing of the network, so the
    engine may still be starting."""

    def __init__(self, base_url: str, api_key: str = "", *, deadlines: Deadlines | None = None, shared: bool = False) -> None:
        """`shared`: others of us, in processes of their own, send clips to the same engine; so all of them have one length, the longest."""
        BaseBackend.__init__(self)  # RuntimeEndpoint's own asks the engine for its model, which fails while that is loading
        self.base_url = base_url.rstrip("/")
        self.api_key = api_key or None
        self.verify = None
        self.support_concate_and_append = False  # the engine has no such route; SGLang then joins the texts
        self.chat_template: ChatTemplate = TEMPLATE
        self.client = client_of(base_url, api_key, deadlines)
        self._length_step = MAX_CLIP_SECONDS if shared else LENGTH_STEP
        self._preferred: dict[str, Any] | None = None
        self._deterministic: bool | None = None
        self._failed: dict[int, tuple[Any, Exception]] = {}  # by the identity of a run's arguments, which its forks share

    # What the engine is

    async def describe(self) -> dict[str, Any]:
        """What the engine serves, asked now: `served_model_name`, `preferred_sampling_params`, … Costs no generation."""
        return await self._told("model_info") or {}

    async def _told(self, page: str) -> Any:
        """One of the pages on which an engine tells of itself; before SGLang 0.5.5 their names begin with `get_`."""
        try:
            return await self.client.get(f"/{page}", timeout=INFO_TIMEOUT)
        except EngineError as error:
            if type(error) is not EngineError:
                raise
            return await self.client.get(f"/get_{page}", timeout=INFO_TIMEOUT)

    async def preferred_sampling(self) -> dict[str, Any]:
        """The sampling the engine was started to prefer (`--preferred-sampling-params`), asked once; {} where it says nothing."""
        if self._preferred is None:
            info = await self.describe()
            preferred = info.get("preferred_sampling_params")
            self._preferred = preferred if isinstance(preferred, dict) else {}
        return self._preferred

    async def is_deterministic(self) -> bool:
        """Whether the engine was started with `--enable-deterministic-inference`, asked once.

        SGLang 0.5.23 then gives every request without a seed the same one, and dies of `min_p` (layers/sampler.py:826).
        """
        if self._deterministic is None:
            info = await self._told("server_info")
            self._deterministic = isinstance(info, dict) and info.get("enable_deterministic_inference") is True
        return self._deterministic

    @property
    def model_info(self) -> dict[str, Any]:
        return wait(self.describe())

    def get_model_name(self) -> str:
        """The name the engine serves its model by; never its path."""
        return served_name(self.model_info)

    def get_server_info(self) -> Any:
        return wait(self.client.get("/server_info", timeout=INFO_TIMEOUT))

    def flush_cache(self) -> None:
        wait(self.client.post("/flush_cache", {}))

    def shutdown(self) -> None:
        wait(self.client.aclose())

    # What every call sends

    def payload(self, s: StreamExecutor, sampling: dict[str, Any]) -> dict[str, Any]:
        """The body of one `/generate` call for the prompt that `s` holds."""
        if schema := sampling.pop("json_schema", None):
            sampling |= _bounded(schema, sampling.get("max_new_tokens")).params()
        data: dict[str, Any] = {"text": s.text_, "sampling_params": sampling}
        self._add_images(s, data)
        return data

    def _add_images(self, s: StreamExecutor, data: dict[str, Any]) -> None:
        """Sort the prompt's media into `image_data` and `audio_data`, as data URIs: anything else the engine would open as a file.

        The clips of one request get one length; unequal ones make SGLang 0.5.23 compute NaN, which kills it or spoils its cache. Those of
        other requests at the same moment must have it too: `gemma3n_sgl.lengths`.
        """
        if "text" not in data:
            return
        media = [path for path, _ in s.images_]
        if not all(isinstance(item, Image | Audio) for item in media):
            raise ProgramError("Pictures and sound go into a prompt with image() and audio() of gemma3n_sgl, not with sgl.image().")
        pictures = [item for item in media if isinstance(item, Image)]
        sounds = [item for item in media if isinstance(item, Audio)]
        if s.text_.count(IMAGE_TOKEN) != len(pictures) or s.text_.count(AUDIO_TOKEN) != len(sounds):
            raise ProgramError("The prompt has not one place for each picture and sound. Use user() and turns() of gemma3n_sgl to put them in.")
        several = isinstance(data["text"], list)
        if pictures:
            uris = [picture.data_uri for picture in pictures]
            data["image_data"] = [uris] * len(data["text"]) if several else uris
        if sounds:
            uris = [clip.data_uri for clip in _of_one_length(sounds, self._length_step)]
            data["audio_data"] = [uris] * len(data["text"]) if several else uris

    def _generate_http_request(self, s: StreamExecutor, data: dict[str, Any]) -> Any:
        self._add_images(s, data)
        answers = wait(self.client.prefill(data))
        if isinstance(s, CountingExecutor):
            for answer in answers:
                s.count(None, answer["meta_info"])
        return answers[0] if isinstance(data.get("text"), str) else answers

    # Stock programs

    def generate(self, s: StreamExecutor, sampling_params: SglSamplingParams) -> tuple[Any, dict[str, Any]]:
        if sampling_params.n > 1:
            nothing: tuple[list[str], dict[str, Any]] = ([""], {})
            return self._guarded(s, nothing, lambda: self._generate_several(s, sampling_params))
        chunks = list(self.generate_stream(s, sampling_params))
        return "".join([text for text, _ in chunks]), chunks[-1][1] if chunks else {}

    def generate_stream(self, s: StreamExecutor, sampling_params: SglSamplingParams) -> Iterator[tuple[str, dict[str, Any]]]:
        if self._failure(s):
            return
        try:
            data = self._stock_payload(s, sampling_params)
            stop = data["sampling_params"].get("stop") or ()
            stops = (stop,) if isinstance(stop, str) else tuple(stop)
            data["sampling_params"]["no_stop_trim"] = bool(stops)  # the engine trims its last event alone, when half of one may be told
            yield from relay(self.client, data, stops)
        except Exception as error:
            self._fail(s, error)

    def select(self, s: StreamExecutor, choices: list[str], temperature: float, choices_method: Any) -> ChoicesDecision:
        def choose() -> ChoicesDecision:
            try:
                return super(Gemma3nEndpoint, self).select(s, choices, temperature, choices_method)
            except (ArithmeticError, KeyError, IndexError, TypeError):
                raise EngineError(NONSENSE) from None

        return self._guarded(s, ChoicesDecision(decision="", meta_info={}), choose)

    def commit_lazy_operations(self, s: StreamExecutor) -> None:
        """Prefill what forks are about to share."""
        self._guarded(s, None, lambda: wait(self.client.prefill(self.payload(s, {"max_new_tokens": 0}))))

    fill_image = commit_lazy_operations

    def cache_prefix(self, prefix_str: str) -> None:
        wait(self.client.prefill({"text": prefix_str, "sampling_params": {"max_new_tokens": 0}}))

    def end_program(self, s: StreamExecutor) -> None:
        """Where a stock run ends, in the caller's thread: raise what failed in the run or in its forks.

        Where a fork is joined nothing is raised: SGLang would not end the other forks, whose threads then keep the process from ending.
        """
        if vars(s).get("ended_"):
            return
        s.ended_ = True
        try:
            if s.fork_start_text_pos is None:
                self._end_run(s)
        finally:
            s.use_thread = False  # else SGLang's __del__ asks after its thread, maybe from within a garbage collection, where that can deadlock

    def _end_run(self, s: StreamExecutor) -> None:
        raising = sys.exc_info()[1]
        try:
            if isinstance(raising, Exception):
                self._fail(s, raising)  # the program's body failed: what is still queued need not run
                _end_forks(s)
            s.sync()
            _, error = self._failed.pop(id(s.arguments), (None, None))
            if error is None:
                return
            s.error_ = copy.copy(error)  # without its traceback, whose frames hold `s`: no cycle keeps the run in memory
            if error is not raising:
                raise error
        finally:
            raising = error = None

    def _stock_payload(self, s: StreamExecutor, params: SglSamplingParams) -> dict[str, Any]:
        self._handle_dtype_to_regex(params)
        data = self.payload(s, params.to_srt_kwargs())
        for name in ("return_logprob", "logprob_start_len", "top_logprobs_num", "return_text_in_logprobs"):
            value = getattr(params, name)
            if value is not None and value != (None,):  # SGLang before 0.5.15 has (None,) as their default
                data[name] = value
        return data

    def _generate_several(self, s: StreamExecutor, params: SglSamplingParams) -> tuple[list[str], dict[str, Any]]:
        data = self._stock_payload(s, params)
        for kind in ("image_data", "audio_data"):
            if kind in data:
                data[kind] = [data[kind]]
        answers = wait(self.client.post("/generate", data))
        return [neutralise(answer["text"]) for answer in answers], answers[0]["meta_info"]

    def _guarded(self, s: StreamExecutor, instead: T, call: Callable[[], T]) -> T:
        if isinstance(s, CountingExecutor):
            return call()
        if self._failure(s):
            return instead
        try:
            return call()
        except Exception as error:
            self._fail(s, error)
            return instead

    def _failure(self, s: StreamExecutor) -> Exception | None:
        return self._failed.get(id(s.arguments), (None, None))[1]

    def _fail(self, s: StreamExecutor, error: Exception) -> None:
        self._failed.setdefault(id(s.arguments), (s.arguments, error))


class CountingExecutor(StreamExecutor):
    """An executor that raises errors where they happen and wants to know what each engine call cost."""

    def count(self, name: str | None, meta: dict[str, Any]) -> None:
        """Called with the last `meta_info` of every engine call; `name` is the variable it was for, if any."""
        raise TypeError(f"{type(self).__name__} does not count")


def _end_forks(s: StreamExecutor) -> None:
    """End the threads of forks that a failed body left unjoined: they would keep the process from ending.

    SGLang keeps no list of forks; what they share with the first executor is the object that holds the run's arguments.
    """
    for holder in gc.get_referrers(s.arguments):
        state = holder if isinstance(holder, dict) else vars(holder) if isinstance(holder, StreamExecutor) else {}
        if state.get("arguments") is s.arguments and state.get("fork_start_text_pos") is not None:
            state["queue"].put(None)
            state["use_thread"] = False


def served_name(info: dict[str, Any]) -> str:
    """The engine's model name from its `model_info`, "" where it was given none: without one the engine would publish a path."""
    name = info.get("served_model_name") or ""
    return "" if name == info.get("model_path") else str(name)


def _bounded(schema: str, tokens: int | None) -> Constraint:
    """A program's own JSON schema as a grammar in which every answer ends."""
    try:
        return json_schema(json.loads(schema), tokens=tokens)
    except ValueError:
        raise ProgramError("The program's `json_schema` is not JSON. Give it the schema as JSON text.") from None
    except InvalidValue as error:
        raise ProgramError(error.message) from None


def _of_one_length(clips: list[Audio], step: float) -> list[Audio]:
    longest = max(clip.seconds for clip in clips)
    if longest > MAX_CLIP_SECONDS:
        raise ProgramError(f"A clip of {longest:.1f} s is longer than the engine can take ({MAX_CLIP_SECONDS} s). Use hear() for it.")
    common = min(math.ceil(longest / step) * step, MAX_CLIP_SECONDS)
    return [clip if clip.seconds == common else clip.padded(common) for clip in clips]

