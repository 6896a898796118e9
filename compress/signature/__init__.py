"""What a network takes and gives: any structure of tensors, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compress.core import lazy

if TYPE_CHECKING:
    from compress.signature.inputs import InputTensor as InputTensor
    from compress.signature.inputs import Signature as Signature
    from compress.signature.inputs import bare as bare
    from compress.signature.inputs import signature_of as signature_of
    from compress.signature.inputs import taking_rows as taking_rows
    from compress.signature.outputs import first_tensor as first_tensor
    from compress.signature.outputs import leaves as leaves
    from compress.signature.outputs import tensors as tensors
else:  # so that a name that is gone is an error to a type checker, and not Any
    __all__, __getattr__, __dir__ = lazy(
        __name__,
        {
            "inputs": "InputTensor Signature bare signature_of taking_rows",
            "outputs": "first_tensor leaves tensors",
        },
    )
