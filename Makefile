# make demo    the whole path in small, on a CPU
# make quick   lint and the fast tests, for every edit
# make test    all tests
# make lint    ruff, mypy, and which package may import which
# make check   lint and all tests
# make fastaudio-parity   our transforms against fastaudio's own, in an environment of their own
PYTHON ?= python3
BIN := .venv/bin
DATA := data/sample
RUN := demo

.PHONY: demo clean-demo quick test lint check constraints fastaudio-parity

# Installed again only when the requirements change. The stamp is touched last, so an interrupted install does not count.
.venv/installed: requirements.txt requirements-tools.txt requirements-dev.txt constraints.txt tagging_lite/requirements.txt tagging_lite/requirements-serve.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("error: Python 3.11 or newer is needed, and $(PYTHON) is " + sys.version.split()[0] + ". Choose another with make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-dev.txt -c constraints.txt
	@touch $@

demo: .venv/installed clean-demo
	@echo "step 1 of 6: write a small competition with synthetic clips -> $(DATA)/"
	@$(BIN)/python -m tools.sample_competition $(DATA)
	@echo; echo "step 2 of 6: train stage 1, five folds on the noisy clips -> models/$(RUN)/noisy/"
	@$(BIN)/python train_noisy.py --data $(DATA) --run $(RUN) --recipe smoke
	@echo; echo "step 3 of 6: train stage 2, five folds on the curated clips -> models/$(RUN)/curated/"
	@$(BIN)/python train_curated.py --data $(DATA) --run $(RUN)
	@echo; echo "step 4 of 6: predict the test clips with stage 1 alone -> submissions/$(RUN)-noisy.csv"
	@$(BIN)/python predict.py --data $(DATA) --run $(RUN) --stage noisy
	@echo; echo "step 5 of 6: predict the test clips after both stages -> submissions/$(RUN).csv"
	@$(BIN)/python predict.py --data $(DATA) --run $(RUN)
	@echo; echo "step 6 of 6: score both on the test clips"
	@echo "stage 1 alone:"
	@$(BIN)/python lwlrap.py submissions/$(RUN)-noisy.csv --truth $(DATA)/test_post_competition.csv
	@echo "both stages:"
	@$(BIN)/python lwlrap.py submissions/$(RUN).csv --truth $(DATA)/test_post_competition.csv
	@echo; echo "The demo is complete. It wrote:"
	@echo "  models/$(RUN)/report.html                 the report: scores, errors and settings; open it in a browser"
	@echo "  models/$(RUN)/noisy/, models/$(RUN)/curated/    weights, logs, out-of-fold predictions and scores"
	@echo "  submissions/$(RUN).csv                    probabilities of the test clips, and $(RUN)-noisy.csv of stage 1"
	@echo; echo "Look at the run and tag sounds on a page, until Ctrl-C:"
	@echo "  $(BIN)/python -m tools.app --run $(RUN) --data $(DATA)"
	@echo "Tag files on the command line:"
	@echo "  $(BIN)/python -m tools.tag --run $(RUN) $(DATA)/test"
	@echo "Train on the competition:"
	@echo "  $(BIN)/python -m tools.download data/fsdkaggle2019"
	@echo "  $(BIN)/python train_noisy.py --data data/fsdkaggle2019 --run first"
	@echo "  $(BIN)/python train_curated.py --data data/fsdkaggle2019 --run first"
	@echo "  $(BIN)/python predict.py --data data/fsdkaggle2019 --run first"

clean-demo:
	rm -rf models/$(RUN)

quick: lint
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow" --durations=3

test: .venv/installed
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint test

# These versions were tried on Python 3.11 only. The head of their file says why --no-deps.
.venv-fastaudio/installed: tools/fastaudio_parity/requirements.txt
	@$(PYTHON) -c 'import sys; sys.version_info[:2] == (3, 11) or sys.exit("error: The environment of fastaudio needs Python 3.11, and $(PYTHON) is " + sys.version.split()[0] + ". Choose another with make PYTHON=python3.11 fastaudio-parity")'
	$(PYTHON) -m venv --clear .venv-fastaudio
	.venv-fastaudio/bin/pip install --quiet --disable-pip-version-check --no-deps -r $<
	@touch $@

fastaudio-parity: .venv/installed .venv-fastaudio/installed
	$(BIN)/python -m tools.fastaudio_parity --write

# The versions that were tested. Run it after a change of the requirements, in a fresh .venv.
constraints:
	$(BIN)/pip freeze > constraints.txt
