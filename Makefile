# rpn3d's builds. `make help` lists the targets; each file target is rebuilt only when what it comes from changed.
#
#   make detect                        a synthetic CT, its nodules found
#   make detect SCAN=scan.mhd OUT=out  your own scan: a file, a DICOM folder or a folder of scans
#   make test                          the tests
#
# Variables (make detect CPUS=2 MEMORY=4G PRECISION=f32 ...):
SCAN      ?=#            file (.mhd .mha .nii .nii.gz .nrrd), DICOM folder or folder of scans; default: a synthetic CT
OUT       ?= out#        folder for results
CPUS      ?=#            cores to use; default: what affinity and cgroup quota allow
MEMORY    ?=#            memory to use, such as 4G; default: what is free
PRECISION ?= auto#       auto, f32, bf16 or int8
CALIBRATION ?=#          scans for `make int8`
DATA      ?=#            reference data for tests and training (RPN3D_DATA); default: ../shared/data
PYTHON    ?= python3#    the interpreter that makes the virtual environment
VENV      ?= .venv#      the virtual environment
BUILD     ?= build#      built models

# `:=` after the fact strips the blanks that the comments above leave behind
override SCAN      := $(strip $(SCAN))
override OUT       := $(strip $(OUT))
override CPUS      := $(strip $(CPUS))
override MEMORY    := $(strip $(MEMORY))
override PRECISION := $(strip $(PRECISION))
override CALIBRATION := $(strip $(CALIBRATION))
override DATA      := $(strip $(DATA))
override PYTHON    := $(strip $(PYTHON))
override VENV      := $(strip $(VENV))
override BUILD     := $(strip $(BUILD))

MAKEFLAGS += --no-builtin-rules
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

ifneq ($(DATA),)
export RPN3D_DATA := $(abspath $(DATA))
endif

BIN    := $(VENV)/bin
RPN3D  := $(BIN)/python -m rpn3d
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet
NET    := prototxt/rpn3d/deploy.prototxt
MODEL  := caffe_models/rpn3d.caffemodel
ONNX   := $(BUILD)/rpn3d.onnx

# The int8 model that comes along and the proof of it, as long as they are of these weights: once another model has been
# trained into caffe_models, int8 is calibrated anew (sha256sum: Linux; shasum: macOS)
BESIDE    := $(wildcard $(MODEL:.caffemodel=-int8.xml) $(MODEL:.caffemodel=-proof.json))
WEIGHTS   := $(if $(BESIDE),$(shell (sha256sum $(MODEL) || shasum -a 256 $(MODEL)) 2>/dev/null | cut -c1-64))
SHIPPED   := $(if $(WEIGHTS),$(shell grep -l '"$(WEIGHTS)"' $(BESIDE)))
SHIPPED_INT8 := $(if $(CALIBRATION),,$(filter %.xml,$(SHIPPED)))
IR := $(BUILD)/rpn3d-f32.xml $(BUILD)/rpn3d-bf16.xml \
      $(if $(SHIPPED_INT8)$(filter int8,$(PRECISION)),$(BUILD)/rpn3d-int8.xml) \
      $(patsubst caffe_models/%,$(BUILD)/%,$(filter %.json,$(SHIPPED)))
CODE   := caffe_models convert runtime train bench commands rpn3d.py setup.py tests
LIMITS := $(if $(CPUS),--cpus $(CPUS)) $(if $(MEMORY),--memory $(MEMORY)) --precision $(PRECISION)

# The code that decides what a built model holds: a change there rebuilds it. The solver's and the tables' do not.
TRAINING := $(addprefix caffe_models/,solver.py solver_settings.py update_rules.py lr_policy.py)
VIEWS    := $(addprefix caffe_models/,net_table.py net_table_text.py net_memory.py net_groups.py net_boxes.py \
            receptive_field.py weights_table.py draw.py draw_layout.py)
EMITTERS := $(filter-out $(TRAINING) $(VIEWS),$(wildcard caffe_models/*.py caffe_models/layers/*.py convert/*.py))

.PHONY: help detect model int8 phantom test lint types check prototxt docs train bench clean

help:  ## this list
	@grep -E '^[a-z0-9]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort | awk -F'\t' '{printf "  make %-10s %s\n", $$1, $$2}'
	@echo; echo "Variables, with defaults:"
	@grep -E '^[A-Z]+ +\?=' $(MAKEFILE_LIST) | sed -E 's/ *\?= */\t/; s/# */\t/' | awk -F'\t' '{printf "  %-10s %-8s %s\n", $$1, $$2, $$3}'

# ---- environments: a stamp for each group of dependencies -------------------------------------------------------
$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.inference: setup.py constraints.txt | $(BIN)/python
	$(PIP) install --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.int8: $(VENV)/.inference
	$(PIP) install --constraint constraints.txt --editable '.[int8]'
	@touch $@

$(VENV)/.test: $(VENV)/.inference
	$(PIP) install --constraint constraints.txt --editable '.[train,test]'
	@touch $@

# ---- models: prototxt + caffemodel -> ONNX -> IR per precision --------------------------------------------------
$(ONNX): $(NET) $(MODEL) $(EMITTERS) | $(VENV)/.inference
	$(RPN3D) convert $(NET) $(MODEL) -o $@ --no-parity

$(BUILD)/rpn3d-%.xml: $(ONNX) | $(VENV)/.inference
	$(RPN3D) convert $(ONNX) -o $@ --precision $* --no-parity

$(BUILD)/%-proof.json: caffe_models/%-proof.json
	@mkdir -p $(BUILD)
	cp $< $@

ifneq ($(SHIPPED_INT8),)
# the .xml last, since it is the one that is asked for
$(BUILD)/rpn3d-int8.xml: $(SHIPPED_INT8) $(SHIPPED_INT8:.xml=.bin)
	@mkdir -p $(BUILD)
	cp $(SHIPPED_INT8:.xml=.bin) $(@:.xml=.bin)
	cp $(SHIPPED_INT8) $@
else
# int8 is calibrated, on CALIBRATION or on synthetic CTs, which takes minutes: made when asked for
$(BUILD)/rpn3d-int8.xml: $(ONNX) $(BUILD)/.calibration | $(VENV)/.int8
	$(RPN3D) convert $(ONNX) -o $@ --precision int8 $(addprefix --calibration ,$(CALIBRATION)) --no-parity
endif

# what int8 was calibrated on: named anew, it is made anew, also where the one that comes along lies there already
$(BUILD)/.calibration: $(if $(CALIBRATION),FORCE)
	@mkdir -p $(BUILD)
	@echo '$(CALIBRATION)' | cmp -s - $@ || echo '$(CALIBRATION)' > $@

FORCE:

int8: $(BUILD)/rpn3d-int8.xml  ## the OpenVINO IR in int8: ours, or calibrated on CALIBRATION (without ours: on synthetic CTs)

model: $(IR)  ## the ONNX model and the OpenVINO IR of each precision, in BUILD

# ---- the main job ----------------------------------------------------------------------------------------------
PHANTOM := $(BUILD)/phantom/annotations.csv

$(PHANTOM): | $(VENV)/.inference
	$(RPN3D) phantom -o $(dir $@) -n 1 --seed 7

phantom: $(PHANTOM)  ## one synthetic chest CT with its annotations, in BUILD/phantom

detect: $(IR) $(if $(SCAN),,$(PHANTOM))  ## find nodules in SCAN (default: a synthetic CT), results in OUT
	$(RPN3D) detect $(if $(SCAN),'$(SCAN)',$(dir $(PHANTOM))) -o '$(OUT)' --model $(BUILD) $(LIMITS)

# ---- checks ----------------------------------------------------------------------------------------------------
test: $(VENV)/.test  ## every test (installs what they need)
	$(BIN)/python -m pytest

lint: $(VENV)/.test  ## ruff
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)

types: $(VENV)/.test  ## mypy --strict
	$(BIN)/mypy --strict $(CODE)

check: lint types test  ## lint, types and tests: what decides whether a change lands

# ---- the makers' targets ---------------------------------------------------------------------------------------
prototxt: $(VENV)/.inference  ## write prototxt/rpn3d/ anew from its generator
	$(BIN)/python -m caffe_models.generators.rpn3d

docs: $(VENV)/.inference  ## write docs/layers.md anew from the registry of layers (DATA=folder: count its cases too)
	$(BIN)/python -m convert.layer_table $(if $(DATA),--data '$(DATA)')

train: $(VENV)/.test  ## a short training run end to end: crop 32, then 64, mining, level 2, into OUT
	$(RPN3D) train -o '$(OUT)/train' --phantoms 2 --validate-on 1 --crops 32,64 --levels 2 --mine-share 0.1 \
		--iterations 20 $(if $(CPUS),--cpus $(CPUS))

# ---- benchmarks: all of them, and the page of their figures ------------------------------------------------------
# int8 takes part where nncf, which makes it, is installed (after `make int8` or `make test`), or with PRECISION=int8
FIGURES    := bench/results
BENCH_SCAN := $(if $(SCAN),$(SCAN),$(dir $(PHANTOM)))
BENCH_SET  := $(BUILD)/bench_scans
BENCH_INT8 := $(if $(wildcard $(VENV)/.int8 $(VENV)/.test)$(filter int8,$(PRECISION)),$(BUILD)/rpn3d-int8.xml)

$(VENV)/.bench: $(VENV)/.inference
	$(PIP) install --constraint constraints.txt --editable '.[bench]'
	@touch $@

$(BENCH_SET)/annotations.csv: | $(VENV)/.inference
	$(RPN3D) phantom -o $(BENCH_SET) -n 4 --seed 11

bench: $(IR) $(BENCH_INT8) $(VENV)/.bench $(if $(SCAN),,$(PHANTOM)) $(BENCH_SET)/annotations.csv  ## every benchmark on SCAN (default: a synthetic CT): bench/RESULTS.md
	$(BIN)/python -m bench.results $(FIGURES) --run '$(BENCH_SCAN)' --scans $(BENCH_SET) --model $(BUILD) \
		$(if $(BENCH_INT8),--int8 $(BENCH_INT8)) $(if $(CPUS),--cpus $(CPUS))

clean:  ## remove built models and results of checks; never OUT
	rm -rf $(BUILD) .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
