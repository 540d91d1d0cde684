# mcpipe: `make repro` sets up and runs the whole pipeline on the embedded tiny zoo, `make test` tests it.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
export PATH := $(abspath $(BIN)):$(PATH)
export DVC_NO_ANALYTICS := true
export OMP_WAIT_POLICY := passive
# Stages, verbs and many tests are processes of their own: without kept bytecode each compiles its imports again.
unexport PYTHONDONTWRITEBYTECODE

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: $(READY) ## create .venv with the locked packages; does nothing when they did not change

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "mcpipe needs Python 3.11 or newer; set PYTHON=/path/to/python3.11")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip sync --quiet --python $(BIN)/python requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

repository:
	@command -v git >/dev/null || { echo "error: git is not installed, and DVC needs it; install git" >&2; exit 1; }
	@git rev-parse --git-dir >/dev/null 2>&1 || { echo "error: $(CURDIR) is no git repository, as an export is none, and DVC needs one; clone the project, or run: git init && git add --all && git commit --message start" >&2; exit 1; }

# The tiny zoo fits into memory twice; what comes out is the same (docs/cluster.md).
repro: export MCPIPE_ENGINE := $(or $(MCPIPE_ENGINE),pool)
repro: export MCPIPE_WORKERS := $(or $(MCPIPE_WORKERS),2)
repro: export MCPIPE_PROFILE := $(abspath .dvc/tmp/profile.tsv)
repro: repository setup ## run every stage that is not up to date, then print the benchmark table and what each stage took
	@mkdir -p .dvc/tmp && printf 'began\t%s\n' "$$(date +%s)" > $(MCPIPE_PROFILE)
	dvc repro
	@python -m mcpipe.cli table data/results
	@echo && python -m benchmarks.stage_times $(MCPIPE_PROFILE)

# A file that ends its process would be given to a new one again and again, hence no restart.
test: repository setup ## run the tests
	python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder --max-worker-restart 0

test-remotes: repository setup ## install DVC's remotes and test them against S3, WebDAV and SFTP servers on this machine
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint requirements.lock --editable '.[remotes-test]'
	python -m pytest tests/dvc/test_remotes.py

test-cluster: repository setup ## install Ray and test curation on two nodes of it on this machine, one of which is killed
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint requirements.lock --editable '.[ray]'
	python -m pytest tests/execution/test_ray_nodes.py tests/execution/test_engine.py

test-demo: repository setup ## install Gradio and Selenium and test the page of mcpipe demo in Debian's chromium and chromium-driver
	@command -v chromedriver >/dev/null || { echo "error: chromedriver is not installed; on Debian: apt-get install chromium chromium-driver" >&2; exit 1; }
	test -x .venv-demo/bin/python || $(PYTHON) -m venv .venv-demo
	$(BIN)/uv pip install --quiet --python .venv-demo/bin/python --constraint requirements.lock --editable '.[dev]'
	$(BIN)/uv pip install --quiet --python .venv-demo/bin/python --editable '.[demo-test]'
	.venv-demo/bin/python -m pytest tests/browser

ablation: repository setup ## the paper's ablation on the tiny zoo, as DVC experiments; goes on where it was interrupted
	python -m studies.ablation

alignment: repository setup ## stage 3 and its variants on the tiny zoo, as DVC experiments; goes on where it was interrupted
	python -m studies.alignment

# Graphs in folders of their own, whose stages are modules of this checkout and not of the installed package.
focusdpo focusdpo-sdxl objects psr zoo: export PYTHONPATH := $(CURDIR)
focusdpo focusdpo-sdxl: export MCPIPE_ENGINE := $(or $(MCPIPE_ENGINE),pool)
focusdpo focusdpo-sdxl: export MCPIPE_WORKERS := $(or $(MCPIPE_WORKERS),2)
# Outputs of the pipeline that the cache still holds come from there, and what led to them is not made again: the stages
# $(1) that write the outputs $(2).
define pipeline_outputs
@for output in $(2); do test -e $$output || dvc checkout --quiet --allow-missing $$output; done
dvc repro $$(ls -d $(2) >/dev/null 2>&1 && echo --allow-missing) $(1)
endef
focusdpo-inputs: repository setup
	$(call pipeline_outputs,train_multi evaluate@train_multi,data/samples data/models/train_multi data/pairs data/results/train_multi)

focusdpo: focusdpo-inputs ## FocusDPO and its baselines on the tiny zoo, from the pipeline's outputs; prints their table; ONLY=masks stops there
	cd focusdpo && dvc repro $(ONLY)
	@test -n "$(ONLY)" || cat focusdpo/data/table/table.txt

focusdpo-sdxl: focusdpo-inputs ## the same for SDXL with an IP-Adapter: pairs, an arm of each kind, their table
	cd focusdpo/sdxl && dvc repro
	@cat focusdpo/data/sdxl/table/table.txt

# The models of the tiny zoo fit into memory twice, as for `repro`. Bytecode lies elsewhere: the graph's folder has a DVC
# of its own, which would take bytecode beside the code for code.
objects psr: export PYTHONPYCACHEPREFIX := $(abspath .mcpipe/bytecode)
objects psr: export MCPIPE_ENGINE := $(or $(MCPIPE_ENGINE),pool)
objects psr: export MCPIPE_WORKERS := $(or $(MCPIPE_WORKERS),2)
objects: repository setup ## several given objects in one image, on the tiny zoo from nothing; prints the object benchmark; ONLY=objects stops there
	@find mcpipe objects -name __pycache__ -prune -exec rm -rf {} +
	cd objects && dvc repro $(ONLY)
	@test -n "$(ONLY)" || python -m mcpipe.cli table objects/data/results --people data/results

psr: repository setup ## PSR: synthetic data, arms and rewards, on the tiny zoo from the pipeline's outputs; prints its tables; ONLY=synthetic stops there
	$(call pipeline_outputs,train_single pairs,data/samples data/encode data/models/train_single data/pairs)
	@find mcpipe objects psr -name __pycache__ -prune -exec rm -rf {} +
	cd psr && dvc repro $(ONLY)
	@test -n "$(ONLY)" || cat psr/data/table/*/table.txt

branches: repository setup ## every branch with few records and few steps, in a clone beside this checkout; status 1 if one fails; ONLY=objects
	python -m benchmarks.branches $(ONLY)

lint: setup ## style, types and how documents read
	ruff check .
	ruff format --check .
	basedpyright
	python tests/prose.py

zoo: repository setup ## rebuild the tiny zoo into zoo/, on two cores in hours; ONLY="clip hps" rebuilds these alone, and what they need
	cd zoo/build && python -m zoo.build.parallel $(ONLY) && python -m zoo.build publish out .. figures

zoo-scores: setup ## measure every checkpoint on the world of SEED=n, which nobody has seen; table and zoo/scores.json
	@test -n "$(SEED)" || { echo "usage: make zoo-scores SEED=n" >&2; exit 2; }
	python -m zoo.scores --seed $(SEED)

evidence-gates: setup ## check on the world of SEED (7) that a study of references can mean something; status 1 if not
	python -m zoo.scores.gates --seed $(or $(SEED),7)

walkthrough: repository setup ## the README's way with clips of one's own, executed in a clone
	python -m benchmarks.walkthrough

lock: ## renew requirements.lock from pyproject.toml
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --extra dev --generate-hashes --no-emit-index-url \
	  --no-header --override requirements.overrides pyproject.toml --output-file requirements.lock

.PHONY: help branches evidence-gates focusdpo focusdpo-inputs focusdpo-sdxl objects psr setup repository repro test ablation alignment \
  lint zoo zoo-scores lock test-remotes test-cluster test-demo walkthrough
