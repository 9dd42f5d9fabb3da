import sglang as sgl

from gemma3n_sgl import Conversation, Tool, any_of, arguments, turns, with_tools, written

MOST_CALLS = 8


@sgl.function
def tools(s, conversation: Conversation, tools: tuple[Tool, ...] = (), tool_choice: str = "auto", parallel_tool_calls: bool = True):
    """Answer, or call tools: the model chooses which (tool_choice: auto, required, or a name), and every call fits its tool's schema."""
    named = tuple(tool for tool in tools if tool.name == tool_choice)
    conversation = written(s, conversation)
    s += turns(with_tools(conversation, tools) if tools else conversation)
    s += sgl.assistant_begin()
    called = 0
    while tools and called < (MOST_CALLS if parallel_tool_calls and not named else 1):
        tool = chosen(s, named or tools, f"_tool_{called}", none=tool_choice == "auto" or called > 0)
        if tool is None:
            break
        s += "\nArguments: " + arguments(f"_arguments_{called}", tool) + "\n"
        called += 1
    if not called:
        s += "\n" + sgl.gen("answer") if tools else sgl.gen("answer")
    s += sgl.assistant_end()


def chosen(s, tools: tuple[Tool, ...], name: str, *, none: bool) -> Tool | None:
    """The tool the model names next."""
    if len(tools) == 1 and not none:
        s += f"Tool: {tools[0].name}"
        return tools[0]
    s += "Tool: " + sgl.gen(name, regex=any_of(tools, none=none), temperature=0)
    return next((tool for tool in tools if tool.name == s[name]), None)
