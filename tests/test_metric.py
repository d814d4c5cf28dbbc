"""lwlrap against scikit-learn, against numbers worked by hand, and what it refuses."""
import numpy as np
import pytest
from sklearn.metrics import label_ranking_average_precision_score

from tagging.metric import lwlrap, per_class_lwlrap

CLIPS, CLASSES = 30, 8

SCORES = {
    "distinct": lambda rng, shape: rng.permuted(np.arange(np.prod(shape)).reshape(shape), axis=None) / 7,
    "single precision": lambda rng, shape: rng.random(shape, np.float32),
    "heavily tied": lambda rng, shape: rng.integers(0, 3, shape) / 2,
    "all tied": lambda rng, shape: np.full(shape, 0.25),
    "logits": lambda rng, shape: rng.normal(0, 30, shape),
}


def random_case(seed, kind="heavily tied", shape=(CLIPS, CLASSES)):
    """Truth with some rows and one column without labels, and scores of the given kind."""
    rng = np.random.default_rng(seed)
    truth = (rng.random(shape) < rng.uniform(0.05, 0.7)).astype(np.uint8)
    truth[rng.random(shape[0]) < 0.2] = 0
    truth[:, -1] = 0
    truth[0, 0] = 1                              # at least one label
    return truth, SCORES[kind](rng, shape)


def sklearn_lwlrap(truth, scores):
    return label_ranking_average_precision_score(truth, scores, sample_weight=truth.sum(1))


@pytest.mark.parametrize("kind", SCORES)
def test_equals_scikit_learn(kind):
    for seed in range(40):
        truth, scores = random_case(seed, kind, (1 + seed, 2 + seed % 9))
        assert lwlrap(truth=truth, scores=scores) == pytest.approx(sklearn_lwlrap(truth, scores), rel=0, abs=1e-12)


def test_hand_worked_example():
    # clip  scores A B C  labels   precision of each label
    # 1     .9 .8 .1      A, C     A leads: 1 of 1 is true.  C is third: A and C of three are true, 2/3.
    # 2     .5 .5 .2      B        A and B tie, so both stand above B: 1/2.
    # 3     .1 .7 .3      C        B and C: 1/2.
    # 4     .6 .5 .4      none     does not count.
    scores = [[.9, .8, .1], [.5, .5, .2], [.1, .7, .3], [.6, .5, .4]]
    truth = [[1, 0, 1], [0, 1, 0], [0, 0, 1], [0, 0, 0]]
    precision, weight = per_class_lwlrap(truth=truth, scores=scores)
    assert precision == pytest.approx([1, 1 / 2, 7 / 12])       # C: the mean of 2/3 and 1/2
    assert weight == pytest.approx([1 / 4, 1 / 4, 1 / 2])       # four labels, two of them C
    assert lwlrap(truth=truth, scores=scores) == pytest.approx(2 / 3)           # (1 + 2/3 + 1/2 + 1/2) / 4


@pytest.mark.parametrize("kind", SCORES)
def test_a_class_is_scored_by_its_own_labels(kind):
    for seed in range(5):
        truth, scores = random_case(seed, kind)
        precision, weight = per_class_lwlrap(truth=truth, scores=scores)
        assert weight.sum() == pytest.approx(1)
        assert np.array_equal(np.isnan(precision), truth.sum(0) == 0)
        present = truth.any(0)
        assert precision[present] @ weight[present] == pytest.approx(sklearn_lwlrap(truth, scores), abs=1e-12)
        for name in np.flatnonzero(present):
            expected = []
            for marks, row in zip(truth, scores):
                if marks[name]:
                    above = [mark for mark, score in zip(marks.tolist(), row) if score >= row[name]]
                    expected.append(sum(above) / len(above))
            assert precision[name] == pytest.approx(np.mean(expected), abs=1e-12)


def test_a_perfect_ranking_scores_one_and_the_reverse_scores_least():
    truth, _ = random_case(3)
    noise = np.random.default_rng(3).random(truth.shape) / 2
    assert lwlrap(truth=truth, scores=truth + noise) == 1
    worst = lwlrap(truth=truth, scores=noise - truth)
    assert worst < min(lwlrap(truth=truth, scores=random_case(seed, "distinct")[1]) for seed in range(20))


def test_only_the_order_within_a_clip_matters():
    truth, scores = random_case(1)
    scores = np.random.default_rng(1).integers(-4, 5, truth.shape)      # whole numbers: no rounding makes new ties
    row = np.arange(len(scores))[:, None]
    for transformed in (np.exp(scores), scores ** 3, scores * (row + 1) - 100 * row, 1 / (1 + np.exp(-scores / 2))):
        assert lwlrap(truth=truth, scores=transformed) == lwlrap(truth=truth, scores=scores)
    assert lwlrap(truth=truth, scores=-scores) != lwlrap(truth=truth, scores=scores)


def test_the_order_of_clips_and_classes_does_not_matter():
    rng = np.random.default_rng(2)
    for seed in range(10):
        truth, scores = random_case(seed)
        precision, weight = per_class_lwlrap(truth=truth, scores=scores)
        rows, columns = rng.permutation(CLIPS), rng.permutation(CLASSES)
        shuffled = {"truth": truth[rows][:, columns], "scores": scores[rows][:, columns]}
        assert lwlrap(**shuffled) == pytest.approx(lwlrap(truth=truth, scores=scores), abs=1e-12)
        np.testing.assert_allclose(per_class_lwlrap(**shuffled), [precision[columns], weight[columns]], atol=1e-12)


def test_clips_without_labels_change_nothing():
    truth, scores = random_case(4)
    kept = truth.any(1)
    assert 0 < kept.sum() < CLIPS
    assert lwlrap(truth=truth[kept], scores=scores[kept]) == lwlrap(truth=truth, scores=scores)


def test_booleans_floats_and_lists_are_read_alike():
    truth, scores = random_case(5)
    expected = sklearn_lwlrap(truth, scores)
    for same in (truth.astype(bool), truth.astype(float), truth.tolist()):
        assert lwlrap(truth=same, scores=scores.tolist()) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("truth, scores, message", [
    ([[1, 0]], [[1., 0, 0]], r"\(1, 2\).*\(1, 3\)"),
    ([[1, 0]], [[1., 0], [0, 1]], r"\(1, 2\).*\(2, 2\)"),
    ([1, 0], [1., 0], "clips, classes"),
    ([[[1, 0]]], [[[1., 0]]], "clips, classes"),
    ([[1, 0]], [[np.nan, 0]], "finite"),
    ([[1, 0]], [[1., np.inf]], "finite"),
    ([[1, 2]], [[1., 0]], "0 and 1"),
    ([[1, 0.5]], [[1., 0]], "0 and 1"),
    ([[1, -1]], [[1., 0]], "0 and 1"),
    ([[1, np.nan]], [[1., 0]], "0 and 1"),
    ([[0, 0], [0, 0]], [[1., 0], [0, 1]], "no label"),
    (np.zeros((0, 3)), np.zeros((0, 3)), "no label"),
])
@pytest.mark.parametrize("function", [lwlrap, per_class_lwlrap])
def test_what_cannot_be_scored_is_refused(function, truth, scores, message):
    with pytest.raises(ValueError, match=message):
        function(truth=truth, scores=scores)
