"""A competition on disk in either layout, for the tests of what opens it."""
import csv
import random

import pytest

from tagging.data.competition import open_competition
from tagging.errors import TaggingError

CLASSES = ("Meow", "Chink, clink", "Bark")         # not sorted: the order is the file's
CURATED = {"0a.wav": "Bark", "1b.wav": "Meow", "2c.wav": '"Chink, clink",Bark', "A3.wav": "Meow,Bark"}
NOISY = {"9.wav": "Bark", "10.wav": 'Meow,"Chink, clink"'}
TEST = ["t2.wav", "t1.wav", "t3.wav"]
FILES = {
    "Kaggle": {"curated": ("train_curated.csv", "train_curated"), "noisy": ("train_noisy.csv", "train_noisy"),
               "test": ("sample_submission.csv", "test"), "classes": ("sample_submission.csv", None)},
    "Zenodo": {"curated": ("FSDKaggle2019.meta/train_curated_post_competition.csv",
                           "FSDKaggle2019.audio_train_curated"),
               "noisy": ("FSDKaggle2019.meta/train_noisy_post_competition.csv", "FSDKaggle2019.audio_train_noisy"),
               "test": ("FSDKaggle2019.meta/test_post_competition.csv", "FSDKaggle2019.audio_test"),
               "classes": ("FSDKaggle2019.meta/vocabulary.csv", None)},
}
LAYOUTS = list(FILES)


class Folder:
    """A competition on disk; its clips are empty files, as nothing here listens to them."""

    def __init__(self, root, layout="Kaggle", *, vocabulary_header=False, curated=CURATED, noisy=NOISY):
        self.root, self.files = root, FILES[layout]
        zenodo = layout == "Zenodo"
        for part, rows in (("curated", curated), ("noisy", noisy)):
            rows = list(rows.items())
            if zenodo:                             # its rows are in no order, and have more columns
                random.Random(0).shuffle(rows)
                self.write(part, [("fname", "labels", "freesound_id", "license"),
                                  *((*row, "5", "CC, BY") for row in rows)])
            else:
                self.write(part, [("fname", "labels"), *sorted(rows)])
            self.fill(part, [fname for fname, _ in rows])
        self.fill("test", TEST)
        if zenodo:
            self.write("test", [("fname", "labels", "usage"), *((fname, "Bark", "Private") for fname in TEST)])
            self.write("classes", [("index", "label", "mid")] * vocabulary_header
                       + [(number, name, f"/m/{number}") for number, name in enumerate(CLASSES)])
        else:
            self.write("test", [("fname", *CLASSES), *((fname, 0, 0, 0) for fname in TEST)])

    def csv(self, part):
        return self.root / self.files[part][0]

    def folder(self, part):
        return self.root / self.files[part][1]

    def write(self, part, rows):
        self.csv(part).parent.mkdir(parents=True, exist_ok=True)
        with open(self.csv(part), "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows)

    def fill(self, part, fnames):
        self.folder(part).mkdir(parents=True, exist_ok=True)
        for fname in fnames:
            (self.folder(part) / fname).touch()

    def replace(self, part, old, new):
        text = self.csv(part).read_text(encoding="utf-8")
        assert old in text
        self.csv(part).write_text(text.replace(old, new, 1), encoding="utf-8")

    def expect_error(self, part, *words):
        with pytest.raises(TaggingError) as caught:
            open_competition(self.root).clips(part)
        for word in words:
            assert str(word) in str(caught.value)
