"""`python -m pycni.cni`: the in-process engine."""

import sys

from pycni.cni.local import main

sys.exit(main())
