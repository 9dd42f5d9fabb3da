"""LangChain's suite against SGLang's own server and against ours, over one engine and one model; the table in docs/http.md.

    python tests/conformance/side_by_side.py

takes a quarter of an hour: SGLang's server lets some answers run until the client gives up.
"""

from __future__ import annotations

import datetime
import sys
from collections import Counter, defaultdict
from importlib.metadata import version
from pathlib import Path

import pytest
from langchain_suite import OUT_OF_REACH, SKIPPED

from gemma3n_sgl.engine.choice import SGLANG_VERSION

HERE = Path(__file__).parent
DOCUMENT = HERE.parents[1] / "docs" / "http.md"
BEGIN, END = "<!-- side-by-side -->\n", "<!-- /side-by-side -->"
PEERS = {"TestSGLang": "SGLang's own server", "TestOurs": "this one"}


class Results:
    """What became of each test: peer → test → passed, failed."""

    def __init__(self) -> None:
        self.of: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or (report.when == "setup" and report.failed):
            _, peer, name = report.nodeid.split("::")
            self.of[peer][name.partition("[")[0]][report.outcome] += 1

    def table(self) -> str:
        """What all pass is one row."""
        rows = [("test", *PEERS.values(), ""), ("---", "---", "---", "---")]
        names = [name for name in self.of["TestOurs"] if name not in SKIPPED]
        same = [name for name in names if all(self._full(peer, name) for peer in PEERS)]
        told = [(f"`{name}`", *(self._cell(peer, name) for peer in PEERS), OUT_OF_REACH.get(name, "")) for name in names if name not in same]
        rows += [(f"{len(same)} others", "all pass", "all pass", ""), *told, ("**passed**", *(self._sum(peer, names) for peer in PEERS), "")]
        return "".join(f"| {' | '.join(row)} |\n" for row in rows)

    def _full(self, peer: str, name: str) -> bool:
        return set(self.of[peer][name]) == {"passed"}

    def _cell(self, peer: str, name: str) -> str:
        counts = self.of[peer][name]
        return "passes" if self._full(peer, name) else "fails" if not counts["passed"] else f"{counts['passed']} of {counts.total()}"

    def _sum(self, peer: str, names: list[str]) -> str:
        return f"**{sum(self.of[peer][name]['passed'] for name in names)} of {sum(self.of[peer][name].total() for name in names)}**"


def main() -> int:
    results = Results()
    pytest.main(["-q", "--tb=no", "-m", "", "--timeout=90", str(HERE / "peers.py")], plugins=[results])
    if set(results.of) != set(PEERS):
        return 1
    versions = f"langchain-tests {version('langchain-tests')}, langchain-openai {version('langchain-openai')}, SGLang {SGLANG_VERSION}"
    text = DOCUMENT.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    told = f"{datetime.date.today()}, {versions}, the small model.\n\n{results.table()}"
    DOCUMENT.write_text(f"{before}{BEGIN}{told}{END}{rest.split(END)[1]}", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
