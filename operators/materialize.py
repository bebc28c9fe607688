"""A materialised table: the folded changelog of a stream, kept to be queried. Knows no SQL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from millrace.operators.batch import Batch
from millrace.operators.operator import VNODE, Capture, Context, Operator, StateDelta
from millrace.operators.sink import Changelog
from millrace.operators.spec import OperatorSpec
