"""``python -m brambling``."""

import sys

from brambling.cli import main

sys.exit(main())
