"""`python -m pycni.agent`: the agent."""

import sys

from pycni.agent.command import main

sys.exit(main())
