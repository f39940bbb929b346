"""`python -m muxframe` is `muxframe`."""

import sys

from .cli import main

sys.exit(main())
