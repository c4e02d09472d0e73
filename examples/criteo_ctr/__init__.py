"""Criteo CTR prediction from training to serving: train, export, serve, check."""

import os
import warnings

# Paddle's remarks on the import of its compiler front end and on exporting a model concern nobody
# here and would tear the progress bars; glog reads its level when Paddle is imported.
os.environ.setdefault("GLOG_minloglevel", "2")
warnings.filterwarnings("ignore", "No ccache found", UserWarning)
