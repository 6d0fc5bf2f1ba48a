"""The record of chapters 6 and 7 on whole images: `python -m helpers.experiments.search`."""

import sys

from helpers.experiments.search.measure import main

sys.exit(main())
