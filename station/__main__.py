"""`python -m station`: the same as the command `station`."""

import sys

from station.cli import main

sys.exit(main())
