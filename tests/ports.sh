#!/usr/bin/env bash
# Sourced by tests that start programs.

# free_ports COUNT: as many ports that nobody listens on, in one line.
free_ports() { PYTHONPATH=tests python3 -c 'import sys, running; print(*running.free_ports(int(sys.argv[1])))' "$1"; }

# standing_ports COUNT: the same for a program that is ended and comes back to its ports, which nobody who connects is lent meanwhile.
standing_ports() { PYTHONPATH=tests python3 -c 'import sys, running; print(*running.standing_ports(int(sys.argv[1])))' "$1"; }
