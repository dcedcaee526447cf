PYTHON ?= python

.PHONY: all test engines lint format bench weights scores

all: lint test

# Side by side on the cores. `pytest tests/test_x.py` alone runs one after the other.
SIDE_BY_SIDE = --numprocesses auto --maxprocesses 8 --dist worksteal
test:
	$(PYTHON) -m pytest $(SIDE_BY_SIDE)

# An engine of every model, scale and precision by TensorRT-RTX, which needs no GPU: minutes.
engines:
	$(PYTHON) -m pytest $(SIDE_BY_SIDE) -m slow

lint:
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m ruff check .
	$(PYTHON) -m mypy

format:
	$(PYTHON) -m ruff format .
	$(PYTHON) -m ruff check --fix .

bench:
	$(PYTHON) benchmarks/fused_vs_published.py

# One hour for each model that ships; goes on where the last hour ended.
DATA ?= ../shared/data/train
TEST ?= ../shared/data/eval
MINUTES ?= 60
TRAIN = $(PYTHON) -m srcli.weights.train lapar-c --data $(DATA) --test $(TEST)/Set5 \
	--candidates 1 --minutes $(MINUTES)
weights:
	for scale in 2 3 4; do \
		$(TRAIN) -s $$scale --loss psnr --init weights/lapar-c-x$$scale.safetensors \
			--out runs/lapar-c-x$$scale || exit 1; \
	done
	$(TRAIN) --task denoise --loss psnr-rgb --patch 80 --batch 4 \
		--init weights/lapar-c-denoise.safetensors --out runs/lapar-c-denoise
	$(TRAIN) --task deblock --loss psnr --patch 80 --batch 4 \
		--init weights/lapar-c-deblock.safetensors --out runs/lapar-c-deblock

# Measure the shipped weights again and write the figures into the manifest and the tables.
scores:
	$(PYTHON) -m srcli.weights.scores --test $(TEST)
