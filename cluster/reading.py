"""A source as a node of a dataflow: polls splits, computes columns, sets watermarks. Knows no connector."""

from __future__ import annotations

from millrace.cluster.surroundings import VertexContext, VertexMetrics
from millrace.cluster.vertex import Vertex
from millrace.operators.batch import END_OF_TIME, Batch
from millrace.operators.calc import Calc
from millrace.operators.operator import Operator
from millrace.operators.source import BadRecord, Position, SourceInput, SplitReader
from millrace.operators.watermarks import SplitWatermark, WatermarkTracker
from millrace.planner.plan import Node

DISCOVERY_INTERVAL_US = 1_000_000
