"""An event loop in which async jobs of a worker run together, in one thread.

Jobs are isolated from each other as far as one thread allows: each has a context, threads for blocking calls, tasks and
processes of its own, and what it leaves of them ends with it. Only code that blocks the loop itself delays other jobs.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context, ContextVar
from copy import copy
from functools import partial
from typing import Any, TypeVar

import structlog
from asgiref.sync import ThreadSensitiveContext

from queues.call_threads import NAME, CallThreads, raise_in
from queues.deliveries import Claimed
from queues.errors import JobCancelled, JobTimedOut
from queues.isolation import close_caches
from queues.registry import RunResult
from queues.worker import child_processes
from queues.worker.checked_result import failed, fault
from queues.worker.running import FORKED_COPY, RunningJob, job_type_of, traced, usable

log = structlog.get_logger(__name__)
T = TypeVar("T")

CALLS_PER_JOB = 8
"""Threads that one job gets for `asyncio.to_thread` and the like."""
RESOLVERS = 16
"""Threads in which a loop resolves host names, for all jobs."""

_job: ContextVar[RunningInLoop | None] = ContextVar("job", default=None)
abandoned: list[object] = []
"""Tasks that were still there when their loop ended, since they catch whatever is to end them. Kept for the life of the
process: Python ends a coroutine that nothing refers to by an exception, and one that catches that, too, would go round
for ever in whichever thread collects it."""


class JobTask(asyncio.Task[T]):
    """A task that knows the job in whose context it was made."""

    job: RunningInLoop | None = None


def _task(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
    context: Context | None = options.get("context")
    job = _job.get() if context is None else context.get(_job)
    task: JobTask[Any] = JobTask(coroutine, loop=loop, **options)
    task.job = job
    if job is not None:
        job.began(task)
    return task


class EventLoop(asyncio.SelectorEventLoop):
    """asyncio's loop; threads and processes that a job starts belong to that job."""

    def __init__(self) -> None:
        super().__init__()
        self.set_task_factory(_task)
        self._resolvers = ThreadPoolExecutor(RESOLVERS, thread_name_prefix=NAME)

    def run_in_executor(self, executor: Any, func: Callable[..., T], *args: Any) -> asyncio.Future[T]:  # type: ignore[override]
        job = _job.get()
        if executor is None and job is not None:
            executor = job.calls
        return super().run_in_executor(executor, func, *args)

    async def getaddrinfo(self, host: Any, port: Any, **options: int) -> Any:
        return await self.run_in_executor(self._resolvers, partial(socket.getaddrinfo, host, port, **options))

    async def getnameinfo(self, sockaddr: Any, flags: int = 0) -> Any:
        return await self.run_in_executor(self._resolvers, socket.getnameinfo, sockaddr, flags)

    async def subprocess_exec(self, *args: Any, **options: Any) -> Any:
        return _noted(await super().subprocess_exec(*args, **options))

    async def subprocess_shell(self, *args: Any, **options: Any) -> Any:
        return _noted(await super().subprocess_shell(*args, **options))

    def close(self) -> None:
        self._resolvers.shutdown(wait=False)
        super().close()


def _noted(started: tuple[asyncio.SubprocessTransport, Any]) -> tuple[asyncio.SubprocessTransport, Any]:
    job, pid = _job.get(), started[0].get_pid()
    if job is not None and pid is not None:
        job.processes.add(pid)
    return started


class RunningInLoop(RunningJob):
    """A claimed delivery whose coroutine runs in a worker's event loop. All but `interrupt` and `repeat` is called there."""

    def __init__(self, claimed: Claimed, on_end: Callable[[RunningInLoop, RunResult], None]) -> None:
        super().__init__(claimed)
        self.calls = CallThreads(CALLS_PER_JOB)
        self.processes: set[int] = set()
        self.thread: LoopThread | None = None
        self._sync = CallThreads()
        self._on_end = on_end
        self._tasks: set[JobTask[Any]] = set()
        self._task: JobTask[RunResult] | None = None
        self._worker = os.getpid()

    def begin(self, thread: LoopThread) -> None:
        """Start the coroutine, unless the job has left this thread."""
        context = Context()
        context.run(_job.set, self)
        with self._lock:
            if self.thread is not thread:
                return
            self.deadline = thread.loop.time() + self.claimed.context.timeout
        context.run(self._create, thread.loop)

    def leave(self, thread: LoopThread) -> bool:
        """Leave a thread in which the job has not begun; False if it has. Called from any thread."""
        with self._lock:
            if self.deadline is not None or self.thread is not thread:
                return False
            self.thread = None
        thread.jobs.discard(self)
        return True

    def _create(self, loop: asyncio.AbstractEventLoop) -> None:
        task: Any = loop.create_task(self._perform())
        self._task = task

    def began(self, task: JobTask[Any]) -> None:
        """A task was made in the job's context."""
        self._tasks.add(task)
        task.add_done_callback(self._task_done)

    async def _perform(self) -> RunResult:
        with traced(self.claimed) as span:
            async with ThreadSensitiveContext(executor=self._sync):
                result = await self._result()
            span.note({"job.outcome": str(result.outcome)}, error=result.category or "")
        close_caches()
        return result

    async def _result(self) -> RunResult:
        try:
            job_type = job_type_of(self.claimed)
            if isinstance(job_type, RunResult):
                return job_type
            # A copy: a task may set anything in it, and settling uses the original.
            return usable(await job_type.run_async(copy(self.claimed.context), self.claimed.job.payload), self.claimed)
        except BaseException as error:  # noqa: BLE001 - also SystemExit and the like: they fail the attempt
            interrupted = isinstance(error, asyncio.CancelledError | JobTimedOut | JobCancelled)
            if interrupted and self._why is not None:
                return self.verdict()
            return failed(self.claimed, error)
        finally:
            if os.getpid() != self._worker:
                os._exit(FORKED_COPY)  # a process that the task has forked came back from it

    def _task_done(self, task: JobTask[Any]) -> None:
        """End the job when all of its tasks have ended; those that its coroutine leaves are cancelled."""
        self._tasks.discard(task)
        assert self._task is not None
        if not self._task.done():
            return
        if task is self._task:
            for left in self._tasks:
                left.cancel()
        if self._tasks:
            return
        with self._lock:
            self._done = True
        self._clean_up()
        try:
            result = self._task.result()
        except BaseException as error:  # noqa: BLE001 - cancelled before its first step, or our own fault
            result = self.verdict() if self._why is not None else fault(self.claimed, error)
        self._on_end(self, result)

    def _clean_up(self) -> None:
        self.calls.end()
        self._sync.end()
        if self._why is not None:
            child_processes.end(self._live_processes(), signal.SIGKILL)

    def _send(self, number: int) -> None:
        assert self.thread is not None and self._why is not None
        for calls in (self._sync, self.calls):
            calls.interrupt(self._why)
        self.thread.loop.call_soon_threadsafe(self._cancel, number)

    def _cancel(self, number: int) -> None:
        assert self._task is not None
        for task in [self._task] if not self._task.done() else list(self._tasks):
            task.cancel()
        child_processes.end(self._live_processes(), number)

    def _live_processes(self) -> set[int]:
        assert self.thread is not None
        return self.processes & child_processes.started_by(self.thread.native)

    def interrupt_blocking_code(self) -> None:
        """Called from another thread while this job's code blocks the loop: if the job is to end, raise the reason
        there, and end the processes that it may wait for."""
        with self._lock:
            if self._done or self._why is None or self.thread is None or self.thread.running() is not self:
                return
            raise_in(self.thread.ident or 0, self._why)
            others = {pid for job in list(self.thread.jobs) if job is not self for pid in job.processes}
            child_processes.end(child_processes.started_by(self.thread.native) - others, signal.SIGKILL)


class LoopThread(threading.Thread):
    """A thread with an event loop, in which jobs run until `stop`."""

    def __init__(self) -> None:
        super().__init__(name="job-loop", daemon=True)
        self.loop = EventLoop()
        self.jobs: set[RunningInLoop] = set()
        self.native = 0
        self._stopping = False
        self._asked_at: float | None = None
        """Monotonic seconds of a question that the loop has not answered yet."""

    def run(self) -> None:
        self.native = threading.get_native_id()
        asyncio.set_event_loop(self.loop)
        while not self._stopping:
            try:
                self.loop.run_forever()  # also ends if a job calls the loop's `stop`
            except BaseException as error:  # noqa: BLE001 - SystemExit in a job's task, or an interrupt that came late
                log.warning("worker.loop_interrupted", error=type(error).__name__)
        abandoned.extend(asyncio.all_tasks(self.loop))
        self.loop.close()

    def add(self, job: RunningInLoop) -> None:
        """Run a job. Called from any thread."""
        job.thread = self
        self.jobs.add(job)
        self.loop.call_soon_threadsafe(job.begin, self)

    def running(self) -> RunningInLoop | None:
        """The job whose code runs at this moment."""
        task = asyncio.current_task(self.loop)
        return task.job if isinstance(task, JobTask) else None

    def blocked_for(self, now: float) -> float:
        """Seconds for which the loop has not answered; asks it again if it has. Called from one thread."""
        if self._asked_at is not None:
            return now - self._asked_at
        self._asked_at = now
        self.loop.call_soon_threadsafe(self._answer)
        return 0.0

    def _answer(self) -> None:
        self._asked_at = None

    def stop(self) -> None:
        """End the thread, whatever runs in it."""
        self._stopping = True
        self.loop.call_soon_threadsafe(self.loop.stop)
