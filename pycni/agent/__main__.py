"""`python -m pycni.agent`: the agent."""

import sys

from pycni.agent.daemon import main

sys.exit(main())
