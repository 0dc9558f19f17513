"""Make workflows/talking_portrait.json and its picture from the API twin, in ComfyUI's real frontend.

    python -m tests.frontend.make_workflow http://127.0.0.1:8188

The server needs the pack, and portrait.png and speech.wav in its input folder; the graph is run once for the picture.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from tests.comfy_browser import frontend

WORKFLOWS = Path(__file__).parents[2] / "workflows"
NAME = "talking_portrait"
COLUMNS = [[2], [1, 3], [4], [5], [6]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--seconds", type=float, default=300, help="longest time that the run may take")
    arguments = parser.parse_args()
    prompt = json.loads((WORKFLOWS / "api" / f"{NAME}.json").read_text())
    with frontend(arguments.url.rstrip("/")) as page:
        page.load_api(prompt, COLUMNS)
        made, graph = page.serialise()
        if made != prompt:
            sys.stderr.write(f"the frontend changed the workflow:\n{json.dumps(made, indent=1)}\n")
            return 1
        ended = page.run(arguments.seconds)
        problems = page.problems()
        if not ended.startswith("execution_success") or problems:
            sys.stderr.write("\n".join([ended, *problems, ""]))
            return 1
        (WORKFLOWS / f"{NAME}.json").write_text(json.dumps(graph, indent=1) + "\n")
        page.picture(WORKFLOWS / f"{NAME}.jpg")
    return 0


if __name__ == "__main__":
    sys.exit(main())
