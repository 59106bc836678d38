"""Helpers of the notebook series "Distilling BERT": `import kdhelpers as kd`."""

__version__ = "0.1.0"
