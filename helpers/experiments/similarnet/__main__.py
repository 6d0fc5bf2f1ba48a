"""The record of chapter 4: `python -m helpers.experiments.similarnet`."""

import sys

from helpers.experiments.similarnet.measure import main

sys.exit(main())
