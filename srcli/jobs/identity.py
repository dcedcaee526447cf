"""What an output depends on: the input, and everything else as one checksum."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict

from srcli.checkpoints.shipped import sha256_of
from srcli.errors import InputError
from srcli.jobs.job import Job
from srcli.jobs.journal import recipe_of


def identity(job: Job, facts: Mapping[str, object]) -> tuple[str, str]:
    """Return checksums of the input, and of everything else that the output depends on.

    Args:
        job: With its size and its networks; without, only the failure is recorded.
        facts: Facts about all jobs: model, weights, version.

    Raises:
        InputError: The input cannot be read.
    """
    if job.to_stdout:
        return "", ""
    data = job.data
    try:
        digest = hashlib.sha256(data).hexdigest() if isinstance(data, bytes) else sha256_of(data)
    except OSError as error:
        raise InputError(
            f"{job.name}: cannot be read ({error.strerror})",
            "Check that it is there and that you may read it.",
        ) from error
    facts = {**facts, "size": None, "options": asdict(job.options), "page": job.page}
    if job.size is not None:
        # Not of the other networks that this batch happens to need.
        weights = facts.get("weights_sha256")
        known = weights if isinstance(weights, Mapping) else {}
        steps = (*job.steps, *job.steps_if_jpeg)
        used = {step.label: known.get(step.label) for step in steps}
        facts |= {"size": asdict(job.size), "weights_sha256": used}
    return digest, recipe_of(facts)
