"""What Collector costs, as ratios: each figure is measured against a baseline in the same run.

    python -m benchmarks [--quick] [--json] [http sqlite single wal …]

Servers, databases and generators are processes of their own, started and ended here, on loopback.
"""
