"""The lines that the native runner writes: one JSON event each, checked before use."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter

PROTOCOL = 2
MAX_EVENT_BYTES = 1 << 19
_MAX_SAMPLES = 4096
_MAX_TENSOR_BYTES = 1 << 30


def printable(text: str) -> str:
    """What a device says goes into files, pages and terminals: one line, no control characters."""
    return "".join(c if c.isprintable() else " " if c.isspace() else "?" for c in text)


Printable = AfterValidator(printable)
_Nanoseconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Event(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Started(_Event):
    """The runner has loaded the library."""

    event: Literal["runner"]
    protocol: int
    runtime: Literal["litert", "onnxruntime", "tvm"]
    version: Annotated[str, Field(max_length=64), Printable]
    pinned: bool


class Start(_Event):
    """A job begins in the process ``pid``."""

    event: Literal["start"]
    job: int = Field(ge=0)
    pid: int


class Lost(_Event):
    """A job without a measurement; ``log`` is the end of what its process printed."""

    event: Literal["error", "crash", "timeout"]
    job: int = Field(ge=0)
    reason: Annotated[str, Field(max_length=1024), Printable]
    log: str = Field(default="", max_length=8192)


class Fatal(_Event):
    """The runner cannot run anything."""

    event: Literal["fatal"]
    reason: Annotated[str, Field(max_length=1024), Printable]


class End(_Event):
    """The job list is done."""

    event: Literal["end"]
    jobs: int = Field(ge=0)


class State(_Event):
    """What can change a time, None where unreadable."""

    clock_hz: float | None
    temperature_c: float | None
    load: float | None
    throttled: bool | None
    #: counts up with every throttling since the device was started
    throttle_events: float | None = Field(ge=0, allow_inf_nan=False)
    governor: Annotated[str, Field(max_length=64), Printable] | None


class TensorInfo(_Event):
    """An input or output as the runtime reports it."""

    bytes: int = Field(ge=0, le=_MAX_TENSOR_BYTES)
    type: Literal["float32", "int8", "uint8"]
    shape: tuple[int, ...] = Field(max_length=8)


class Watched(_Event):
    """Of a job with ``watch``: ``changed`` of ``compared`` outputs differ from the first one.

    The growths are from a quarter of the runs to the end; ``heap_bytes`` is what the C library took
    from the system. None where the device does not tell.
    """

    compared: int = Field(ge=1)
    changed: int = Field(ge=0)
    resident_growth_bytes: int | None
    heap_growth_bytes: int | None
    heap_bytes: int | None


class RunnerResult(_Event):
    """What the runner measured in one job; ``pid`` was the job's process.

    ``regions``: how many timed invokes the job marked for an emulator, the last ones being the
    samples' own. ``yardstick_ns``: a fixed piece of arithmetic, timed before and after the job, by
    which two times of one machine are comparable. ``preemptions``: how often something else took
    the processor during the samples. Emulated jobs report none of these, and no device state.
    """

    event: Literal["result"]
    job: int = Field(ge=0)
    load_ns: int = Field(ge=0)
    regions: int = Field(ge=1)
    invokes_per_sample: int = Field(ge=1)
    fully_accelerated: bool | None
    input: TensorInfo
    output: TensorInfo
    peak_rss_bytes: int | None = None
    before: State | None = None
    after: State | None = None
    preemptions: int | None = Field(default=None, ge=0)
    yardstick_ns: tuple[_Nanoseconds, _Nanoseconds] | None = None
    watch: Watched | None = None
    samples_ns: tuple[_Nanoseconds, ...] = Field(min_length=1, max_length=_MAX_SAMPLES)


Event = Annotated[Started | Start | RunnerResult | Lost | Fatal | End, Field(discriminator="event")]
_ADAPTER: TypeAdapter[Event] = TypeAdapter(Event)


def parse_event(line: bytes) -> Event:
    """One line as its event; ``ValidationError`` (a ``ValueError``) when it is none."""
    return _ADAPTER.validate_json(line)
