"""The record of the what/where model: `python -m helpers.experiments.whatwhere`."""

import sys

from helpers.experiments.whatwhere.measure import main

sys.exit(main())
