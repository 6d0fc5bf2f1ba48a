"""The real data sets: where each lies, how it comes, and what it must hold."""

from __future__ import annotations

from dataclasses import dataclass, field

TINY_IMAGENET_URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
# Folder of each data set under data_dir(), and files without which it is not there.
FOLDERS = {
    "mnist": ("MNIST", tuple(f"raw/{s}-{k}-ubyte" for s in ("train", "t10k") for k in ("images-idx3", "labels-idx1"))),
    "tiny-imagenet": ("tiny-imagenet-200", ("wnids.txt", "words.txt", "val/val_annotations.txt", "train")),
    "similarnet": ("similarnet", ("numbers5.png",)),
    "imagenet-sample": ("imagenet-sample", ("n01440764_tench.jpg",)),
    "coco-sample": ("coco-sample", ("boxes.csv", "polygons.json", "images")),
    "squeezenet": ("squeezenet", ("squeezenet1_0.safetensors",)),
}
TITLES = {
    "mnist": "MNIST",
    "tiny-imagenet": "Tiny ImageNet",
    "similarnet": "the SIMILARnet images",
    "imagenet-sample": "the ImageNet sample",
    "coco-sample": "the COCO sample",
    "squeezenet": "SqueezeNet",
}


@dataclass(frozen=True)
class Source:
    """How one data set comes, and what it must hold.

    Attributes:
        archives: sets of file names, each of which alone makes the data set; none where it comes as a folder of its
            own name (see `FOLDERS`), all of which belongs to it.
        into: the folder, below the data set's parent, that the archives unpack into.
        archive_hashes: digests of archives, "algorithm:hexadecimal"; others are trusted for what they hold.
        file_hashes: sha256 of unpacked files, below the data set's folder.
        counts: (folder pattern, number of files in all folders that match).
        tree_hash: sha256 over the names and digests of all files, sorted, as `tree_digest` computes it.
        needs_bytes: room on disk while importing.
    """

    archives: tuple[tuple[str, ...], ...] = ()
    into: str = ""
    archive_hashes: dict[str, str] = field(default_factory=dict)
    file_hashes: dict[str, str] = field(default_factory=dict)
    counts: tuple[tuple[str, int], ...] = ()
    tree_hash: str = ""
    needs_bytes: int = 0


_MNIST_FILES = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
_TINY_PARTS = {
    "train-0.tar.gz": "e9250d96b8ddfcaf8771243e68a975ae1e5762d86e445db56bb24528d7427567",
    "train-1.tar.gz": "21f409242561e33d186f4408deea3df61a7244f13272d9c73d99eb4782717155",
    "train-2.tar.gz": "885ca152ee830e3cf13d7abc2d2a42c62f8dfc2924bda2f99571b7bb85fcdb40",
    "train-3.tar.gz": "b4a9d8127c582f81f21711a118806ea893993b34c2272875918507db4ff9f7c6",
    "train-4.tar.gz": "a83c71e9ba234e1123a3556b28fae1e74fe58332344be2abf27610201bf5fdd8",
    "val.tar.gz": "6bd453bb1c80e405af9e2c3c9f897561d519eddc520ced5fea9a9750051264a5",
    "wnids.txt": "342d6acf18911d62da4c981221f833718a3ef8299e55512239e09c64e49a344c",
    "words.txt": "5ce1fc83f3ad864c433325e4b078784c719bf0d5268c261f951aaa5334b045b5",
}
SOURCES: dict[str, Source] = {
    "mnist": Source(
        archives=(tuple(f"{name}.gz" for name in _MNIST_FILES), tuple(_MNIST_FILES)),
        into="MNIST/raw",
        file_hashes={f"raw/{name}": value for name, value in _MNIST_FILES.items()},
        needs_bytes=60_000_000,
    ),
    "tiny-imagenet": Source(
        archives=(tuple(_TINY_PARTS), ("tiny-imagenet-200.zip",)),
        archive_hashes={
            **{name: f"sha256:{value}" for name, value in _TINY_PARTS.items()},
            "tiny-imagenet-200.zip": "md5:90528d7ca1a48142e341f4ef8d21d0de",
        },
        counts=(("train/*/images", 100_000), ("train/*", 200), ("val/images", 10_000)),
        needs_bytes=900_000_000,
    ),
    "similarnet": Source(archives=(("numbers5.png",),), into="similarnet", needs_bytes=2_000_000),
    "imagenet-sample": Source(
        tree_hash="2bb2fdbeb765c32d3fe15f9b3caac3db6b93f1c906b2dbdde4b486087f2554c2", needs_bytes=40_000_000
    ),
    "coco-sample": Source(
        tree_hash="c3a176a3c9c1b55b4d341ec328e3f73369f6e0796a87956d2d2642c8263d7daa", needs_bytes=20_000_000
    ),
    "squeezenet": Source(
        tree_hash="a3cc135203541746488208bbaf66ac7aa11a8d57271325e36e2b0486f2297632", needs_bytes=4_000_000
    ),
}
