"""The vision tower: once over every distinct image, and what it has seen lately."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from workers.engine.adapters.base import Adapter, Features, ImageInput, Layout
from workers.engine.counting import Tally
from workers.engine.jobs import Job
from workers.engine.preparing import FeatureCache


class Sight:
    """Looks at the images that jobs wait for, several in one pass."""

    def __init__(self, adapter: Adapter, features: FeatureCache, batch: int, tally: Tally) -> None:
        """`batch` images pass the tower at once at most."""
        self._adapter, self._features, self._batch, self._tally = adapter, features, batch, tally

    @property
    def nbytes(self) -> int:
        """Of the features that are held."""
        return self._features.nbytes

    def look(self, jobs: Sequence[Job]) -> dict[str, Exception]:
        """Run the vision tower once over the distinct images that the first of `jobs` wait for.

        Returns the images it could not take, with the reason: one that fails must not spoil the others.
        """
        # What the last look found could enter the batch meanwhile. Whoever waits longest keeps its images, however
        # little room there is: else two that wait could drive each other's out for ever.
        first = jobs[0].layout if jobs else None
        self._features.trim(keep=first.images if first else ())
        wanted: dict[str, tuple[Job, ImageInput]] = {}
        for job in jobs:
            for image, item in job.inputs.items():
                if image not in wanted and self._features.get(image) is None:
                    wanted[image] = (job, item)
            if len(wanted) >= self._batch:
                break
        if not wanted:
            return {}
        try:
            self._see(wanted)
        except RuntimeError as error:
            if len(wanted) == 1:
                return dict.fromkeys(wanted, error)
            return self._look_singly(wanted)
        return {}

    def _see(self, wanted: Mapping[str, tuple[Job, ImageInput]]) -> None:
        found = self._adapter.see([item for _, item in wanted.values()])
        for (image, (job, item)), features in zip(wanted.items(), found, strict=True):
            self._features.put(image, features, item.stub)
            job.vision_calls += 1
        self._tally.vision_calls += len(wanted)
        self._tally.vision_batches += 1

    def _look_singly(self, wanted: Mapping[str, tuple[Job, ImageInput]]) -> dict[str, Exception]:
        failed: dict[str, Exception] = {}
        for image, item in wanted.items():
            try:
                self._see({image: item})
            except RuntimeError as error:
                failed[image] = error
        return failed

    def can_look(self, job: Job, layout: Layout) -> bool:
        """Whether the job brought the pixels of all its images that have no features."""
        return all(image in job.inputs or self._features.get(image) for image in layout.images)

    def found(self, layout: Layout) -> list[Features] | None:
        """The features of all images, or None when one of them is not there."""
        found = [self._features.get(image) for image in layout.images]
        present = [features for features in found if features is not None]
        return present if len(present) == len(found) else None
