"""The errors of the libraries that convert, load and run ONNX files."""

from onnxruntime.capi.onnxruntime_pybind11_state import (
    Fail,
    InvalidArgument,
    InvalidGraph,
    NotImplemented,  # noqa: A004 - an operator has no kernel for its types
    RuntimeException,
)
from skl2onnx.common.exceptions import MissingConverter, MissingShapeCalculator

FOREIGN = (
    Fail,
    InvalidArgument,
    InvalidGraph,
    NotImplemented,
    RuntimeException,
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    NameError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
    MissingConverter,
    MissingShapeCalculator,
)
"""What skl2onnx and onnxruntime raise where they can't convert or load; none of it reaches a caller."""
