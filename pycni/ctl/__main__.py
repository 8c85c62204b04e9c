"""`python -m pycni.ctl`: the operator's command."""

import sys

from pycni.ctl.main import main

sys.exit(main())
