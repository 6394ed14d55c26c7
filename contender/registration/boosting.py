"""LightGBM and XGBoost, by onnxmltools' converters; needs the extra `boosting`."""

from functools import cache
from typing import Any

from lightgbm import LGBMClassifier, LGBMRegressor
from onnxmltools.convert.lightgbm.operator_converters.LightGbm import convert_lightgbm
from onnxmltools.convert.xgboost.operator_converters.XGBoost import convert_xgboost
from skl2onnx import update_registered_converter
from skl2onnx.common.shape_calculator import (
    calculate_linear_classifier_output_shapes,
    calculate_linear_regressor_output_shapes,
)
from xgboost import XGBClassifier, XGBRegressor

_CLASSIFIED: dict[str, Any] = {"nocl": [True, False], "zipmap": [True, False, "columns"]}


@cache
def register_converters() -> None:
    """Tell skl2onnx how boosted trees are converted; once a process."""
    for model, convert in ((LGBMClassifier, convert_lightgbm), (XGBClassifier, convert_xgboost)):
        update_registered_converter(
            model, model.__name__, calculate_linear_classifier_output_shapes, convert, options=_CLASSIFIED
        )
    for model, convert in ((LGBMRegressor, convert_lightgbm), (XGBRegressor, convert_xgboost)):
        update_registered_converter(model, model.__name__, calculate_linear_regressor_output_shapes, convert)
