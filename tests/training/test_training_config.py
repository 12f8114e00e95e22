from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import pytest

from warpwright.config import from_mapping, to_mapping
from warpwright.data import Augmentation, Data
from warpwright.energies.losses import (
    AnyTerm,
    GradientInverseConsistency,
    Images,
    InverseConsistency,
    LandmarkDistance,
    Noise,
    Overlap,
    Smoothness,
    VelocityPrior,
)
from warpwright.energies.regularity import AnyRegularity, Bending, Diffusion, Folding, TotalVariation
from warpwright.energies.similarity import LNCC, MIND, MSE, AnySimilarity, LocalCorrelation, MutualInformation, WeightedSum
from warpwright.energies.similarity import Term as Part
from warpwright.errors import BadInput
from warpwright.layers import (
    AnyLayer,
    DrawVelocity,
    Expected,
    FullSize,
    Integrate,
    KernelPenalty,
    KernelSmoothing,
    LinearField,
    MeanField,
    SmoothProper,
    SplineField,
    WeightedGaussian,
)
from warpwright.methods import (
    AffineField,
    Antisymmetric,
    AnyNetwork,
    AtScale,
    Compared,
    Descent,
    Direct,
    Implicit,
    ModelSettings,
    Proximal,
    Pyramid,
    SymmetricTwoStep,
    Told,
    TwoStep,
)
from warpwright.methods.multistep import layered
from warpwright.networks import (
    FCNSS,
    AffineNet,
    Basis,
    Correlation,
    DiffuseMorph,
    DIRNet,
    Encoder,
    LKUNet,
    TallUNet,
    TransMorph,
    VoxelMorph,
    VoxelMorphDiff,
)
from warpwright.networks.features import FeatureLKU
from warpwright.sampling import Percentiles, Window
from warpwright.schemes import (
    SGD,
    AdaFrame,
    Adam,
    AdamW,
    AdaptiveScoring,
    AdaReg,
    AnyOptimiser,
    AnySchedule,
    AnyWeighting,
    Constant,
    Cosine,
    Likelihood,
    Muon,
    Plain,
    Polynomial,
    Stepwise,
)
from warpwright.solver import Adam as AdamSolver
from warpwright.solver import Krylov
from warpwright.training import Card, Training, Validation
from warpwright.training.config import read_training
from warpwright.transforms import Preparation

DATA = '[data]\nimages = "scans"\n'
SMALL = TallUNet(scale=0.125)
NETWORKS = (
    AffineNet(scale=0.5),
    Correlation(encoder=Encoder(widths=(4, 8), outputs=3), reach=2),
    Pyramid(block=Compared(reach=1, layer=MeanField(iterations=3))),
    Pyramid(encoder=Encoder(widths=(4, 4, 8), finest=0), block=Proximal(iterations=1)),
    Pyramid(block=Descent(width=8)),
    VoxelMorph(field=Basis(reach=4.0, step=2.0)),
    Implicit(
        features=FeatureLKU(outputs=4, scales=(2, 1), widths=0.25),
        family=AffineField(solver=AdamSolver(length=2.0)),
        steps=(3, 2),
        adjoint=Krylov(steps=2),
        one_sided=True,
        told=Told(labels=(1, 2), chance=0.25),
    ),
    Antisymmetric(network=VoxelMorph()),
    Direct(network=AffineNet(), layers=(LinearField(),)),
    TwoStep(first=AtScale(network=SMALL, factor=4, placing="corners"), second=SMALL),
    SymmetricTwoStep(first=AtScale(network=Antisymmetric(network=VoxelMorph())), second=SMALL),
    AtScale(network=SMALL),
    DiffuseMorph(inner=16, scale=0.25, steps=100, first=1e-5, last=0.05),
    DIRNet(form="paper", spacing=8, kernels=3),
    FCNSS(),
    LKUNet(start=4, field="velocity", kernel=7, half_resolution=True),
    TallUNet(field="velocity", scale=0.5),
    TransMorph(size="tiny", head="distribution", window=(3, 4, 2), drop_path=0.1, convolution_skips=False),
    VoxelMorph(form="vm2", half_resolution=True, upsampling="transposed", field="displacement", scale=0.25),
    VoxelMorphDiff(scale=2.0),
)
LAYERS = (
    SplineField(),
    DrawVelocity(),
    Integrate(steps=4, downsize=2, inverse=False),
    FullSize(),
    LinearField(),
    Expected(),
    WeightedGaussian(sigma=2.0),
    MeanField(),
    SmoothProper(iterations=3, first=2.0, learned=True, q_step="kl", output="expectation"),
    KernelSmoothing(form="free", taps=5, spacing=(1.0, 1.0, 2.0), penalty=KernelPenalty(group="eq12", by="hinge", rank=0.2)),
)
SIMILARITIES = (
    LNCC(radius=3),
    LocalCorrelation(sigma=3.0, power=2, inner=True),
    MSE(),
    MutualInformation(),
    MIND(),
    WeightedSum(parts=(Part(similarity=MSE(), weight=2.0), Part(similarity=LNCC(radius=1)))),
)
REGULARITIES = (Diffusion(weight=0.2), TotalVariation(epsilon=1e-2), Bending(weight=3.0), Folding(margin=0.1))
TERMS = (
    *(Images(similarity=similarity, weight=0.5, coarser=(0.25, 0.5)) for similarity in SIMILARITIES),
    *(Smoothness(regularity=regularity, on="velocity", weight=0.1) for regularity in REGULARITIES),
    Overlap(labels=(1, 2, 7), weight=3.0),
    LandmarkDistance(threshold=4.0),
    InverseConsistency(weight=0.5, every=3),
    GradientInverseConsistency(weight=0.7, every=3, derivative="exact"),
    VelocityPrior(prior=10.0),
    Noise(weight=2.0),
)
OPTIMISERS = (
    Adam(rate=2e-4, betas=(0.8, 0.9), amsgrad=True),
    AdamW(rate=3e-4, betas=(0.5, 0.99), decay=0.1),
    SGD(rate=0.1, momentum=0.9),
    Muon(rate=3e-3, momentum=0.9, others=0.25),
)
WEIGHTINGS = (
    AdaptiveScoring(alpha=0.1, beta=0.5, factor=1.0, warmup=0.1, paper_code=True),
    AdaReg(contrast=10.0),
    AdaFrame(slope=0.2),
    Likelihood(beta=0.5),
)
SCHEDULES = (Constant(), Cosine(warmup=0.1, least=0.01), Polynomial(power=2.0), Stepwise(milestones=(0.25, 0.5, 0.75), by=0.3))


def kinds(values: tuple[Any, ...], cls: type | None = None) -> set[type]:
    return {type(value) for value in values if cls is None or isinstance(value, cls)}


def test_the_lists_above_are_complete():
    assert kinds(NETWORKS) == set(get_args(AnyNetwork))
    assert kinds(LAYERS) == set(get_args(AnyLayer))
    assert kinds(SIMILARITIES) == set(get_args(AnySimilarity))
    assert kinds(REGULARITIES) == set(get_args(AnyRegularity))
    assert kinds(TERMS) == set(get_args(AnyTerm))
    assert kinds(OPTIMISERS) == set(get_args(AnyOptimiser))
    assert kinds(SCHEDULES) == set(get_args(AnySchedule))
    assert kinds(WEIGHTINGS) == set(get_args(AnyWeighting))


def rich(**changes: Any) -> Training:
    given = {
        "network": NETWORKS[0],
        "optimiser": OPTIMISERS[0],
        "schedule": SCHEDULES[1],
        "weighting": WEIGHTINGS[0],
    } | changes
    return Training(
        data=Data(manifest=Path("t.csv"), pairing="atlas", atlas="case 3", space="lps", header="qform", cache_gb=0.5),
        model=ModelSettings(
            dim=3,
            channels=2,
            network=given["network"],
            layers=LAYERS if layered(given["network"]) else (),
            preparation=Preparation(
                intensity=Window(low=-1.0, high=2.0), spacing=(1.0, 2.0, 3.0), shape=(4, 5, 6), start="none"
            ),
            loss=TERMS,
            directions="forward",
        ),
        scheme=Plain(
            optimiser=given["optimiser"],
            schedule=given["schedule"],
            clip=1.5,
            average=0.99,
            weighting=given["weighting"],
        ),
        augmentation=Augmentation(
            flips=(0.0, 0.5, 1.0), rotation=1.0, scaling=0.1, shear=0.2, translation=3.0, elastic=2.0, noise=0.1, gamma=0.1
        ),
        validation=Validation(every=3, pairs=2, by="tre"),
        weights=Path("model"),
        steps=7,
        batch=2,
        accumulate=3,
        precision="bfloat16",
        save_memory=True,
        seed=11,
        log_every=4,
        checkpoint_every=5,
        tensorboard=True,
        card=Card(title='A "title"\nof two lines', data="d", licence="l", use="ü"),
    )


EVERY = (
    [rich(network=network) for network in NETWORKS]
    + [rich(optimiser=optimiser) for optimiser in OPTIMISERS]
    + [rich(schedule=schedule) for schedule in SCHEDULES]
    + [rich(weighting=weighting) for weighting in WEIGHTINGS]
)


@pytest.mark.parametrize(
    "training", EVERY, ids=lambda t: f"{type(t.model.network).__name__}-{type(t.scheme.optimiser).__name__}"
)
def test_round_trip_of_rich_settings_through_json(training):
    mapping = json.loads(json.dumps(to_mapping(training), allow_nan=False))
    assert from_mapping(Training, mapping) == training


def test_every_term_kind_and_nothing_else_has_its_name_in_the_mapping():
    mapping = to_mapping(rich())
    assert [t["kind"] for t in mapping["model"]["loss"]] == [type(t).__name__.lower() for t in TERMS]
    assert [t["kind"] for t in mapping["model"]["layers"]] == [type(t).__name__.lower() for t in LAYERS]
    assert mapping["model"]["preparation"]["intensity"]["kind"] == "window"
    assert "kind" not in mapping["scheme"]
    assert "kind" not in mapping["data"]


def read(folder: Path, text: str) -> Training:
    (folder / "t.toml").write_text(text, encoding="utf-8")
    return read_training(folder / "t.toml")


def test_only_the_data_are_needed(tmp_path):
    assert read(tmp_path, DATA) == Training(data=Data(images=tmp_path / "scans"))


def test_every_kind_is_known_to_a_file(tmp_path):
    """TOML as a person would write it."""
    networks = {"diffusemorph", "dirnet", "fcnss", "lkunet", "tallunet", "transmorph", "voxelmorph", "voxelmorphdiff"}
    for kind in networks:
        assert type(read(tmp_path, f'{DATA}[model.network]\nkind = "{kind}"\n').model.network).__name__.lower() == kind
    for kind in ("adam", "adamw", "sgd"):
        text = f'{DATA}[scheme.optimiser]\nkind = "{kind}"\nrate = 1\n'
        optimiser = read(tmp_path, text).scheme.optimiser
        assert (type(optimiser).__name__.lower(), optimiser.rate) == (kind, 1.0)
    for kind in ("constant", "cosine", "polynomial", "stepwise"):
        text = f'{DATA}[scheme.schedule]\nkind = "{kind}"\n'
        assert type(read(tmp_path, text).scheme.schedule).__name__.lower() == kind


def test_a_file_as_a_person_writes_it(tmp_path):
    text = """
    steps = 12
    precision = "bfloat16"
    [data]
    images = "scans"
    labels = "maps"
    validation = 2
    [model]
    dim = 2
    [model.preparation]
    intensity = { kind = "percentiles", low = 1, high = 99 }
    shape = [64, 48]
    [model.network]
    kind = "voxelmorph"
    form = "vm1"
    [[model.layers]]
    kind = "integrate"
    steps = 5
    [[model.layers]]
    kind = "fullsize"
    [[model.loss]]
    kind = "images"
    similarity = { kind = "lncc", radius = 4 }
    [[model.loss]]
    kind = "overlap"
    labels = [1, 2]
    weight = 2
    [scheme]
    clip = 1
    [augmentation]
    flips = [0.5, 0]
    """
    found = read(tmp_path, text)
    assert found.data == Data(images=tmp_path / "scans", labels=tmp_path / "maps", validation=2)
    assert found.model == ModelSettings(
        dim=2,
        network=VoxelMorph(form="vm1"),
        layers=(Integrate(steps=5), FullSize()),
        preparation=Preparation(intensity=Percentiles(low=1.0, high=99.0), shape=(64, 48)),
        loss=(Images(similarity=LNCC(radius=4)), Overlap(labels=(1, 2), weight=2.0)),
    )
    assert (found.steps, found.precision, found.scheme, found.augmentation.flips) == (
        12,
        "bfloat16",
        Plain(clip=1.0),
        (0.5, 0.0),
    )


def test_paths_are_relative_to_the_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "t.toml").write_text('[data]\nmanifest = "../tables/t.csv"\n')
    assert read_training(Path("deep/t.toml")).data.manifest == tmp_path / "deep" / ".." / "tables" / "t.csv"
    (tmp_path / "deep" / "t.toml").write_text('[data]\nimages = "/scans"\nlabels = "maps"\n')
    assert read_training(Path("deep/t.toml")).data == Data(images=Path("/scans"), labels=tmp_path / "deep" / "maps")
    assert read_training(Path("deep/t.toml")).weights is None
    (tmp_path / "deep" / "t.toml").write_text('weights = "../model"\n[data]\nimages = "scans"\n')
    assert read_training(Path("deep/t.toml")).weights == tmp_path / "deep" / ".." / "model"


BAD: dict[str, tuple[str, list[str]]] = {
    "no data": ("steps = 3", ["the key 'data' is missing"]),
    "no source": ("[data]", ["data: ", "neither"]),
    "table": (f"{DATA}[modle]\ndim = 2", ["unknown key 'modle'", "did you mean 'model'"]),
    "key": (f"{DATA}[training]\nsteps = 2", ["unknown key 'training'"]),
    "top": (f"step = 3\n{DATA}", ["unknown key 'step'", "did you mean 'steps'"]),
    "model key": (f"{DATA}[model]\nchanels = 2", ["model: unknown key 'chanels'", "did you mean 'channels'"]),
    "no kind": (f'{DATA}[model.network]\nknd = "voxelmorph"', ["model.network.kind", "voxelmorph", "no such key"]),
    "kind key": (
        f'{DATA}[model.network]\nkind = "voxelmorph"\nscal = 1',
        ["model.network: unknown key 'scal'", "did you mean 'scale'"],
    ),
    "network": (f'{DATA}[model.network]\nkind = "voxelmorf"', ["'voxelmorf'", "did you mean 'voxelmorph'"]),
    "layer": (f'{DATA}[[model.layers]]\nkind = "integrat"', ["model.layers[0].kind", "did you mean 'integrate'"]),
    "term": (f'{DATA}[[model.loss]]\nkind = "image"', ["model.loss[0].kind", "did you mean 'images'"]),
    "similarity": (
        f'{DATA}[[model.loss]]\nkind = "images"\nsimilarity = {{ kind = "ncc" }}',
        ["model.loss[0].similarity.kind", "did you mean 'lncc'"],
    ),
    "no similarity": (f'{DATA}[[model.loss]]\nkind = "images"', ["model.loss[0]", "'similarity' is missing"]),
    "optimiser": (f'{DATA}[scheme.optimiser]\nkind = "adm"', ["scheme.optimiser.kind", "did you mean 'adam'"]),
    "schedule": (f'{DATA}[scheme.schedule]\nkind = "cosin"', ["scheme.schedule.kind", "did you mean 'cosine'"]),
    "precision": (f'precision = "half"\n{DATA}', ["precision", "'bfloat16'", "'half'"]),
    "string": (f'steps = "3"\n{DATA}', ["steps", "a whole number", "'3'"]),
    "fraction": (f"steps = 3.5\n{DATA}", ["steps", "a whole number", "3.5"]),
    "nan": (f"{DATA}[scheme]\nclip = nan", ["scheme.clip", "finite"]),
    "list": (f"{DATA}[model]\nlayers = 3", ["model.layers", "an array"]),
    "toml": ("[data", ["not valid TOML"]),
    **{
        f"{name} of 0": (f"{name} = 0\n{DATA}", [f"{name} must be at least 1", "0"])
        for name in ("steps", "batch", "accumulate", "log_every", "checkpoint_every")
    },
    "negative seed": (f"seed = -1\n{DATA}", ["seed", "-1"]),
    "long seed": (f"seed = {1 << 62}\n{DATA}", ["seed", str(1 << 62)]),
    "axes": (f"{DATA}[model]\ndim = 4", ["model: ", "2 or 3 axes", "4"]),
    "spacing": (
        f"{DATA}[model]\ndim = 2\n[model.preparation]\nspacing = [1, 1, 1]",
        ["model: ", "spacing", "3 axes, the model 2"],
    ),
    "no loss": (f"{DATA}[model]\nloss = []", ["model: ", "loss"]),
    "validation": (f"{DATA}[validation]\nevery = 0", ["validation: ", "every"]),
    "by": (f'{DATA}[validation]\nby = "jaccard"', ["validation.by", "'dice'"]),
    "clip": (f"{DATA}[scheme]\nclip = 0", ["scheme: ", "above 0"]),
    "average": (f"{DATA}[scheme]\naverage = 1", ["scheme: ", "between 0 and 1"]),
    "rate": (f'{DATA}[scheme.optimiser]\nkind = "adam"\nrate = -1', ["scheme.optimiser: ", "above 0", "-1"]),
    "a huge rate": (f'{DATA}[scheme.optimiser]\nkind = "muon"\nrate = 1e39', ["scheme.optimiser: ", "1e+06", "1e+39"]),
    "betas": (f'{DATA}[scheme.optimiser]\nkind = "adam"\nbetas = [0.9, 1.0]', ["scheme.optimiser: ", "betas", "0.9, 1.0"]),
    "three betas": (f'{DATA}[scheme.optimiser]\nkind = "adamw"\nbetas = [0.9, 0.9, 0.9]', ["betas", "an array of 2"]),
    "decay": (f'{DATA}[scheme.optimiser]\nkind = "adamw"\ndecay = -0.1', ["scheme.optimiser: ", "decay", "-0.1"]),
    "momentum": (f'{DATA}[scheme.optimiser]\nkind = "sgd"\nmomentum = 1.5', ["scheme.optimiser: ", "momentum", "1.5"]),
    "warm-up": (f'{DATA}[scheme.schedule]\nkind = "cosine"\nwarmup = 1', ["scheme.schedule: ", "warm-up", "1.0"]),
    "least": (f'{DATA}[scheme.schedule]\nkind = "cosine"\nleast = -1', ["scheme.schedule: ", "least", "-1.0"]),
    "power": (f'{DATA}[scheme.schedule]\nkind = "polynomial"\npower = -1', ["scheme.schedule: ", "power", "-1.0"]),
    "milestones": (f'{DATA}[scheme.schedule]\nkind = "stepwise"\nmilestones = [0.5, 0.5]', ["rising", "0.5"]),
    "factor": (f'{DATA}[scheme.schedule]\nkind = "stepwise"\nby = 0', ["scheme.schedule: ", "factor", "0.0"]),
    "augmentation": (f"{DATA}[augmentation]\nrotate = 3", ["augmentation: unknown key 'rotate'", "did you mean 'rotation'"]),
    "flips": (f"{DATA}[augmentation]\nflips = [2]", ["augmentation: ", "flips"]),
    "card": (f'{DATA}[card]\nlicense = "x"', ["card: unknown key 'license'", "did you mean 'licence'"]),
}


@pytest.mark.parametrize("what", BAD)
def test_files_that_cannot_be_used(what, tmp_path):
    text, words = BAD[what]
    with pytest.raises(BadInput) as caught:
        read(tmp_path, text)
    sentence = str(caught.value)
    assert sentence.startswith(str(tmp_path / "t.toml"))
    assert "\n" not in sentence
    assert all(word in sentence for word in words), sentence


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(BadInput, match=r"none\.toml: there is no such file"):
        read_training(tmp_path / "none.toml")


def test_schedules_over_a_run():
    shares = [k / 100 for k in range(100)]
    cosine = Cosine(warmup=0.2, least=0.1)
    assert cosine.factor(0.0) == 0.0
    assert cosine.factor(0.1) == pytest.approx(0.5)
    assert cosine.factor(0.2) == pytest.approx(1.0)
    assert cosine.factor(0.6) == pytest.approx(0.55)  # half of the way down
    assert cosine.factor(1.0) == pytest.approx(0.1)
    after = [cosine.factor(s) for s in shares if s >= 0.2]
    assert all(b < a for a, b in pairwise(after))
    assert [Polynomial(power=2.0).factor(s) for s in (0.0, 0.5, 0.9)] == pytest.approx([1.0, 0.25, 0.01])
    assert [Stepwise(milestones=(0.5, 0.8), by=0.1).factor(s) for s in (0.49, 0.5, 0.79, 0.8)] == pytest.approx(
        [1, 0.1, 0.1, 0.01]
    )
    assert {Constant().factor(s) for s in shares} == {1.0}


def test_a_preset_lies_under_the_tables_of_the_file(tmp_path):
    training = read(tmp_path, f'preset = "gradicon"\nbatch = 7\n{DATA}[model]\ndim = 2\n[scheme.optimiser]\nrate = 1e-3')
    assert isinstance(training.model.network, TwoStep)
    assert isinstance(training.model.network.first, AtScale)
    assert training.model.layers == ()
    images, consistency = training.model.loss
    assert isinstance(images, Images)
    assert images.similarity == LocalCorrelation(sigma=5.0)
    assert consistency == GradientInverseConsistency(weight=0.75, every=1)
    assert training.scheme.optimiser == Adam(rate=1e-3)
    assert (training.batch, training.steps) == (7, 50000)
    assert training.augmentation.flips == (0.5, 0.5)
    second = read(tmp_path, f'preset = "gradicon-stage-2"\nweights = "one/model"\n{DATA}[model]\ndim = 2')
    assert isinstance(second.model.network, TwoStep)
    assert second.model.network.first == training.model.network
    volumes = read(tmp_path, f'preset = "gradicon"\n{DATA}')
    assert volumes.model.loss[1] == GradientInverseConsistency(weight=0.75, every=2)
    assert volumes.augmentation.flips == (0.5, 0.5, 0.5)


def test_stage_two_needs_the_weights_of_stage_one(tmp_path):
    with pytest.raises(BadInput, match="gradicon-stage-2 begins with a trained stage 1, expected weights"):
        read(tmp_path, f'preset = "gradicon-stage-2"\n{DATA}')
    with pytest.raises(BadInput, match=r"model\.dim: expected a whole number"):
        read(tmp_path, f'preset = "gradicon"\n{DATA}[model]\ndim = 2.0')


def test_an_unknown_preset_is_refused(tmp_path):
    with pytest.raises(BadInput, match=r"t\.toml\.preset: there is no 'gradicom', did you mean 'gradicon'\?"):
        read(tmp_path, f'preset = "gradicom"\n{DATA}')
