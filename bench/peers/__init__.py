"""COREA beside its peers on the same outcomes and the same splits, each peer from its own package in its own environment.

``python -m bench.peers DATA --envs DIR`` writes ``bench/results/peers.json`` and ``docs/peers.md``. Not part of
``make bench``: it installs five packages, and takes some minutes.
"""
