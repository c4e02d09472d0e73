"""Calls of `POST /v1/ctr/predict` for tests, and bodies to send."""

from __future__ import annotations

import json
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

from ctr_serving.http_predict import PATH
from tests.ctr.models import requests_of
from tests.ctr.service import Ctr


def post(ctr: Ctr, body: Any, query: str = "") -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return httpx.post(f"http://{ctr.address}{PATH}{query}", content=content, timeout=30.0)


def instances_of(ids: NDArray[np.int64], dense: NDArray[np.float32]) -> dict[str, Any]:
    return {
        "instances": [
            {"sparse_ids": row_ids, "dense_ids": row_dense}
            for row_ids, row_dense in zip(ids.tolist(), dense.tolist(), strict=True)
        ]
    }


def probabilities_of(answer: httpx.Response) -> NDArray[np.float64]:
    assert answer.status_code == 200, answer.text
    rows = [[each["prob0"], each["prob1"]] for each in answer.json()["predictions"]]
    return np.array(rows).reshape(-1, 2)


def changed(path: tuple[str | int, ...], value: Any) -> dict[str, Any]:
    """A valid body of two instances with one field replaced."""
    body: Any = instances_of(*requests_of(2))
    at = body
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value
    return dict(body)
