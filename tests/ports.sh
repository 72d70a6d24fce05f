#!/usr/bin/env bash
# Sourced by tests that start programs.

# free_ports COUNT: as many ports that nobody listens on, in one line.
free_ports() { PYTHONPATH=tests python3 -c 'import sys, running; print(*running.free_ports(int(sys.argv[1])))' "$1"; }
