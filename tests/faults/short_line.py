"""The line's flow with its first stages alone, short enough to be disturbed often; else what flows/line.py does."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).absolute().parents[2]))

from flows import line as whole

whole.STAGES = ("ingest", "validate")
line = whole.line

if __name__ == "__main__":
    sys.exit(whole.main(sys.argv[1:]))
