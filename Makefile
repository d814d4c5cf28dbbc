# make demo   the whole path in small, on a CPU
# make test   all tests
# make check  lint and tests
PYTHON ?= python3
BIN := .venv/bin
DATA := data/sample
RUN := demo

.PHONY: demo clean-demo test lint check

# Made again only when the requirements change; the stamp is touched last, so a broken install is not taken for whole.
.venv/installed: requirements.txt requirements-tools.txt requirements-dev.txt tagging_lite/requirements.txt tagging_lite/requirements-serve.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("error: Python 3.11 or newer is needed, and $(PYTHON) is " + sys.version.split()[0] + ". Name another with make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

demo: .venv/installed clean-demo
	$(BIN)/python -m tools.sample_competition $(DATA)
	$(BIN)/python train_noisy.py --data $(DATA) --run $(RUN) --recipe smoke
	$(BIN)/python train_curated.py --data $(DATA) --run $(RUN)
	$(BIN)/python predict.py --data $(DATA) --run $(RUN) --stage noisy
	$(BIN)/python predict.py --data $(DATA) --run $(RUN)
	@echo; echo "On the test clips: stage 1 alone, then both stages"
	@$(BIN)/python lwlrap.py submissions/$(RUN)-noisy.csv --truth $(DATA)/test_post_competition.csv
	@$(BIN)/python lwlrap.py submissions/$(RUN).csv --truth $(DATA)/test_post_competition.csv
	@echo; echo "weights, logs, out-of-fold predictions and scores: models/$(RUN)/"
	@echo "submission: submissions/$(RUN).csv"
	@echo "next: get the real data as data/README.md says, and run"
	@echo "  $(BIN)/python train_noisy.py --data data/fsdkaggle2019 --run first"
	@echo "  $(BIN)/python train_curated.py --data data/fsdkaggle2019 --run first"
	@echo "  $(BIN)/python predict.py --data data/fsdkaggle2019 --run first"

clean-demo:
	rm -rf models/$(RUN)

test: .venv/installed
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: .venv/installed
	$(BIN)/ruff check .

check: lint test
