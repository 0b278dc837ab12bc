"""Zero-shot classification: the arithmetic, the labels, equality with transformers' own CLIP."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import CLIPModel

from score.checkpoints import random_checkpoint
from score.checkpoints.architectures import ARCHITECTURES
from score.concurrency.steps import Steps
from score.contract.labels import Labels
from score.contract.params import Params
from score.contract.rows import Row
from score.core.embedder import Embedder, parts_of
from score.core.preparation import FetchOptions, Preparer
from score.errors import BadBase64, BadParams
from score.folder.model_folder import EMBEDDED
from score.images.preprocess import Pixels
from score.model import zeroshot
from score.settings import Settings
from score.texts.tokenizer import Ids
from score.type_aliases import Matrix
from tests.support.images import SAMPLES, in_base64, normalised, random_image

TOLERANCE = 1e-5
FILES = [path.read_bytes() for path in sorted((SAMPLES / "images").iterdir())]
ONTOLOGY = {
    "apple": "a red apple",
    "boat": "a sailing boat",
    "Straße 🐈": "eine Straße mit einer Katze",
    "long": "a very long description " * 40,
}


# -- equality with the reference ---------------------------------------------------------------


@pytest.fixture(scope="module", params=["embedded", "its own scale", "full size"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model; one that learned another temperature (OpenAI's: 100); a ViT-B/32."""
    if request.param == "embedded":
        return EMBEDDED
    made: Path = tmp_path_factory.mktemp("model")
    if request.param == "full size":
        return random_checkpoint.write(made, ARCHITECTURES["ViT-B-32-quickgelu"], seed=5)
    random_checkpoint.write(made, random_checkpoint.TINY, seed=4)
    return scaled(made, math.log(100))


def scaled(folder: Path, logit_scale: float) -> Path:
    weights = load_file(folder / "model.safetensors")
    weights["logit_scale"] = torch.tensor(logit_scale)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.reference
def test_probabilities_are_the_references(folder: Path) -> None:
    model = Embedder.load(folder)
    parts = parts_of(model)
    preparer = Preparer(parts.tokenizer, parts.preprocessor, model.settings)
    options = FetchOptions()
    images = [preparer.inputs(Row(image=p), "end", options).pixels for p in FILES]
    texts = [preparer.inputs(Row(text=p), "end", options).ids for p in ONTOLOGY.values()]
    wanted = reference(folder, model, [p for p in images if p is not None], [t for t in texts if t])
    assert wanted.std() > 1e-3  # else any answer would do
    records = model.embed([Row(image=p) for p in FILES], Params(labels=Labels.parse(ONTOLOGY)))
    for record, row in zip(records, wanted, strict=True):
        got = dict(zip(record.labels or (), record.probs or (), strict=True))
        np.testing.assert_allclose([got[label] for label in ONTOLOGY], row, atol=TOLERANCE, rtol=0)


def reference(folder: Path, model: Embedder, pixels: list[Pixels], ids: list[Ids]) -> np.ndarray:
    """`logits_per_image.softmax(1)` of transformers' CLIPModel in fp32."""
    clip = CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
    values = np.moveaxis(normalised(parts_of(model).preprocessor, np.stack(pixels)), -1, 1)
    width = max(map(len, ids))
    mask = torch.tensor([[1] * len(x) + [0] * (width - len(x)) for x in ids])
    padded = torch.tensor([x + [x[-1]] * (width - len(x)) for x in ids])
    with torch.inference_mode():
        out = clip(pixel_values=torch.from_numpy(values), input_ids=padded, attention_mask=mask)
    return out.logits_per_image.softmax(1).numpy()


def test_several_prompts_are_averaged_as_the_paper_does(embedder: Embedder) -> None:
    """openai/CLIP's notebook: unit vectors, their mean, unit length again."""
    prompts = {"cat": ["a cat", "a photo of a cat", "gatto"], "dog": ["a dog"]}
    image = zeroshot.unit(embedder.embed_image(FILES[0]))
    logits = []
    for several in prompts.values():
        units = [v / np.linalg.norm(v) for v in map(embedder.embed_text, several)]
        mean = np.mean(units, axis=0)
        logits.append(
            parts_of(embedder).encoder.logit_scale * image @ (mean / np.linalg.norm(mean))
        )
    powers = np.exp(np.array(logits, dtype=np.float64))
    got = embedder.classify(FILES[0], prompts)
    for label, wanted in zip(prompts, powers / powers.sum(), strict=True):
        assert got[label] == pytest.approx(wanted, abs=TOLERANCE)


# -- the arithmetic ----------------------------------------------------------------------------

rng = np.random.default_rng(0)
IMAGES = (30 * rng.standard_normal((50, 16))).astype(np.float32)
LABELS = zeroshot.unit(rng.standard_normal((9, 16)).astype(np.float32))


@pytest.mark.parametrize("scale", [1e-6, 1.0, 14.3, 100.0, 1e4, 1e30, 1e308, math.inf])
def test_no_scale_overflows(scale: float) -> None:
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        probs = zeroshot.probabilities(IMAGES, LABELS, scale)
    assert probs.dtype == np.float32
    np.testing.assert_allclose(probs.sum(axis=1), 1, atol=1e-6)
    best = (zeroshot.unit(IMAGES) @ LABELS.T).argmax(axis=1)
    assert (probs[np.arange(50), best] == probs.max(axis=1)).all()


def test_equal_labels_are_equal_whatever_the_scale() -> None:
    twice = np.repeat(LABELS[:1], 4, axis=0)
    for scale in (1.0, 100.0, math.inf):
        np.testing.assert_array_equal(zeroshot.probabilities(IMAGES, twice, scale), 0.25)


def test_no_images_no_probabilities() -> None:
    assert zeroshot.probabilities(IMAGES[:0], LABELS, 100.0).shape == (0, 9)


def test_a_vector_of_zeros_is_close_to_nothing() -> None:
    nothing = np.zeros((1, 16), dtype=np.float32)
    np.testing.assert_allclose(zeroshot.probabilities(nothing, LABELS, 100.0), 1 / 9, atol=1e-6)
    opposite = np.stack([LABELS[0], -LABELS[0]])
    assert not np.isnan(zeroshot.label_vectors(opposite, [2])).any()
    assert zeroshot.cosine(nothing[0], LABELS[0]) == 0


floats = st.lists(st.floats(-100, 100, width=32), min_size=8, max_size=8).map(
    lambda values: np.array(values, dtype=np.float32)
)


@given(floats, floats, st.floats(0.0078125, 128, width=32))
def test_cosine(a: np.ndarray, b: np.ndarray, factor: float) -> None:
    got = zeroshot.cosine(a, b)
    assert type(got) is float
    assert -1 <= got <= 1
    assert got == zeroshot.cosine(b, a)
    lengths = np.linalg.norm(a.astype(np.float64)) * np.linalg.norm(b.astype(np.float64))
    if np.linalg.norm(a) > 1e-3 and np.linalg.norm(b) > 1e-3:
        wanted = a.astype(np.float64) @ b.astype(np.float64) / lengths
        assert got == pytest.approx(wanted, abs=1e-5)
        assert zeroshot.cosine(a, a * np.float32(factor)) == pytest.approx(1, abs=1e-5)


def test_cosine_of_a_model(embedder: Embedder) -> None:
    """What autodistill calls compare()."""
    text, image = embedder.embed_text("a red apple"), embedder.embed_image(FILES[0])
    assert text.shape == image.shape == (512,)
    wanted = torch.cosine_similarity(torch.from_numpy(text), torch.from_numpy(image), dim=0)
    assert zeroshot.cosine(text, image) == pytest.approx(float(wanted), abs=1e-6)


# -- answers -----------------------------------------------------------------------------------


def test_the_most_probable_first_and_they_sum_to_one(embedder: Embedder) -> None:
    for image in FILES:
        verdict = embedder.classify(image, [f"thing number {i}" for i in range(50)])
        probs = list(verdict.values())
        assert probs == sorted(probs, reverse=True)
        assert sum(probs) == pytest.approx(1, abs=1e-5)
        assert all(type(prob) is float for prob in probs)


def test_ties_stay_in_the_order_given(embedder: Embedder) -> None:
    names = ["z", "m", "a", "q", "b"]
    verdict = embedder.classify(FILES[0], dict.fromkeys(names, "one prompt for all"))
    assert list(verdict) == names
    assert list(verdict.values()) == pytest.approx([0.2] * 5)


def test_labels_below_the_confidence_are_left_out(embedder: Embedder) -> None:
    every = embedder.classify(FILES[0], ONTOLOGY)
    second = list(every.values())[1]
    kept = embedder.classify(FILES[0], ONTOLOGY, confidence=second)  # as probable is enough
    assert list(kept.items()) == list(every.items())[:2]
    assert embedder.classify(FILES[0], ONTOLOGY, confidence=1) == {}
    assert embedder.classify(FILES[0], ["only"], confidence=1) == {"only": 1.0}


def test_normalizing_changes_the_vectors_and_not_the_verdict(embedder: Embedder) -> None:
    labels = Labels.parse(ONTOLOGY)
    (plain,) = embedder.embed([Row(FILES[0])], Params(labels=labels))
    (unit,) = embedder.embed([Row(FILES[0])], Params(labels=labels, normalize=True))
    assert plain.labels == unit.labels
    assert plain.probs == unit.probs


def test_a_row_keeps_its_own_verdict_among_others(embedder: Embedder) -> None:
    """Rows without an image, and failed ones, stand between those that are classified."""
    labels = Labels.parse(ONTOLOGY)
    rows = [Row(text="a"), Row(FILES[0]), Row("%"), Row(FILES[3], "b"), Row(), Row(text="c")]
    records = list(embedder.embed(rows, Params(labels=labels)))
    for row, record in zip(rows, records, strict=True):
        assert (record.labels is not None) == (record.image_features is not None)
        if record.labels is not None:
            alone = embedder.classify(row.image, ONTOLOGY)  # type: ignore[arg-type]
            assert record.labels == tuple(alone)
            np.testing.assert_allclose(record.probs or (), list(alone.values()), atol=TOLERANCE)


def test_an_image_may_be_bytes_a_path_base64_or_nothing_usable(embedder: Embedder) -> None:
    path = SAMPLES / "images" / "apple.png"
    verdicts = [
        embedder.classify(image, ["apple", "boat"])
        for image in (path, path.read_bytes(), in_base64(path.read_bytes()))
    ]
    assert verdicts[0] == verdicts[1] == verdicts[2]
    with pytest.raises(BadBase64):
        embedder.classify("%", ["apple"])
    with pytest.raises(FileNotFoundError):
        embedder.classify(Path("gone.png"), ["apple"])
    with pytest.raises(BadBase64):
        embedder.embed_image("%")


def test_labels_may_be_any_iterable_a_mapping_json_or_labels(embedder: Embedder) -> None:
    wanted = embedder.classify(FILES[0], ["apple", "boat"])
    for labels in (
        ("apple", "boat"),
        iter(["apple", "boat"]),
        {"apple": "apple", "boat": ["boat"]},
        '["apple", "boat"]',
        Labels.parse(["apple", "boat"]),
    ):
        assert labels is not None
        assert embedder.classify(FILES[0], labels) == wanted
    with pytest.raises(BadParams, match="not JSON"):
        embedder.classify(FILES[0], "apple")  # one label, not five letters
    for nothing in ([], {}, ""):
        with pytest.raises(BadParams):
            embedder.classify(FILES[0], nothing)
    for confidence in (-0.1, 1.1, math.nan):
        with pytest.raises(BadParams, match="from 0 to 1"):
            embedder.classify(FILES[0], ["apple"], confidence=confidence)


# -- label vectors are computed once -----------------------------------------------------------


@contextmanager
def counted(model: Embedder) -> Iterator[list[int]]:
    """How many texts each call of the text encoder was given."""
    calls: list[int] = []
    pipeline = model._pipeline
    texts = pipeline.encode_texts

    def counting(ids: Sequence[Ids], *call: object) -> Steps[Matrix]:
        if ids:  # the stream asks for the texts of rows that have none, too
            calls.append(len(ids))
        return texts(ids, *call)  # type: ignore[arg-type]

    pipeline.encode_texts = counting
    try:
        yield calls
    finally:
        pipeline.encode_texts = texts


@pytest.fixture
def fresh(embedder: Embedder) -> Embedder:
    """The embedded model with no label vectors kept."""
    return Embedder(*parts_of(embedder), Settings())


def test_labels_are_encoded_once_for_many_requests(fresh: Embedder) -> None:
    with counted(fresh) as calls:
        for image in FILES:
            fresh.answer([Row(image=image)] * 2, Params.parse({"labels": ONTOLOGY}))
            fresh.answer([Row(image=image)], Params.parse({"labels": json.dumps(ONTOLOGY)}))
    assert calls == [4]


def test_other_labels_prompts_or_truncation_are_other_vectors(fresh: Embedder) -> None:
    with counted(fresh) as calls:
        fresh.classify(FILES[0], {"a": "x", "b": "y"})
        fresh.classify(FILES[0], {"a": "x", "b": "z"})
        fresh.classify(FILES[0], {"b": "y", "a": "x"})
        fresh.classify(FILES[0], {"a": ["x", "y"]})
        fresh.classify(FILES[0], {"a": "x", "b": "y"})
    assert calls == [2] * 4


def test_label_sets_are_not_kept_without_end(fresh: Embedder) -> None:
    for number in range(40):
        fresh.classify(FILES[0], [f"label {number}"])
    assert len(fresh._label_vectors._kept) == 16
    fresh._label_vectors._kept.clear()
    for number in range(3):
        fresh.classify(FILES[0], {f"{number} {label}": "x" * 1000 for label in range(1100)})
    assert not fresh._label_vectors._kept, "16 of these would fill the memory"


def test_refused_labels_are_refused_again(fresh: Embedder) -> None:
    params = Params(labels=Labels.parse({"a": "apple " * 100}), truncate="error")
    for _ in range(2):
        with pytest.raises(BadParams, match="102 tokens"):
            fresh.answer([Row(text="a")], params)


def test_threads_share_label_vectors(fresh: Embedder) -> None:
    sets = [[f"a {word} {i}" for i in range(5)] for word in ("cat", "dog", "boat")]
    alone = [fresh.classify(FILES[0], labels) for labels in sets]
    fresh._label_vectors._kept.clear()
    with ThreadPoolExecutor(8) as pool:
        every = list(pool.map(lambda n: fresh.classify(FILES[0], sets[n % 3]), range(48)))
    for number, verdict in enumerate(every):
        assert verdict == pytest.approx(alone[number % 3], abs=TOLERANCE)


def test_no_more_prompts_than_the_setting(embedder: Embedder) -> None:
    few = Embedder(*parts_of(embedder), Settings(max_prompts=3))
    few.classify(FILES[0], {"a": ["1", "2"], "b": "3"})
    with pytest.raises(BadParams, match="has 4 prompts; at most 3"):
        few.classify(FILES[0], {"a": ["1", "2"], "b": ["3", "4"]})


# -- labels as clients write them --------------------------------------------------------------

words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).filter(str.strip)
ontologies = st.dictionaries(words, words | st.lists(words, min_size=1, max_size=3), min_size=1)


@given(ontologies)
@settings(max_examples=300)
def test_labels_survive_the_wire(ontology: dict[str, str | list[str]]) -> None:
    labels = Labels.parse(ontology)
    assert labels is not None
    assert labels.names == tuple(ontology)
    assert len(labels) == len(ontology)
    for prompts, given_ in zip(labels.prompts, ontology.values(), strict=True):
        assert list(prompts) == (given_ if isinstance(given_, list) else [given_])
    assert Labels.parse(str(labels)) == labels
    assert Labels.parse(json.dumps(ontology)) == labels
    assert hash(Labels.parse(str(labels))) == hash(labels)
    params = Params(labels=labels, confidence=0.25)
    assert Params.parse(params.wire()) == params
    assert Params.parse(json.loads(json.dumps(params.wire()))) == params


@given(st.lists(words, min_size=1, unique=True))
def test_a_list_is_labels_that_are_their_own_prompts(names: list[str]) -> None:
    assert Labels.parse(json.dumps(names)) == Labels.parse(dict(zip(names, names, strict=True)))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@pytest.mark.slow
@given(json_values | st.text())
@settings(max_examples=300)
def test_whatever_is_sent_is_labels_nothing_or_refused(value: object) -> None:
    for sent in (value, json.dumps(value)):
        problem = "param 'labels'"
        try:
            labels = Labels.parse(sent)
        except BadParams as error:
            labels, problem = None, str(error)
        assert problem.startswith("param 'labels'")
        assert len(problem) < 300
        assert labels is None or Labels.parse(str(labels)) == labels


@pytest.mark.parametrize("nothing", [None, "", "  \n"])
def test_no_labels_ask_for_no_classification(nothing: object) -> None:
    assert Labels.parse(nothing) is None
    assert Params.parse({"labels": nothing}).labels is None
    assert Params().wire()["labels"] == ""


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ("cat", "is not JSON"),
        ('["cat"', "is not JSON"),
        ("3", "must be a JSON list of labels or a JSON object"),
        ('"cat"', "must be a JSON list"),
        ("null", "must be a JSON list"),
        (7, "must be a JSON list"),
        ([], "holds no label"),
        ("{}", "holds no label"),
        (["cat", "dog", "cat"], "has 'cat' twice"),
        ('{"cat": "a", "cat": "b"}', "has 'cat' twice"),
        (["cat", 3], "a label must be a text, not 3"),
        (["cat", None], "a label must be a text, not None"),
        (["cat", " "], "a label must be a text"),
        ({"cat": ""}, "a prompt of 'cat' must be a text"),
        ({"cat": 3}, "a prompt of 'cat' must be a text, not 3"),
        ({"cat": {"a": "b"}}, "a prompt of 'cat' must be a text"),
        ({"cat": []}, "has no prompt for 'cat'"),
        ({"cat": ["a", None]}, "a prompt of 'cat' must be a text"),
        ({"": "a"}, "a label must be a text"),
        ('{"\\ud83d": "a"}', "a label holds half a character"),
        ('{"cat": "\\ud83d"}', "a prompt of 'cat' holds half a character"),
        ("[" * 100_000, "is not JSON"),
    ],
)
def test_unusable_labels_are_refused_with_what_is_wrong(bad: object, says: str) -> None:
    with pytest.raises(BadParams) as caught:
        Labels.parse(bad)
    assert says in str(caught.value)
    assert "param 'labels'" in str(caught.value)


@pytest.mark.parametrize("bad", [2, -0.1, "x", "0.5", True, None, [0.5], math.nan, 10**400])
def test_an_unusable_confidence_is_refused(bad: object) -> None:
    with pytest.raises(BadParams, match="'confidence' must be a number from 0 to 1"):
        Params.parse({"confidence": bad})


@pytest.mark.parametrize("good", [0, 1, 0.5, np.float64(0.25), np.float32(0.5), np.int64(1)])
def test_a_confidence_is_a_plain_float(good: float) -> None:
    confidence = Params.parse({"confidence": good}).confidence
    assert type(confidence) is float
    assert confidence == good


def test_from_prompts_turns_autodistills_ontology_round() -> None:
    """autodistill's CaptionOntology is prompt → label."""
    labels = Labels.from_prompts(
        {
            "The Empire State Building": "empire",
            "The Chrysler Building": "chrysler",
            "ESB": "empire",
        }
    )
    assert labels.names == ("empire", "chrysler")
    assert labels.prompts == (("The Empire State Building", "ESB"), ("The Chrysler Building",))
    assert labels == Labels.parse(
        {"empire": ["The Empire State Building", "ESB"], "chrysler": "The Chrysler Building"}
    )
    with pytest.raises(BadParams, match="holds no label"):
        Labels.from_prompts({})
    with pytest.raises(BadParams, match="must be a text"):
        Labels.from_prompts({"a prompt": " "})
    with pytest.raises(BadParams, match="must be a text"):
        Labels.from_prompts({"": "label"})


def test_a_prompt_that_is_too_long_is_cut_unless_told_otherwise(embedder: Embedder) -> None:
    long, cut = {"a": "apple " * 100, "b": "x"}, {"a": "apple " * 75, "b": "x"}
    assert embedder.classify(FILES[0], long) == embedder.classify(FILES[0], cut)
    params = Params(labels=Labels.parse(long), truncate="error")
    with pytest.raises(BadParams, match=r"'apple .*: 102 tokens; the model's context is 77"):
        embedder.embed([Row(FILES[0])], params)


def test_an_image_by_random_seed_is_not_what_decides(embedder: Embedder) -> None:
    """Guards the other tests: verdicts differ between images."""
    best = {
        next(iter(embedder.classify(random_image(seed), ONTOLOGY).values())) for seed in range(4)
    }
    assert len(best) > 1
