"""Plays an engine as a real process: `fake_engine.py PLAY … --port PORT …`. Also has a helper that left its session, as a daemon would.

It serves until it is ended, answers requests too (`answer`), dies soon after (`short`) or at once (`die`, `killed`, `crash`), or gets never
ready (`hang`).
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

HELPER = [sys.executable, "-c", "import time; time.sleep(600)"]


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        info = {"model_path": "/secret", "served_model_name": "fake"} if self.path == "/model_info" else {}
        body = json.dumps(info).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main(play: str, port: int) -> None:
    for number in range(30):
        print(f"line {number}", flush=True)
    subprocess.Popen(HELPER, start_new_session=True)
    if play == "die":
        print("ValueError: no such weights", flush=True)
        sys.exit(3)
    if play == "crash":
        print("[2026-11-24 01:00:51] Subprocess scheduler_0 (pid=1) crashed with exit code -11. Triggering SIGQUIT for cleanup...", flush=True)
    if play in ("killed", "crash"):
        os.kill(os.getpid(), signal.SIGKILL)
    if play == "hang":
        time.sleep(600)
    if play == "short":
        threading.Timer(0.3, lambda: os._exit(4)).start()
    if play == "answer":
        sys.path.insert(0, str(Path(__file__).parent.parent))
        ScriptedEngine = importlib.import_module("scripted_engine").ScriptedEngine
        ScriptedEngine(port=port).start()
        time.sleep(600)
    HTTPServer(("127.0.0.1", port), Handler).serve_forever()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[sys.argv.index("--port") + 1]))
