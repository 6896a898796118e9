"""How a file is to be served: the same few settings for every server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from compress.errors import ConfigError

Server = Literal["triton", "kserve", "mlserver"]
Device = Literal["auto", "cpu", "gpu"]


@dataclass(frozen=True, slots=True)
class Serving:
    """Batching and placement.

    Attributes:
        max_batch: images that the server may put together; 0 serves single requests as they come.
        preferred: batch sizes that it goes for first; Triton's manual advises none, except for TensorRT's profiles.
        queue_delay_us: microseconds that a request may wait for others.
        instances: copies of the network on each device.
        threads: of one copy on the CPU; 0 leaves it to the server.
        device: ``auto`` takes a GPU where there is one.
        keep_versions: newest versions that are served.
        tensorrt: precision (``fp32``, ``fp16`` or ``int8``) in which TensorRT is to run the network on a GPU; empty without.
    """

    max_batch: int = 32
    preferred: tuple[int, ...] = ()
    queue_delay_us: int = 500
    instances: int = 1
    threads: int = 0
    device: Device = "auto"
    keep_versions: int = 1
    tensorrt: str = ""

    def __post_init__(self) -> None:
        least = {"max_batch": 0, "queue_delay_us": 0, "instances": 1, "threads": 0, "keep_versions": 1}
        for name, wanted in least.items():
            if getattr(self, name) < wanted:
                option = name.replace("_", "-")
                raise ConfigError(f"--{option} {getattr(self, name)}, {wanted} or more is wanted", hint=f"leave --{option} out")
        if self.device not in ("auto", "cpu", "gpu"):
            raise ConfigError(f"--device {self.device!r} is not known", hint="--device auto, cpu or gpu")
        if self.tensorrt not in ("", "fp32", "fp16", "int8"):
            raise ConfigError(f"--tensorrt {self.tensorrt!r} is not known", hint="--tensorrt fp32, fp16 or int8")
        if self.tensorrt and self.device == "cpu":
            raise ConfigError("--tensorrt runs on a GPU, --device is cpu", hint="leave --device out")
        fitting = tuple(sorted({size for size in self.preferred if 0 < size <= self.max_batch}))
        object.__setattr__(self, "preferred", fitting)
