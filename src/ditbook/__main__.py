"""`python -m ditbook` is the command `ditbook`."""

import sys

from ditbook.cli import main

sys.exit(main())
