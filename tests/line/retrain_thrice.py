"""Runs in a clone: the flow `retrain` three times on three versions of one source, in one process, as one server sees it.

`python -m tests.line.retrain_thrice SOURCE VERSION... OVERRIDES`: the label files of each folder VERSION take the place of the
source's. A line at the end is the states of the runs as JSON.
"""

import json
import shutil
import sys
from pathlib import Path

from flows.command import as_command
from flows.retrain import retrain


def main(source: Path, versions: list[Path], words: list[str]) -> int:
    """One run per version."""
    states = []

    def job() -> int:
        for version in versions:
            for file in version.glob("*.json"):
                shutil.copy(file, source)
            state = retrain(words, why="test", return_state=True)
            states.append({"type": state.type.value, "name": state.name, "message": state.message})
        return 0

    code = as_command(lambda: None, job)
    print(json.dumps(states))
    return code


if __name__ == "__main__":
    folders = [Path(word) for word in sys.argv[1:] if "=" not in word]
    sys.exit(main(folders[0], folders[1:], [word for word in sys.argv[1:] if "=" in word]))
