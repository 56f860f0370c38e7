"""`python -m baker` is `bake`."""

import sys

from baker.cli.main import main

sys.exit(main())
