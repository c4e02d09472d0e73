"""Kubernetes manifests of a cluster."""
