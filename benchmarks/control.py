"""The control that predictions are compared with: `python -m benchmarks.control PORT MODEL`.

What somebody writes who needs a prediction and nothing else: FastAPI, a pydantic body of 15 floats, one run of the ONNX
file per call, in one uvicorn process.
"""

import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
import uvicorn
from fastapi import FastAPI
from pydantic import create_model

COLUMNS = [f"x{number}" for number in range(15)]
Row = create_model("Row", **dict.fromkeys(COLUMNS, (float, ...)))  # type: ignore[call-overload]


def create_app(model: Path) -> FastAPI:
    """The control's application."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.read_bytes(), options, providers=["CPUExecutionProvider"])
    (rows,) = (column.name for column in session.get_inputs())
    app = FastAPI()

    @app.post("/predict")
    async def predict(row: Row) -> dict[str, float]:
        values = row.model_dump()
        (_, scores) = session.run(None, {rows: np.array([[values[name] for name in COLUMNS]], dtype=np.float32)})
        return {"score": float(scores[0, 1])}

    @app.get("/readyz")
    async def readyz() -> dict[str, str]:
        return {"status": "ready"}

    return app


if __name__ == "__main__":
    uvicorn.run(create_app(Path(sys.argv[2])), host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
