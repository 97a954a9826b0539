# make         set up, build, and run the main job on the bundled checkpoint
# make test    the whole test suite, in release mode (built apart, because testable code is compiled differently)
# make lint    formatting, catalogs, the import graph
# make fuzz    libFuzzer against every reader, a minute each
# make bench   speed of the kernels and of one run
# make install under PREFIX (/usr/local): program, manual, shell completions, recipes; make uninstall takes them away
# make clean   forget what was built

SWIFT    ?= swift
FLAGS    := -c release --explicit-target-dependency-import-check error
COMPRESS := .build/release/compress
MODEL    := Checkpoints/pocket-llama
OUT      := out/pocket-llama-w4a16
PREFIX   ?= /usr/local
MANUAL   := .build/manual/compress.1

.PHONY: all setup build test lint fuzz bench manual install uninstall clean
all: build $(OUT)/report.json
	@cat $(OUT).txt

setup:
	@tools/setup

build: setup
	@$(SWIFT) build $(FLAGS) --product compress

$(COMPRESS): build

# Made anew only when the program, the recipe or the model changed.
$(OUT)/report.json: $(COMPRESS) Recipes/w4a16.yaml $(wildcard $(MODEL)/*)
	@mkdir -p $(dir $(OUT))
	@$(COMPRESS) --recipe Recipes/w4a16.yaml --model $(MODEL) --output $(OUT) --overwrite --fresh > $(OUT).txt

test: setup
	@$(SWIFT) test $(FLAGS) --scratch-path .build-tests

lint:
	@$(SWIFT) format lint --strict --recursive --parallel --configuration .swift-format Package.swift Sources Tests tools/Benchmarks/Sources tools/Fuzz/Sources
	@tools/check
	@echo "lint: clean"

fuzz:
	@tools/fuzz

bench: build
	@tools/bench

# The parser's own tool asks the program for its options.
manual: build
	@$(SWIFT) build -c release --product generate-manual
	@mkdir -p $(dir $(MANUAL))
	@.build/release/generate-manual $(COMPRESS) --output-directory $(dir $(MANUAL))

# DESTDIR is what packagers put before the prefix.
install: manual
	@tools/install $(COMPRESS) $(MANUAL) "$(DESTDIR)$(PREFIX)"

uninstall:
	@tools/install --remove "$(DESTDIR)$(PREFIX)"

clean:
	@rm -rf .build .build-tests .build-fuzz out
