"""The teacher's answers as a stage of its own: shared among processes and machines, resumable."""

import logging
from pathlib import Path

import numpy as np

from kdhelpers import models, runtime
from kdhelpers.data import TEACHER_LOGITS
from kdhelpers.distillation.prepared import Prepared, prepare
from kdhelpers.distillation.teacher_logits import as_column, logits_fingerprint
from kdhelpers.errors import UserError
from kdhelpers.settings import RunSettings
from kdhelpers.storage import write_file, write_folder

log = logging.getLogger(__name__)
