"""What runs in a peer's environment: reads one JSON file, asks the package, writes another. Knows nothing of COREA.

Each is a script, started by the peer's own Python as ``python -P SCRIPT IN OUT``; only the standard library and the
peer's package are there. Packages are imported by name, as none of them is here when types are checked.
"""
