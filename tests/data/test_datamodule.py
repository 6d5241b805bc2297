from itertools import islice
from types import SimpleNamespace

import lightning
import numpy as np
import pytest
import torch

from dmd2.data.base import DataModule
from dmd2.data.pairs import PairWriter
from dmd2.data.split import Split


class Numbers(DataModule):
    """Image i is filled with i but for its left column of 255; its label is i."""

    def load(self):
        x = np.tile(np.arange(10, dtype=np.uint8).reshape(-1, 1, 1, 1), (1, 1, 2, 2))
        x[..., 0] = 255
        split = Split(x, np.arange(10))
        return split, split, [str(i) for i in range(10)]

    def identity(self):
        return {}


class Rank:
    """What a data module asks of its trainer."""

    def __init__(self, global_rank, world_size, device="cpu"):
        self.global_rank, self.world_size = global_rank, world_size
        self.strategy = SimpleNamespace(root_device=torch.device(device))


def batches(num, rank=None, consumed=0, **options):
    data = Numbers(**{"batch_size": 4, "seed": 0} | options)
    data.trainer = rank
    data.load_state_dict({"consumed": consumed})
    data.setup()
    return [
        data.on_after_batch_transfer(batch, 0) for batch in islice(data.train_dataloader(), num)
    ]


def assert_same(some, others):
    for one, other in zip(some, others, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            torch.testing.assert_close(one[name], other[name], rtol=0, atol=0)


@pytest.fixture
def pairs(tmp_path):
    writer = PairWriter(tmp_path / "pairs", 7, (1, 2, 2), "uint8", "test", at_once=7)
    images = torch.arange(7.0).view(-1, 1, 1, 1).expand(7, 1, 2, 2)
    writer.write(next(writer.free()), images, images / 127.5 - 1, torch.arange(7))
    writer.finish()
    return {"pairs": tmp_path / "pairs", "pairs_batch_size": 3}


def test_a_batch_is_model_space_and_own_labels():
    for k, batch in enumerate(batches(5)):
        assert batch["index"] == k
        assert batch["real"].dtype == torch.float32 and batch["label"].dtype == torch.int64
        pixels = Numbers(batch_size=1, seed=0).to_pixels(batch["real"])
        torch.testing.assert_close(pixels[:, 0, 0, 1].long(), batch["label"])
        assert (batch["real"][..., 0] == 1).all()


def test_pixels_survive_the_round_trip():
    data, every = Numbers(batch_size=1, seed=0), torch.arange(256, dtype=torch.uint8)
    x = data.to_model(every)
    assert x.dtype == torch.float32 and x.min() == -1 and x.max() == 1
    assert torch.equal(data.to_pixels(x), every)
    assert torch.equal(
        data.to_pixels(torch.tensor([-9.0, 9.0])), torch.tensor([0, 255], dtype=torch.uint8)
    )
    assert torch.equal(data.to_pixels(x + 0.4 / 127.5), every)


@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_resume_goes_on_exactly(pairs, num_workers):
    whole = batches(8, flip=True, **pairs)
    resumed = batches(4, consumed=4, flip=True, num_workers=num_workers, **pairs)
    assert_same(whole[4:], resumed)


@pytest.mark.parametrize("num_workers", [1, 2])
def test_any_number_of_workers_gives_the_same_batches_as_bytes(num_workers):
    """Pixels cross the border of a process as they are stored."""

    def loaded(num_workers):
        data = Numbers(batch_size=4, seed=0, num_workers=num_workers)
        data.setup()
        return list(islice(data.train_dataloader(), 6))

    batches_there = loaded(num_workers)
    assert all(batch["real"].dtype == torch.uint8 for batch in batches_there)
    assert_same(loaded(0), batches_there)


def test_ranks_partition_an_epoch():
    seen = [
        batch["label"] for rank in range(5) for batch in batches(1, Rank(rank, 5), batch_size=2)
    ]
    assert sorted(torch.cat(seen).tolist()) == list(range(10))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_memory_is_pinned_where_the_trainer_is_on_a_gpu(device):
    data = Numbers(batch_size=4, seed=0)
    data.setup()
    assert not data.train_dataloader().pin_memory
    data.trainer = Rank(0, 1, device)
    assert data.train_dataloader().pin_memory == (device == "cuda")


def test_two_ranks_are_one_rank_row_by_row(pairs):
    pairs_twice = pairs | {"pairs_batch_size": 6}
    whole = batches(5, batch_size=8, flip=True, **pairs_twice)
    halves = [batches(5, Rank(rank, 2), flip=True, **pairs) for rank in (0, 1)]
    for one, first, second in zip(whole, *halves, strict=True):
        for name in one.keys() - {"index"}:
            torch.testing.assert_close(
                torch.cat([first[name], second[name]]), one[name], rtol=0, atol=0
            )


def test_half_of_the_images_are_mirrored():
    flipped = torch.cat([batch["real"][:, 0, 0, 1] == 1 for batch in batches(100, flip=True)])
    assert 0.4 < flipped.float().mean() < 0.6
    assert not any((batch["real"][:, 0, 0, 1] == 1).any() for batch in batches(3))


def test_pairs_stay_together(pairs):
    seen = set()
    for batch in batches(7, **pairs):
        label = batch["pair_label"]
        assert batch["pair_noise"].dtype == batch["pair_image"].dtype == torch.float32
        assert torch.equal(batch["pair_noise"][:, 0, 0, 0].long(), label)
        assert torch.equal(((batch["pair_image"][:, 0, 0, 0] + 1) * 127.5).round().long(), label)
        seen |= set(label.tolist())
    assert seen == set(range(7))


def test_images_of_pairs_take_the_place_of_real_samples(pairs):
    size = pairs["pairs_batch_size"]
    plain = batches(4, batch_size=size, **pairs)
    for one, other in zip(plain, batches(4, batch_size=size, reals="pairs", **pairs), strict=True):
        assert torch.equal(other["real"], one["pair_image"])
        assert torch.equal(other["label"], one["pair_label"])
        assert not torch.equal(other["label"], one["label"])
    with pytest.raises(ValueError, match="as many pairs as samples, 9, got 3"):
        Numbers(batch_size=9, seed=0, reals="pairs", **pairs)
    with pytest.raises(ValueError, match="reals must be data or pairs, got teacher"):
        Numbers(batch_size=9, seed=0, reals="teacher")
    # Until pairs are made, e.g. to train the teacher, the data's own are there.
    data = Numbers(batch_size=9, seed=0, reals="pairs")
    data.setup()
    assert data.provides() == {"real", "label"}


def test_provides_names_what_is_there(pairs):
    data = Numbers(batch_size=2, seed=0, **pairs)
    data.setup()
    assert data.provides() == {"real", "label", "pairs"}


def test_pairs_of_another_shape_are_refused(tmp_path):
    writer = PairWriter(tmp_path, 1, (3,), "float16", "", at_once=1)
    writer.write(next(writer.free()), torch.zeros(1, 3), torch.zeros(1, 3), torch.zeros(1))
    writer.finish()
    with pytest.raises(ValueError, match=r"shape \(3,\), the data \(1, 2, 2\)"):
        Numbers(batch_size=2, seed=0, pairs=tmp_path, pairs_batch_size=1).setup()


def test_wrong_options_are_refused(tmp_path):
    with pytest.raises(ValueError, match="batch_size must be"):
        Numbers(batch_size=0, seed=0)
    with pytest.raises(ValueError, match="come together"):
        Numbers(batch_size=1, seed=0, pairs=tmp_path)


def test_a_sampler_of_lightning_is_refused():
    data = Numbers(batch_size=2, seed=0)
    data.setup()
    with pytest.raises(TypeError, match="use_distributed_sampler=false"):
        torch.utils.data.DistributedSampler(data.train_dataloader().dataset, 2, 0)


def test_fingerprint_is_of_the_data_alone():
    assert (
        Numbers(batch_size=2, seed=0).fingerprint() == Numbers(batch_size=4, seed=1).fingerprint()
    )


class Recorder(lightning.LightningModule):
    """Keeps the labels it is given and counts them as a training module does."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.automatic_optimization = False
        self.labels = []

    def training_step(self, batch, batch_idx):
        assert batch["real"].dtype == torch.float32
        self.labels.append(batch["label"].tolist())
        self.optimizers().step()
        self.trainer.datamodule.consumed += 1

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def test_a_trainer_resumes_from_its_checkpoint(tmp_path):
    def fit(max_steps, checkpoint=None):
        module, data = Recorder(), Numbers(batch_size=4, seed=0)
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        trainer = lightning.Trainer(
            accelerator="cpu",
            max_steps=max_steps,
            enable_checkpointing=False,
            default_root_dir=tmp_path,
            **quiet,
        )
        trainer.fit(module, data, ckpt_path=checkpoint)
        trainer.save_checkpoint(tmp_path / "at.ckpt")
        return module.labels

    whole = fit(7)
    assert fit(3) + fit(7, tmp_path / "at.ckpt") == whole
