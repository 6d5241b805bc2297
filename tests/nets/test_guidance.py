"""Guidance on an interval and rescaled: closed forms, and Qwen-Image's pipeline."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dmd2.config.values import VALUES
from dmd2.diffusion.conditioning import Cond
from dmd2.diffusion.denoiser import Denoiser, Encoding, Prediction, guided
from dmd2.diffusion.guidance import Guidance
from dmd2.diffusion.schedules import VP, Flow, Karras, NoiseSchedule, expand
from dmd2.runs.build import build_guidance

CASES: dict[str, tuple[NoiseSchedule, Prediction]] = {
    "flow": (Flow(shift=3.0), "flow"),
    "eps": (VP.scaled_linear(), "eps"),
    "v": (VP.scaled_linear(), "v"),
    "x0": (Karras(), "x0"),
}


@pytest.fixture(autouse=True)
def repeatable() -> None:
    torch.manual_seed(0)


class Outputs(Denoiser):
    """A denoiser whose network outputs what stands in the condition."""

    def __init__(self, schedule: NoiseSchedule, prediction: Prediction) -> None:
        super().__init__(nn.Identity(), schedule)
        self.prediction = prediction
        self.num_passes = 0

    def encode(
        self, x_t: Tensor, t: Tensor, cond: Cond, num_decoded: int | None = None
    ) -> Encoding:
        self.num_passes += 1
        return Encoding(x_t, t, [cond["output"]], [])

    def finish(self, encoding: Encoding) -> Tensor:
        return encoding.state[0]


@pytest.fixture(params=CASES)
def denoiser(request: pytest.FixtureRequest) -> Outputs:
    return Outputs(*CASES[request.param])


def drawn(*shape: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x_t, t, and what the network outputs with and without the condition."""
    x_t, conditional, unconditional = torch.randn(3, *shape)
    return x_t, torch.linspace(0.1, 0.9, shape[0]), conditional, unconditional


def find(denoiser: Outputs, rows: tuple[Tensor, ...], guidance: float | Guidance) -> Tensor:
    x_t, t, conditional, unconditional = rows
    return guided(denoiser, x_t, t, {"output": conditional}, {"output": unconditional}, guidance)


def output_of(denoiser: Outputs, x0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
    """The network's output of which x0 is made: `to_x0` the other way."""
    alpha, sigma = (expand(c, x_t) for c in denoiser.schedule.alpha_sigma(t))
    return {
        "flow": (x_t - x0) / sigma,
        "eps": (x_t - alpha * x0) / sigma,
        "v": (alpha * x_t - x0) / sigma,
        "x0": (x_t - x0) / sigma,  # Karras: alpha is 1, and this is eps
    }[denoiser.prediction]


def test_an_interval_of_all_times_is_plain_guidance_bit_by_bit(denoiser: Outputs):
    rows = drawn(5, 4, 6, 6)
    assert torch.equal(find(denoiser, rows, Guidance(3.0)), find(denoiser, rows, 3.0))
    assert denoiser.num_passes == 2


@pytest.mark.parametrize("patch", [None, 1])
def test_outside_of_the_interval_there_is_no_guidance(denoiser: Outputs, patch: int | None):
    rows = drawn(9, 4, 6, 6)  # times .1, .2, ... .9
    found = find(denoiser, rows, Guidance(3.0, low=0.25, high=0.75, patch=patch))
    everywhere = find(denoiser, rows, Guidance(3.0, patch=patch))
    none = find(denoiser, rows, 1.0)
    inside = torch.tensor([False, False, True, True, True, True, True, False, False])
    torch.testing.assert_close(found[inside], everywhere[inside], rtol=0, atol=0)
    torch.testing.assert_close(found[~inside], none[~inside], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(found[inside], none[inside], rtol=1e-2, atol=1e-2)


def test_the_ends_belong_to_the_interval():
    denoiser, rows = Outputs(*CASES["flow"]), drawn(3, 4, 2, 2)
    t = torch.tensor([0.25, 0.5, 0.75])
    rows = (rows[0], t, *rows[2:])
    found = find(denoiser, rows, Guidance(3.0, low=0.25, high=0.75))
    assert torch.equal(found, find(denoiser, rows, 3.0))


@pytest.mark.parametrize("patch", [1, 2, 3])
def test_the_output_keeps_its_direction_and_gets_the_conditional_s_norm(
    denoiser: Outputs, patch: int
):
    rows = x_t, t, _, _ = drawn(4, 5, 6, 12)
    plain, rescaled, conditional = (
        output_of(denoiser, find(denoiser, rows, guidance), x_t, t)
        for guidance in (7.0, Guidance(7.0, patch=patch), 1.0)
    )

    def norms(output: Tensor) -> Tensor:
        return nn.functional.pixel_unshuffle(output, patch).norm(dim=1)

    torch.testing.assert_close(norms(rescaled), norms(conditional), rtol=1e-3, atol=1e-3)
    cosine = nn.functional.cosine_similarity(plain, rescaled, dim=1)
    torch.testing.assert_close(cosine, torch.ones_like(cosine), rtol=1e-3, atol=1e-3)
    assert (norms(plain) / norms(conditional)).median() > 2


def test_rescaled_guidance_of_tokens_is_that_of_qwen_image_s_pipeline():
    diffusers = pytest.importorskip("diffusers")
    pack = diffusers.QwenImagePipeline._pack_latents
    unpack = diffusers.QwenImagePipeline._unpack_latents
    denoiser, rows = Outputs(*CASES["flow"]), drawn(3, 16, 4, 8)
    x_t, t, conditional, unconditional = rows
    positive, negative = (pack(v, 3, 16, 4, 8) for v in (conditional, unconditional))
    mixed = negative + 4.0 * (positive - negative)
    # As the pipeline has it between its two passes and the scheduler's step.
    scaled = mixed * (
        torch.norm(positive, dim=-1, keepdim=True) / torch.norm(mixed, dim=-1, keepdim=True)
    )
    v = unpack(scaled, 32, 64, 8).squeeze(2)
    sigma = expand(denoiser.schedule.alpha_sigma(t)[1], x_t)
    found = find(denoiser, rows, Guidance(4.0, patch=2))
    torch.testing.assert_close(found, x_t - sigma * v, rtol=1e-5, atol=1e-5)


def test_vectors_are_rescaled_too(denoiser: Outputs):
    rows = x_t, t, _, _ = drawn(6, 3)
    found, conditional = (
        output_of(denoiser, find(denoiser, rows, g), x_t, t) for g in (Guidance(5.0, patch=1), 1.0)
    )
    torch.testing.assert_close(found.norm(dim=1), conditional.norm(dim=1), rtol=1e-3, atol=1e-3)


def test_equal_halves_stay_as_they_are_and_zero_stays_zero():
    denoiser, (x_t, t, output, _) = Outputs(*CASES["flow"]), drawn(3, 4, 2, 2)
    guidance = Guidance(5.0, patch=1)
    rows = (x_t, t, output, output)
    torch.testing.assert_close(find(denoiser, rows, guidance), find(denoiser, rows, 1.0))
    nothing = torch.zeros_like(output)
    assert torch.equal(find(denoiser, (x_t, t, nothing, nothing), guidance), x_t)


@pytest.mark.parametrize(
    "wrong, words",
    [
        ({"scale": 1.0}, r"teacher\.guidance=1"),
        ({"scale": 2.0, "low": 0.5, "high": 0.5}, r"low=0\.5 and high=0\.5; type"),
        ({"scale": 2.0, "high": 1.5}, r"high=1\.5"),
        ({"scale": 2.0, "patch": 0}, "at least 1, got 0"),
    ],
    ids=str,
)
def test_wrong_values_are_refused(wrong: dict[str, Any], words: str):
    with pytest.raises(ValueError, match=words):
        Guidance(**wrong)


def test_a_section_has_a_number_or_a_node():
    node = {"_target_": "dmd2.diffusion.Guidance", "scale": 4.0, "patch": 2}
    assert build_guidance({"guidance": node}) == Guidance(4.0, patch=2)
    assert build_guidance({"guidance": 4.0}) == 4.0
    kind = VALUES["teacher.guidance"]
    assert kind.fits(node) and kind.fits(4.0) and not kind.fits({"scale": 4.0})


def test_what_there_is_is_said_in_words():
    assert f"{Guidance(4.0, high=0.75, patch=2):g}" == "4 at times 0 to 0.75, rescaled by 2x2"
    assert f"{Guidance(2.5, patch=1):g}" == "2.5, rescaled by 1x1"
