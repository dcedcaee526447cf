PYTHON ?= python

.PHONY: all test lint format bench weights scores

all: lint test

test:
	$(PYTHON) -m pytest

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
weights:
	for scale in 2 3 4; do \
		$(PYTHON) -m srcli.weights.train lapar-c -s $$scale --data $(DATA) --test $(TEST)/Set5 \
			--init weights/lapar-c-x$$scale.safetensors --minutes $(MINUTES) \
			--out runs/lapar-c-x$$scale || exit 1; \
	done

# Measure the shipped weights again and write the figures into the manifest and the tables.
scores:
	$(PYTHON) -m srcli.weights.scores --test $(TEST)
