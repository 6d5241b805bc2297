"""ImageReward in small, under its authors' names, of torch's own attention and layers."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "dot"]
WIDTH, HEADS, PATCHES, PATCH, LENGTH = 128, 2, 4, 4, 40


def attended(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attention [B, N, D] of `HEADS` heads; mask [B, M], true where it may look."""
    parts = (x.unflatten(-1, (HEADS, -1)).transpose(1, 2) for x in (q, k, v))
    allowed = None if mask is None else mask.bool()[:, None, None]
    return F.scaled_dot_product_attention(*parts, attn_mask=allowed).transpose(1, 2).flatten(2)


def named(**modules: nn.Module) -> nn.Module:
    """A module of modules, names with a double underscore one in another."""
    module = nn.Module()
    for name, part in modules.items():
        place = module
        *path, last = name.split("__")
        for step in path:
            if not hasattr(place, step):
                setattr(place, step, nn.Module())
            place = getattr(place, step)
        setattr(place, last, part)
    return module


class SeenLayer(nn.Module):
    """A layer of the vision transformer: norms before attention and perceptron."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(WIDTH, eps=1e-6) for _ in range(2))
        self.attn = named(qkv=nn.Linear(WIDTH, 3 * WIDTH), proj=nn.Linear(WIDTH, WIDTH))
        self.mlp = named(fc1=nn.Linear(WIDTH, 96), fc2=nn.Linear(96, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn.proj(attended(*self.attn.qkv(self.norm1(x)).chunk(3, -1)))
        return x + self.mlp.fc2(F.gelu(self.mlp.fc1(self.norm2(x))))


class ReadLayer(nn.Module):
    """A layer of the text transformer: to the words, to the image, perceptron, norms after each."""

    def __init__(self) -> None:
        super().__init__()
        for name in ("attention", "crossattention"):
            setattr(
                self,
                name,
                named(
                    self__query=nn.Linear(WIDTH, WIDTH),
                    self__key=nn.Linear(WIDTH, WIDTH),
                    self__value=nn.Linear(WIDTH, WIDTH),
                    output__dense=nn.Linear(WIDTH, WIDTH),
                    output__LayerNorm=nn.LayerNorm(WIDTH, eps=1e-12),
                ),
            )
        self.intermediate = named(dense=nn.Linear(WIDTH, 80))
        norm = nn.LayerNorm(WIDTH, eps=1e-12)
        self.output = named(dense=nn.Linear(80, WIDTH), LayerNorm=norm)

    def forward(self, x: Tensor, mask: Tensor, seen: Tensor) -> Tensor:
        for part, y, allowed in ((self.attention, x, mask), (self.crossattention, seen, None)):
            look = part.self
            y = attended(look.query(x), look.key(y), look.value(y), allowed)
            x = part.output.LayerNorm(x + part.output.dense(y))
        y = self.output.dense(F.gelu(self.intermediate.dense(x)))
        return self.output.LayerNorm(x + y)


class TinyImageReward(nn.Module):
    """Reward [B] of images [B, 3, 8, 8], tokens and mask [B, 35]."""

    def __init__(self) -> None:
        super().__init__()
        see = named(patch_embed__proj=nn.Conv2d(3, WIDTH, PATCH, PATCH))
        see.cls_token = nn.Parameter(torch.randn(1, 1, WIDTH))
        see.pos_embed = nn.Parameter(torch.randn(1, PATCHES + 1, WIDTH))
        see.blocks = nn.ModuleList(SeenLayer() for _ in range(2))
        see.norm = nn.LayerNorm(WIDTH, eps=1e-6)
        read = named(
            embeddings__word_embeddings=nn.Embedding(len(WORDS) + 2, WIDTH),
            embeddings__position_embeddings=nn.Embedding(LENGTH, WIDTH),
            embeddings__LayerNorm=nn.LayerNorm(WIDTH, eps=1e-12),
            encoder__layer=nn.ModuleList(ReadLayer() for _ in range(2)),
        )
        # What the file has and the score does not read.
        read.embeddings.register_buffer("position_ids", torch.arange(LENGTH)[None])
        self.blip = named(
            visual_encoder=see,
            text_encoder=read,
            vision_proj=nn.Linear(WIDTH, 4),
            text_proj=nn.Linear(WIDTH, 4),
        )
        layers = [nn.Linear(WIDTH, 8), nn.Dropout(), nn.Linear(8, 4), nn.Dropout(), nn.Linear(4, 1)]
        self.mlp = named(layers=nn.Sequential(*layers))
        for parameter in self.parameters():  # norms and biases, too
            parameter.data += 0.2 * torch.randn_like(parameter)

    def forward(self, images: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        see, read = self.blip.visual_encoder, self.blip.text_encoder
        x = see.patch_embed.proj(images).flatten(2).mT
        x = torch.cat([see.cls_token.expand(len(x), -1, -1), x], 1) + see.pos_embed
        for block in see.blocks:
            x = block(x)
        seen = see.norm(x)
        words = read.embeddings
        x = words.word_embeddings(tokens) + words.position_embeddings.weight[: tokens.shape[1]]
        x = words.LayerNorm(x)
        for layer in read.encoder.layer:
            x = layer(x, mask, seen)
        return (self.mlp.layers(x[:, 0]).squeeze(1) - 0.16717362830052426) / 1.0333394966054072


def save_image_reward(folder: Path) -> TinyImageReward:
    """Write ImageReward.pt with random weights to a folder, and the tokenizer's vocabulary."""
    torch.manual_seed(0)
    model = TinyImageReward().eval()
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), folder / "ImageReward.pt")
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    return model
