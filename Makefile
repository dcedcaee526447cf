PYTHON ?= python

.PHONY: all test services engines exhaustive dist environments sanitize coverage lint format docs bench weights scores

all: lint test

# Where bytecode is not kept, each of the hundreds of processes that tests start compiles all again.
unexport PYTHONDONTWRITEBYTECODE

# Side by side on the cores. `pytest tests/test_x.py` alone runs one after the other.
SIDE_BY_SIDE = --numprocesses auto --maxprocesses 8 --dist worksteal
test:
	$(PYTHON) -m pytest $(SIDE_BY_SIDE)

# An engine of every model and precision, in nearly every scale, by TensorRT-RTX, which needs no GPU,
# and every command of the documentation: minutes.
engines:
	$(PYTHON) -m pytest $(SIDE_BY_SIDE) -m slow

# Every network of our kernels for GPUs in Triton's interpreter, in many sizes, and the largest
# networks in every scale: half an hour.
exhaustive:
	$(PYTHON) -m pytest $(SIDE_BY_SIDE) -m exhaustive

# The distributions of a release, and small installs of them in environments of their own.
# One after the other: beside each other, each process would make every environment.
dist:
	rm -rf dist && $(PYTHON) packaging/distributions.py dist
environments: dist
	$(PYTHON) -m pytest -m environments tests/packaging

# Which lines no test reaches; build/coverage/index.html shows them.
coverage:
	$(PYTHON) -m pytest $(SIDE_BY_SIDE) --cov=srcli --cov-report=term --cov-report=html:build/coverage

lint:
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m ruff check .
	$(PYTHON) -m mypy

format:
	$(PYTHON) -m ruff format .
	$(PYTHON) -m ruff check --fix .

# The tests of the compiled code under AddressSanitizer and UndefinedBehaviorSanitizer, in a build of
# its own. PyTorch is loaded by the same process, so leaks are not looked for. Sessions of other
# runtimes, which take minutes under sanitizers, are left out.
SANITIZERS = -fsanitize=address,undefined -fno-sanitize-recover=undefined -g -O1
sanitize:
	rm -rf build/sanitized && mkdir -p build/sanitized
	CFLAGS="$(SANITIZERS)" LDFLAGS="-fsanitize=address,undefined" $(PYTHON) -m pip install --quiet \
		--no-deps --no-build-isolation --target build/sanitized .
	cd build && PYTHONPATH=sanitized PYTHONSAFEPATH=1 ASAN_OPTIONS=detect_leaks=0 \
		LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" \
		$(PYTHON) -m pytest $(SIDE_BY_SIDE) -p no:cacheprovider --rootdir .. -c ../pyproject.toml \
		-k "not backends_use_it and not openvino" \
		../tests/backends/test_native.py ../tests/backends/test_native_stream.py ../tests/backends/test_cpu_filters.py

# What needs servers or engines of others: the extra `services` installs them.
services:
	$(PYTHON) -m pytest -m services

# The pages in build/site, without a single warning.
docs:
	NO_MKDOCS_2_WARNING=1 $(PYTHON) -m mkdocs build --strict

bench:
	$(PYTHON) benchmarks/fused_vs_published.py

# An hour more for each of the weights that ship, or for one: `make train-lapar-c-x4`. What is
# interrupted goes on. Several fill a GPU better: `make -j 4 weights MORE="--bf16 --batch 16"`.
DATA ?= ../shared/data/train
TEST ?= ../shared/data/eval
MINUTES ?= 60
RUNS = $(patsubst weights/%.safetensors,train-%,$(wildcard weights/*.safetensors))
TRAIN = $(PYTHON) -m srcli.weights.training.train $(1) --data $(DATA) --test $(TEST)/Set5 --candidates 1 \
	--minutes $(MINUTES) --init weights/$(@:train-%=%).safetensors --out runs/$(@:train-%=%) $(MORE)
.PHONY: $(RUNS)
weights: $(RUNS)
$(filter %-x2,$(RUNS)): train-%-x2:
	$(call TRAIN,$* -s 2 --loss psnr --patch 80)
$(filter %-x3,$(RUNS)): train-%-x3:
	$(call TRAIN,$* -s 3 --loss psnr --patch 64)
$(filter %-x4,$(RUNS)): train-%-x4:
	$(call TRAIN,$* -s 4 --loss psnr --patch 56)
$(filter %-denoise,$(RUNS)): train-%-denoise:
	$(call TRAIN,$* --task denoise --loss psnr-rgb --patch 80 --batch 4)
$(filter %-deblock,$(RUNS)): train-%-deblock:
	$(call TRAIN,$* --task deblock --loss psnr --patch 80 --batch 4)

# Measure the shipped weights again and write the figures into the manifest and the tables.
# The shipped weights as our compiled code reads them, verified: `weights/prepared`.
weights-prepared:
	$(PYTHON) -m srcli.weights.training.prepare

scores:
	$(PYTHON) -m srcli.weights.training.scores --test $(TEST)
	$(PYTHON) -m srcli.weights.training.limits --test $(TEST)
