"""`python -m pyvision_rl.cli`, the same as `pyvision-rl`."""

import sys

from pyvision_rl.cli.main import main

sys.exit(main())
