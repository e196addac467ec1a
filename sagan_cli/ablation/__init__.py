"""Ablation of attention: runs that differ in attention only, and their comparison."""
