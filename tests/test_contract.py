"""Every private fact of SGLang's frontend that this project leans on, by name. Run under the pinned frontend and under the newest one:
what fails here after an upgrade says which of our lines to look at.
"""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import sglang as sgl
from sglang.lang import interpreter, ir
from sglang.lang.backend.base_backend import BaseBackend
from sglang.lang.backend.runtime_endpoint import RuntimeEndpoint
from sglang.lang.chat_template import ChatTemplate
from sglang.lang.choices import ChoicesDecision
from sglang.lang.interpreter import ProgramState, ProgramStateGroup, StreamExecutor

from gemma3n_sgl import Gemma3nEndpoint, Image
from gemma3n_sgl.language import TEMPLATE


def parameters(function: Any) -> list[str]:
    return list(inspect.signature(function).parameters)


def source(function: Any) -> str:
    return inspect.getsource(function)


def executor(**changes: Any) -> StreamExecutor:
    return StreamExecutor(Gemma3nEndpoint("http://127.0.0.1:9"), {}, ir.SglSamplingParams(), None, False, use_thread=False, **changes)


def test_the_executor_is_made_the_way_ours_calls_it():
    assert parameters(StreamExecutor.__init__)[1:8] == [
        "backend", "arguments", "default_sampling_para", "chat_template", "stream", "num_api_spec_tokens", "use_thread",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "name",
    ["variables", "variable_event", "meta_info", "text_", "messages_", "cur_role", "cur_role_begin_pos", "images_", "cur_images",
     "fork_start_text_pos", "error_", "arguments", "backend", "chat_template", "default_sampling_para", "stream_var_event"],
)  # fmt: skip
def test_the_executor_keeps_its_state_under_these_names(name: str):
    assert name in vars(executor())


@pytest.mark.parametrize(
    ("method", "expected"),
    [("submit", ["expr"]), ("sync", []), ("get_var", ["name"]), ("set_var", ["name", "value"]), ("get_meta_info", ["name", "timeout"]),
     ("fork", ["size", "position_ids_offset"]), ("end", []), ("_execute", ["other"]), ("_execute_gen", ["expr"]), ("_execute_select", ["expr"]),
     ("_init_var_event", ["expr"]), ("_resolve_sampling_params", ["sampling_params"])],
)  # fmt: skip
def test_the_methods_of_the_executor_that_ours_replaces_or_calls(method: str, expected: list[str]):
    assert parameters(getattr(StreamExecutor, method))[1:] == expected


def test_values_of_variables_come_through_get_var_and_forks_through_fork():
    assert "self.stream_executor.get_var(name)" in source(ProgramState.get_var)
    assert "self.stream_executor.fork(" in source(ProgramState.fork)
    assert "self.stream_executor.submit(other)" in source(ProgramState.__iadd__)


def test_joining_syncs_each_fork_then_gathers_its_variables_then_ends_it():
    text = source(ProgramStateGroup.join)
    assert text.index("child_state.stream_executor.sync()") < text.index("src_vars[k] = [child_vars[k]]") < text.index("s.stream_executor.end()")


def test_a_fork_is_told_from_the_first_executor_by_where_its_text_begins():
    assert executor().fork_start_text_pos is None
    assert "fork_start_text_pos = len(self.text_)" in source(StreamExecutor.fork)


def test_a_run_and_its_forks_share_one_arguments_object():
    assert "self.arguments," in source(StreamExecutor.fork)


def test_a_stock_run_ends_in_end_program_in_the_callers_thread():
    assert "state.stream_executor.end()" in source(interpreter.run_internal)
    assert "self.backend.end_program(self)" in source(StreamExecutor.end)


def test_a_runs_backend_is_swapped_for_its_endpoint_attribute_so_ours_has_none():
    assert 'hasattr(backend, "endpoint")' in source(interpreter.run_program)
    assert not hasattr(Gemma3nEndpoint("http://127.0.0.1:9"), "endpoint")


@pytest.mark.parametrize(
    ("method", "expected"),
    [("generate", ["s", "sampling_params"]), ("generate_stream", ["s", "sampling_params"]), ("_add_images", ["s", "data"]),
     ("select", ["s", "choices", "temperature", "choices_method"]), ("commit_lazy_operations", ["s"]), ("fill_image", ["s"]),
     ("_generate_http_request", ["s", "data"]), ("_handle_dtype_to_regex", ["sampling_params"]), ("cache_prefix", ["prefix_str"])],
)  # fmt: skip
def test_the_methods_of_the_endpoint_that_ours_replaces_or_calls(method: str, expected: list[str]):
    assert parameters(getattr(RuntimeEndpoint, method))[1:] == expected


def test_everything_of_the_endpoint_that_asks_the_network_is_replaced():
    asking = {name for name, member in vars(RuntimeEndpoint).items() if callable(member) and "http_request(" in source(member)}
    replaced = set(vars(Gemma3nEndpoint))
    left = asking - replaced - {"select"}  # select asks through _generate_http_request, which is ours
    assert left <= {"start_profile", "stop_profile", "concatenate_and_append"}, "no timeout, no pool: they need their own here"


def test_choosing_asks_through_the_request_method_that_ours_replaces():
    text = source(RuntimeEndpoint.select)
    assert text.count("self._generate_http_request(s, data)") == 3
    assert "http_request(" not in text.replace("_generate_http_request(", "")
    assert ChoicesDecision(decision="a", meta_info={}).decision == "a"


def test_the_base_backend_needs_nothing_to_be_made():
    assert parameters(BaseBackend.__init__) == ["self"]


def test_pictures_pass_through_as_the_bytes_they_are():
    picture = Image(b"\x89PNG", width=1, height=1, media_type="image/png")
    made = executor()
    made.submit(sgl.image(picture))
    [(kept, encoded)] = made.images_
    assert kept is picture
    assert isinstance(encoded, str)
    assert made.text_ == "", "no token of the template's own is written"


def test_a_template_is_asked_for_prefix_and_suffix_with_the_messages_so_far():
    assert parameters(ChatTemplate.get_prefix_and_suffix)[1:] == ["role", "hist_messages"]
    assert TEMPLATE.default_system_prompt is None
    assert TEMPLATE.stop_str == (), "SGLang adds them to a call's own list on every run"


@pytest.mark.parametrize(
    "name",
    ["max_new_tokens", "stop", "stop_token_ids", "temperature", "top_p", "top_k", "min_p", "frequency_penalty", "presence_penalty", "n",
     "return_logprob", "logprob_start_len", "top_logprobs_num", "return_text_in_logprobs", "dtype", "regex", "json_schema"],
)  # fmt: skip
def test_sampling_parameters_have_these_names(name: str):
    assert hasattr(ir.SglSamplingParams(), name)


def test_sampling_parameters_become_the_engines():
    params = ir.SglSamplingParams(max_new_tokens=None, stop=["a"], regex="b").to_srt_kwargs()
    assert (params["max_new_tokens"], params["stop"], params["regex"]) == (None, ["a"], "b")


def test_a_gen_without_a_value_leaves_the_runs_own():
    made = executor()
    made.default_sampling_para = ir.SglSamplingParams(temperature=0.3, top_k=5, stop=[])
    params = made._resolve_sampling_params(sgl.gen("x", temperature=0).sampling_params)
    assert (params.temperature, params.top_k) == (0, 5)


@pytest.mark.parametrize("kind", ["SglConstantText", "SglExpr", "SglExprList", "SglGen", "SglImage", "SglRoleBegin", "SglRoleEnd", "SglSelect",
                                  "SglVarScopeBegin", "SglSeparateReasoning", "SglFunction"])  # fmt: skip
def test_expressions_have_these_kinds(kind: str):
    assert hasattr(ir, kind)


def test_a_list_of_expressions_holds_them_and_roles_frame_them():
    assert [type(part).__name__ for part in sgl.user("x").expr_list] == ["SglRoleBegin", "str", "SglRoleEnd"]
    assert ir.SglConstantText("x").value == "x"


def test_a_program_keeps_its_function_and_what_was_bound():
    @sgl.function
    def program(s, a, b=1):
        """Doc."""

    assert (program.func.__name__, program.func.__doc__, program.bind(a=2).bind_arguments) == ("program", "Doc.", {"a": 2})
    assert parameters(program.func) == ["s", "a", "b"]
