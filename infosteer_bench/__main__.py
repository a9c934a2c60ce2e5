"""`python -m infosteer_bench`, the same as the console script `infosteer-bench`."""

import sys

from infosteer_bench.cli import main

if __name__ == "__main__":
    sys.exit(main())
