"""Report to one ClearML task: python clearml_task.py FOLDER. `to_clearml` starts it with what is in FOLDER/task.json.

This is a process of its own, because ClearML changes the libraries and the signals of its process, and can block when
a second task is opened in it.
"""
import json
import sys
from pathlib import Path
from typing import Any

from clearml import Task

# ClearML would send the code of this program with uncommitted changes, and watch the libraries that it uses.
NOTHING = dict.fromkeys(("detect_repository", "matplotlib", "tensorflow", "tensorboard", "pytorch", "xgboost",
                         "scikit", "fastai", "lightgbm", "hydra", "tfdefines", "joblib", "megengine", "catboost",
                         "gradio", "jsonargparse"), False)

# A report from a thread of this process takes half the time.
setattr(Task, "_report_subprocess_enabled", False)  # noqa: B010


def main(folder: Path) -> None:
    content = json.loads((folder / "task.json").read_text(encoding="utf-8"))
    known = content["task"]
    Task.set_offline(content["offline"])
    task: Any = Task.init(project_name=content["project"], task_name=content["name"], reuse_last_task_id=known or False,
                     continue_last_task=0 if known else False, output_uri=False, auto_connect_arg_parser=False,
                     auto_connect_frameworks=NOTHING, auto_resource_monitoring=False, auto_connect_streams=False)
    logger = task.get_logger()
    if content["settings"]:
        task.set_parameters({f"Settings/{name}": value for name, value in content["settings"].items()})
    if content["card"]:
        task.set_comment(content["card"])
    for title, series, step, value in content["scalars"]:
        logger.report_scalar(title, series, value, iteration=step)
    for name, value in content["scores"].items():
        logger.report_single_value(name, value)
    for name, step in content["pictures"].items():
        logger.report_image("report", name, iteration=step, local_path=str(folder / f"{name}.png"),
                            delete_after_upload=False)
    name = task.id
    task.close()
    (folder / "sent.txt").write_text(name, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
