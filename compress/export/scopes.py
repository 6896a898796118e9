"""Which module of the network a node of an exported file comes from: both exporters note it, each in its own way."""

from __future__ import annotations

import ast

from onnx import NodeProto

NAME_SCOPES = "pkg.torch.onnx.name_scopes"
"""Where the newer exporter notes the modules around a node, outermost first, and its own name at the end."""


def module_of(node: NodeProto) -> str:
    """The qualified name of the innermost module that a node comes from; empty where none is noted."""
    for noted in node.metadata_props:
        if noted.key == NAME_SCOPES:
            return str(ast.literal_eval(noted.value)[-2])
    names = list[str]()  # the older exporter: /layer1/layer1.0/conv/conv.0/Conv
    for part in node.name.strip("/").split("/")[:-1] if node.name.startswith("/") else ():
        if names and part.startswith(f"{names[-1]}."):  # a member of a Sequential repeats what holds it
            names.pop()
        names.append(part)
    return ".".join(names)
