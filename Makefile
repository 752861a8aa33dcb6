# Each target does all of its own set-up. `make help` lists them.

VENV   := .venv
PY     := $(VENV)/bin/python
EXTRAS ?= test,dev,demo,kombu
BUILD  := build
PYTEST := $(PY) -m pytest
BESIDE_OTHERS := tests/kombu tests/celery tests/reference # with what is not ours, in targets of their own
# What computes and looks at no clock: it has a processor of its own, beside the rest of the tests.
COMPUTES := $(addprefix tests/,crash/test_stepping.py crash/test_interleaved.py crash/test_broken_builds.py orders \
	unit/core/test_model.py integration/test_wheel.py)

# The C of the core without the Python binding (py_*.c): what the C tests link.
CORE_C := $(filter-out shmq/core/py_%.c,$(wildcard shmq/core/*.c))
CORE_H := $(wildcard shmq/core/*.h tests/c/*.h)
ALL_C  := $(wildcard shmq/core/*.c)
# Each tests/c/test_*.c is a program; other tests/c/*.c are linked into all of them.
C_TESTS   := $(patsubst tests/c/%.c,$(BUILD)/c/%,$(wildcard tests/c/test_*.c))
C_SUPPORT := $(filter-out tests/c/test_%.c,$(wildcard tests/c/*.c))
C_OBJECTS := $(patsubst %.c,$(BUILD)/c/%.o,$(CORE_C) $(C_SUPPORT))
C_WARN    := -std=c11 -Wall -Wextra -Wconversion -Wshadow -Werror
C_CHECK   := -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all

.SECONDARY: # keep the object files
.PHONY: help venv build test lint format c-test c-test-aarch64 wheel-test test-all test-celery test-reference demo crash-long stepping endurance soak bench bench-quick clean

help: ## list the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 24

venv: $(VENV)/.made ## make .venv with Python 3.11 or newer
$(VENV)/.made: tools/make-venv
	@sh tools/make-venv $(VENV)
	@touch $@

build: $(VENV)/.built ## install the tree into .venv; quick again after a change in C
$(VENV)/.installed: $(VENV)/.made pyproject.toml setup.py shmq/_version.py
	$(PY) -m pip install --quiet --editable '.[$(EXTRAS)]'
	@touch $@
$(VENV)/.built: $(VENV)/.installed $(ALL_C) $(wildcard shmq/core/*.h)
	CFLAGS=-Werror $(PY) setup.py --quiet build_ext --inplace --force
	@touch $@

test: build lint c-test ## the broker and its clients (15 minutes on 2 cores)
	@echo 'at the same time, told at the end and in $(BUILD)/computes.log: $(COMPUTES)'
	@$(PYTEST) -m 'not long' $(COMPUTES) >$(BUILD)/computes.log 2>&1 & computes=$$!; \
	trap 'kill $$computes' INT TERM; \
	$(PYTEST) -m 'not long' $(addprefix --ignore=,$(BESIDE_OTHERS) $(COMPUTES)); rest=$$?; \
	wait $$computes; computed=$$?; \
	if [ $$computed -eq 0 ]; then tail -n 1 $(BUILD)/computes.log; else cat $(BUILD)/computes.log; fi; exit $$((rest | computed))

test-celery: build ## Kombu's own tests and Celery's features over shmq, with kills (five minutes)
	$(PYTEST) -m 'not long' tests/kombu tests/celery

test-all: test test-celery test-reference ## what a change must pass

lint: build ## ruff and mypy
	$(PY) -m ruff check --output-format concise .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

format: build ## put the Python code into its one form
	$(PY) -m ruff check --quiet --select I --fix .
	$(PY) -m ruff format .

c-test: $(C_TESTS) ## the core's C tests under ASan and UBSan
	@for program in $(C_TESTS); do echo "$$program"; $$program || exit 1; done
$(BUILD)/c/%.o: %.c $(CORE_H) Makefile
	@mkdir -p $(@D)
	$(CC) $(C_WARN) $(C_CHECK) -Ishmq/core -Itests/c -c $< -o $@
$(BUILD)/c/test_%: $(BUILD)/c/tests/c/test_%.o $(C_OBJECTS)
	$(CC) $(C_CHECK) $^ -pthread -o $@

c-test-aarch64: ## the core's C tests on aarch64, emulated where this host is another
	@sh tools/c-test-aarch64 $(BUILD)/aarch64

wheel-test: build ## build the wheel and use it outside the tree
	$(PYTEST) tests/integration/test_wheel.py

test-reference: build ## the same cases at a RabbitMQ of its own and at shmq, compared (a minute)
	$(PYTEST) tests/reference

demo: build ## the vision pipeline, with a worker killed on the way
	$(PY) -m examples.vision_pipeline

crash-long: build ## hours of fault injection
	$(PYTEST) -m long -o faulthandler_timeout=0

stepping: build ## every instruction of every operation of the core: stopped there, killed there (a quarter of an hour)
	$(PYTEST) -m long -o faulthandler_timeout=0 -s tests/crash/test_stepping.py

endurance: build ## 100,000 kills of clients and 2,000 of the daemon's processes, checked round by round (hours)
	PYTHONPATH=tests $(PY) -m crash.endurance

soak: build ## half an hour of steady work: does anything grow?
	PYTHONPATH=tests $(PY) -m crash.soak

bench: build $(VENV)/.bench ## the figures of this host and of shmq's peers (an hour; plots in out/benchmarks)
	@set -e; for script in benchmarks/*.py; do echo "$$script"; $(PY) $$script; done
	$(PY) -m benchmarks.side_by_side
	$(PY) -m benchmarks.celery
	$(PY) -m benchmarks.celery --storm

bench-quick: build $(VENV)/.bench ## the same questions in 3 minutes: fewer rounds and points, for a first look
	$(PY) -m benchmarks.side_by_side --quick

$(VENV)/.bench: $(VENV)/.installed
	$(PY) -m pip install --quiet --editable '.[$(EXTRAS),bench]'
	@touch $@

clean: ## remove what was built here, .venv too
	rm -rf $(BUILD) dist $(VENV) *.egg-info out .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find shmq -name '*.so' -delete
