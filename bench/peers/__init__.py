"""COREA beside its peers: the same outcomes, the same splits, each peer its own package in an environment of its own.

``python -m bench.peers DATA --envs DIR`` writes ``bench/results/peers.json`` and the tables of ``docs/peers.md``. Not
part of ``make bench``: it installs five packages, and takes some minutes.
"""
