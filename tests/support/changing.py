"""A module whose import changes global state, which importing a module must not do."""

import csv
import gc
import logging
import os
import signal
import sys
import threading
import time
import warnings

import torch

warnings.filterwarnings("ignore", module="nobody")
logging.getLogger("urllib3.connection").addFilter(lambda _: True)
os.environ["SCORE_CHANGED"] = "1"
sys.path.append("nowhere")
threading.Thread(target=time.sleep, args=[60], name="changing", daemon=True).start()
csv.field_size_limit(1)
gc.set_threshold(1)
torch.set_grad_enabled(False)
signal.signal(signal.SIGUSR1, signal.SIG_IGN)
