"""``python -m npylstm``."""

import sys

from npylstm.cli import main

sys.exit(main())
