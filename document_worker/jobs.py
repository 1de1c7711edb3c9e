"""What of an RQ record is believed.

A job in Redis is data that anybody with access to the server may have written. RQ imports whatever
function a record names, as the job itself and as its callbacks, and calls the webhooks it lists;
the JSON serializer only keeps pickles out. Here a name is looked up in a table and never imported.
"""

from collections.abc import Callable, Mapping
from typing import Any

from rq.job import Job

Task = Callable[..., Any]


class TaskRefused(Exception):
    """The record names a function that is not one of this worker's tasks."""


def job_class(tasks: Mapping[str, Task]) -> type[Job]:
    """A Job that can be nothing but one of ``tasks``, by the name it is enqueued under."""

    class ListedJob(Job):
        @property
        def func(self) -> Task:
            name = self.func_name
            if self.instance is not None or not isinstance(name, str) or name not in tasks:
                raise TaskRefused("the record names no task of this worker")
            return tasks[name]

        def restore(self, raw_data: Any) -> Any:
            super().restore(raw_data)
            self._success_callback_name = None
            self._failure_callback_name = None
            self._stopped_callback_name = None
            self.webhooks = []
            self.repeats_left = None
            self.group_id = None

    return ListedJob
