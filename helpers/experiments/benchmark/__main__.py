"""What the methods cost, beside their peers: `python -m helpers.experiments.benchmark SUITE`."""

import sys

from helpers.experiments.benchmark.command import main

sys.exit(main())
