# Short names for what bin/test does; see CONTRIBUTING.md.
LOCK = .venv/bin/pip-compile -q --generate-hashes --strip-extras --allow-unsafe --no-header \
       --no-emit-index-url --no-emit-trusted-host --no-emit-find-links --no-emit-options

.PHONY: check fast format lock netns peers soak uml

fast:            ## Format, lint, types, imports and everything that needs no root.
	bin/test fast

check:           ## Everything that CI runs.
	bin/test

netns uml peers: ## Tests on a real kernel (root).
	bin/test $@

soak:            ## 200,000 stories of nodes that act at once (hours), crashes at every system call (root).
	bin/test --prepare
	# In tens: what Hypothesis remembers of 100,000 stories would fill gigabytes.
	for part in 1 2 3 4 5 6 7 8 9 10; do \
	    PYCNI_EXAMPLES=10000 PYCNI_HYPOTHESIS=soak .venv/bin/pytest -q \
	        tests/agent/ipam/test_interleaving.py || exit; \
	done
	PYCNI_FAULT_CALLS=all .venv/bin/pytest -q --timeout=7200 netns-tests/test_faults.py

format:          ## Rewrite the sources in the house format.
	bin/test --prepare
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix-only .

lock:            ## Refresh the pinned dependencies; run it when pyproject.toml's change.
	bin/test --prepare
	$(LOCK) -U -o requirements/runtime.lock pyproject.toml
	$(LOCK) -U -o requirements/dev.lock --extra dev --extra kubernetes -c requirements/runtime.lock pyproject.toml
	$(LOCK) -o requirements/cluster.lock --extra kubernetes -c requirements/dev.lock pyproject.toml
