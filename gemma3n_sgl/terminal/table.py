"""`gemma3n programs`: what there is, as a table or as JSON."""

from __future__ import annotations

from rich.table import Table

from gemma3n_sgl.program import Program
from gemma3n_sgl.registry import MODEL, Registry
from gemma3n_sgl.terminal.showing import console, print_json, say


def show_programs(registry: Registry, *, as_json: bool = False) -> None:
    """Print the programs, and the files that hold none that can be run."""
    if as_json:
        problems = [{"file": str(problem.file), "line": problem.line, "message": problem.message} for problem in registry.problems]
        print_json({"programs": [described(program) for program in registry.programs.values()], "problems": problems})
        return
    table = Table("NAME", "TAKES", "OPTIONS", "WHAT IT DOES", box=None, pad_edge=False)
    for program in registry.programs.values():
        table.add_row(program.name, ", ".join(program.input_kinds), options_in_short(program), program.summary)
    console().print(table)
    for problem in registry.problems:
        say(f"left out: {problem}", "yellow")


def described(program: Program) -> dict[str, object]:
    """All there is to say about a program, for machines."""
    return {
        "name": program.name,
        "model": f"{MODEL}:{program.name}",
        "description": program.description,
        "input_kinds": list(program.input_kinds),
        "options": program.schema(),
    }


def options_in_short(program: Program) -> str:
    """The options with their defaults: `effort=low`."""
    fields = program.options.model_fields.items()
    return ", ".join(f"{name}={field.get_default(call_default_factory=True)}" for name, field in fields)
