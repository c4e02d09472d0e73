# Every target describes itself: `make help`.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet
CXX_SOURCES = $(shell find native benchmarks -name '*.hpp' -o -name '*.cpp')
# What the demo needs (serve.txt), and with what tests and checks need (dev.txt): every file by its hash.
# What the image installs (image.txt) is installed by deploy/Dockerfile.
LOCKED := $(PIP) install --require-hashes --requirement
EDITABLE := $(PIP) install --no-build-isolation --no-deps --editable .

LOCK = $(BIN)/uv pip compile --quiet --universal --python-version 3.10 --generate-hashes $(if $(UPGRADE),--upgrade) \
  --custom-compile-command 'make lock' requirements/build.in

FUZZ_TARGETS := frame seek_request seek_response table sequence_file ctr_request snappy
# Of the whole campaign, split over its targets.
SECONDS ?= 60
# Of each of the two campaigns.
KILLS ?= 60
SEED  ?= 1

.DEFAULT_GOAL := help
.PHONY: help demo test check docs asan page-image aarch64 fuzz hadoop kills native bench format packages lock clean

help: ## Lists the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.demo ## Trains, exports, serves and checks an example (DATA=path for your own rows, MODEL=deepfm)
	$(BIN)/python -m examples.criteo_ctr.demo $(if $(DATA),--data '$(DATA)') $(if $(MODEL),--model $(MODEL))

test: $(VENV)/.dev ## Runs the test suite
	$(BIN)/python -m pytest -n auto --maxprocesses=4 --dist=loadfile

check: docs $(VENV)/.dev ## ruff, mypy --strict, stubtest, clang-format, locks, licences, known weaknesses, docs
	$(BIN)/python -m release.locks
	$(BIN)/python -m release.licences
	$(BIN)/python -m release.audit
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest cube_core._native --allowlist native/stubtest_allowlist.txt
	$(BIN)/clang-format --dry-run --Werror $(CXX_SOURCES)

docs: $(VENV)/.dev ## Builds the documentation into build/site; fails at a dead link or anchor
	$(BIN)/python -m mkdocs build --strict

page-image: $(VENV)/.dev ## Takes the picture of the page for docs and README anew; others go to build/page
	CUBE_PAGE_IMAGE=$(abspath build/page/page.png) $(BIN)/python -m pytest -q --timeout=600 tests/page/test_ctr.py
	cp build/page/page.png docs/images/page.png

format: $(VENV)/.dev ## Formats Python and C++
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CXX_SOURCES)

native: $(VENV)/.dev ## Rebuilds the kernels and the generated contracts in place
	flock $(VENV)/.lock $(EDITABLE)

asan: $(VENV)/.dev ## Builds and runs the kernel tests under AddressSanitizer and UBSan
	$(BIN)/cmake -S . -B build/asan -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN)/ninja) \
	  -DCUBE_BUILD_TESTS=ON -DCMAKE_BUILD_TYPE=RelWithDebInfo \
	  -DCMAKE_CXX_FLAGS='-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer'
	$(BIN)/cmake --build build/asan
	build/asan/kernel_tests

aarch64: $(VENV)/.dev ## Runs the kernel tests as on aarch64 (needs g++-aarch64-linux-gnu, qemu-user)
	$(BIN)/cmake -S . -B build/aarch64 -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN)/ninja) \
	  -DCUBE_BUILD_TESTS=ON -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 \
	  -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++
	$(BIN)/cmake --build build/aarch64
	qemu-aarch64 -L /usr/aarch64-linux-gnu build/aarch64/kernel_tests

fuzz: $(VENV)/.dev ## Fuzzes frames, messages and files under ASan and UBSan (SECONDS=60; needs clang)
	$(BIN)/cmake -S . -B build/fuzz -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN)/ninja) \
	  -DCMAKE_CXX_COMPILER=clang++ -DCUBE_BUILD_FUZZERS=ON -DCMAKE_BUILD_TYPE=RelWithDebInfo
	$(BIN)/cmake --build build/fuzz
	build/fuzz/fuzz_seeds build/fuzz/corpus
	mkdir -p build/fuzz/findings
	set -e; for target in $(FUZZ_TARGETS); do \
	  echo "== $$target"; \
	  build/fuzz/fuzz_$$target -max_total_time=$$(($(SECONDS) / $(words $(FUZZ_TARGETS)) + 1)) -timeout=5 \
	    -rss_limit_mb=2048 -verbosity=0 -print_final_stats=1 \
	    -artifact_prefix=build/fuzz/findings/$${target}_ build/fuzz/corpus/$$target; \
	done

hadoop: build/hadoop/.fetched ## Fetches the HDFS that tests run against (200 MB)

build/hadoop/.fetched: tests/transfer/hadoop.txt | $(VENV)/.dev
	rm -rf build/hadoop
	$(PIP) download --no-deps --no-build-isolation --no-binary=:all: --require-hashes --requirement $< --dest build/hadoop
	tar -xzf build/hadoop/pyspark-*.tar.gz -C build/hadoop --strip-components=3 --wildcards '*/deps/jars/*.jar'
	rm build/hadoop/pyspark-*.tar.gz
	touch $@

kills: $(VENV)/.dev ## Kills daemon, builders and servers while passes are deployed (KILLS=60 SEED=1, of 1 and 2 replicas)
	CUBE_KILLS=$(KILLS) CUBE_KILLS_SEED=$(SEED) $(BIN)/python -m pytest -s tests/transfer/test_kills.py

packages: $(VENV)/.dev ## Builds sdist, and the wheel from it, into build/dist; serves from the wheel in a new environment
	$(BIN)/python -m release.packages build/dist
	$(BIN)/python -m release.installed build/dist/cube_serving-*.whl

lock: $(VENV)/.created ## Locks the dependencies of pyproject.toml in requirements/ (UPGRADE=1: the newest there are)
	$(PIP) install 'uv>=0.9'
	$(LOCK) --extra paddle --extra dev --output-file requirements/dev.txt pyproject.toml
	$(LOCK) --extra paddle --constraint requirements/dev.txt --output-file requirements/serve.txt pyproject.toml
	$(LOCK) --extra paddle --extra arrow --extra hdfs --constraint requirements/dev.txt --output-file requirements/image.txt pyproject.toml
	$(LOCK) --constraint requirements/dev.txt --output-file requirements/build.txt

bench: $(VENV)/.dev ## Measures servers, kernel and client against their peers
	$(BIN)/cmake -S . -B build/bench -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN)/ninja) \
	  -DCUBE_BUILD_BENCHMARKS=ON -DCMAKE_BUILD_TYPE=Release
	$(BIN)/cmake --build build/bench
	$(PIP) install 'redis[hiredis]>=5'
	$(BIN)/python -m benchmarks.run --programs=build/bench
	$(BIN)/python -m benchmarks.hostile --programs=build/bench

clean: ## Removes what was built
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache

$(VENV)/.created:
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.demo: $(VENV)/.created requirements/serve.txt pyproject.toml CMakeLists.txt $(wildcard proto/*.proto) $(CXX_SOURCES)
	test -e $(VENV)/.dev || { $(LOCKED) requirements/serve.txt && $(EDITABLE); }
	touch $@

$(VENV)/.dev: $(VENV)/.created requirements/dev.txt pyproject.toml
	$(LOCKED) requirements/dev.txt
	$(EDITABLE)
	touch $@
