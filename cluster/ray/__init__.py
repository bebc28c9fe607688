"""The runtime on Ray: actors around the protocol's machines. The only place that imports Ray."""
