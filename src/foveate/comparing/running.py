"""The trainings of a comparison, several at a time where the machine is shared out among them."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from queue import SimpleQueue

import torch

from foveate.comparing.trials import Place, Plan, Trial
from foveate.cores import reading_processes, usable_cores
from foveate.errors import UserError


def run_trials(trials: Sequence[Trial], plan: Plan, parallel: int, finished: Callable[[Trial, str], None]) -> list[str]:
    """Run what is not done yet, `parallel` at a time; the others go on when one fails.

    Args:
        trials: of the plan.
        plan: see `Plan`.
        parallel: trainings at a time; with several GPUs each has one of them, otherwise the processor's cores are shared out.
        finished: called in this thread after each trial, with why it failed, or "".

    Returns:
        Why trials failed.
    """
    places: SimpleQueue[Place] = SimpleQueue()
    for place in shared_out(parallel, accelerator=plan.settings.get("accelerator", "auto")):
        places.put(place)

    def attempt(trial: Trial) -> str:
        place = places.get()
        try:
            trial.run(plan, place)
        except UserError as error:
            return str(error)
        except OSError as error:
            return f"{trial}: {error.strerror or error}"
        finally:
            places.put(place)
        return ""

    problems = []
    with ThreadPoolExecutor(parallel) as pool:
        futures = {pool.submit(attempt, trial): trial for trial in trials if not trial.done}
        try:
            for future in as_completed(futures):
                problem = future.result()
                finished(futures[future], problem)
                problems += [problem] if problem else []
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return problems


def shared_out(parallel: int, accelerator: str = "auto") -> list[Place]:
    """What each of `parallel` trainings at a time has: a GPU of its own where there are several, otherwise its share of the cores."""
    if parallel == 1:
        return [Place()]
    visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    gpus = (visible or [str(number) for number in range(torch.cuda.device_count())]) if accelerator in ("auto", "gpu") else []
    readers = reading_processes(parallel)
    if len(gpus) > 1:
        return [Place({"CUDA_VISIBLE_DEVICES": gpus[place % len(gpus)]}, readers) for place in range(parallel)]
    return [Place({"OMP_NUM_THREADS": str(max(1, usable_cores() // parallel))}, readers)] * parallel
