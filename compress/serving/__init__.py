"""Inference servers that speak the v2 protocol: asking them, replacing a model under traffic, measuring what they sustain."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compress.core import lazy

if TYPE_CHECKING:
    from compress.serving.client import Client as Client
    from compress.serving.deployment import DeploymentLimits as DeploymentLimits
    from compress.serving.deployment import deploy as deploy
    from compress.serving.load_test import LoadResult as LoadResult
    from compress.serving.load_test import Scenario as Scenario
    from compress.serving.load_test import Tried as Tried
    from compress.serving.load_test import asking as asking
    from compress.serving.load_test import sustained as sustained
    from compress.serving.packages import name_of as name_of
    from compress.serving.packages import package as package
    from compress.serving.settings import Server as Server
    from compress.serving.settings import Serving as Serving
    from compress.serving.v2_protocol import DATATYPES as DATATYPES
else:  # so that a name that is gone is an error to a type checker, and not Any
    __all__, __getattr__, __dir__ = lazy(
        __name__,
        {
            "client": "Client",
            "deployment": "DeploymentLimits deploy",
            "load_test": "LoadResult Scenario Tried asking sustained",
            "packages": "name_of package",
            "settings": "Server Serving",
            "v2_protocol": "DATATYPES",
        },
    )
