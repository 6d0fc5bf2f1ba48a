"""Train the book's networks: `python -m helpers.experiments.train NAME`."""

import sys

from helpers.experiments.train.command import main

sys.exit(main())
