# Pellucid. `make help` lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
APT := orthanc orthanc-dicomweb dcmtk dicom3tools openjph-tools poppler-utils redis-server postgresql

# continuous integration skips nothing, so it also has the libraries that we are measured against, and dcmjs
COMMA := ,

.DEFAULT_GOAL := help
.PHONY: help install tools demo test check lint format bench bench-explainers bench-reference faults mutants viewers constraints sbom audit-dependencies clean

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / { printf "  make %-19s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@# torch alone and first: a plain resolution would bring several GB of CUDA libraries
	$(BIN)/python -c 'import torch' 2>/dev/null || $(BIN)/pip install --quiet --constraint constraints.txt torch==2.13.0
	$(BIN)/pip install --quiet --constraint constraints.txt -e '.[cpu,test$(if $(CI),$(COMMA)peers)]'
	@touch $@

install: $(STAMP) ## set up .venv with everything for a CPU

tools: ## install Orthanc, dcmtk and the rest for the tests (Debian, as root), or say what is missing
	@sh tests/tools.sh $(APT)

demo: install ## the whole path on this machine: ONCE=1 ends by itself, OUT=dir, STUDY=path
	$(BIN)/pellucid demo $(if $(ONCE),--once) $(if $(OUT),--out "$(OUT)") $(if $(STUDY),--study "$(STUDY)")

test: install tools ## every test, warnings as errors
	$(if $(CI),@sh tests/tools.sh nodejs npm && sh tests/viewers/packages.sh build/viewers dcmjs)
	@# waiting threads sleep: two processes with torch on two cores would spin each other to a halt
	OMP_WAIT_POLICY=passive $(BIN)/python -m pytest $(ARGS)

lint: install ## ruff, mypy strict, import directions
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint test ## the gate: lint and every test

format: install ## put the code into form
	$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

bench: install ## turnaround of studies through the whole service
	$(BIN)/pellucid bench turnaround

bench-explainers: install ## every explanation method beside captum, lime and shap: MODEL=name
	$(BIN)/pip install --quiet -e '.[peers]'
	$(BIN)/pellucid bench explainers $(if $(MODEL),--model "$(MODEL)")

bench-reference: install ## likewise, LIME and SHAP beside 20,000 samples; takes long
	$(BIN)/pip install --quiet -e '.[peers]'
	$(BIN)/pellucid bench explainers --methods lime,kernel-shap --reference $(if $(MODEL),--model "$(MODEL)")

faults: install tools ## break a running service on purpose and count what is lost: FAST=1 each once, ARGS="--only pacs"
	PYTHONPATH=tests $(BIN)/python -m faults $(if $(FAST),--fast) $(ARGS)

mutants: install ## send broken files through the way in, the reading and the objects: COUNT=20000 SEED=1
	PYTHONPATH=tests $(BIN)/python -m mutants --count $(or $(COUNT),20000) --seed $(or $(SEED),1) $(ARGS)

viewers: install ## the results in OHIF, dwv, DICOMscope and dcmjs; screenshots in build/viewers/screenshots
	@sh tests/tools.sh $(APT) chromium dicomscope nodejs npm xdotool xvfb
	$(BIN)/pip install --quiet --constraint constraints.txt -e '.[viewers]'
	sh tests/viewers/packages.sh build/viewers
	$(BIN)/python -m pytest tests/viewers $(ARGS)

constraints: install ## pin what is installed here into constraints.txt
	$(BIN)/pip freeze --exclude-editable | sed 's/+cpu$$//' | sort -f > constraints.txt

sbom: install ## write a CycloneDX bill of materials of what is installed into build/sbom.json
	$(BIN)/pip install --quiet --constraint constraints.txt -e '.[security]'
	@mkdir -p build
	$(BIN)/cyclonedx-py environment --output-reproducible --pyproject pyproject.toml --of JSON -o build/sbom.json $(BIN)/python

audit-dependencies: install ## look the pinned dependencies up among known weaknesses (needs the network)
	$(BIN)/pip install --quiet --constraint constraints.txt -e '.[security]'
	$(BIN)/pip-audit --requirement constraints.txt --no-deps --disable-pip

clean: ## remove what was built; keeps pellucid-data and what trainings left in runs
	rm -rf $(VENV) demo-out faults.json mutants.json .pytest_cache .mypy_cache .ruff_cache *.egg-info
