"""The Nexmark generator: an auction site's persons, auctions and bids as a source and as plain record batches."""

from millrace.operators.connectors.nexmark.connector import CONNECTOR
from millrace.operators.connectors.nexmark.generator import generate
from millrace.operators.connectors.nexmark.schema import AUCTION, BID, EVENT, PERSON, SCHEMAS
from millrace.operators.connectors.nexmark.source import NexmarkSpec

__all__ = ["AUCTION", "BID", "CONNECTOR", "EVENT", "PERSON", "SCHEMAS", "NexmarkSpec", "generate"]
