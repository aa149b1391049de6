"""Geometry of training: curvature, landscape, trajectory, intrinsic dimension (needs torch)."""
