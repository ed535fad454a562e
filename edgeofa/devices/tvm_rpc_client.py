"""A client of one TVM RPC server, as a program that speaks the native runner's protocol.

    python -m edgeofa.devices.tvm_rpc_client HOST PORT KEY THREADS

Job list in, events out, as of ``edgeofa-runner`` (targets/runtime/linux/runner.c). Each job is a
child process with a session of its own: what a model or a server does costs that job only. Times
are the board's own, taken by TVM's time evaluator there; the network is in none of them.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn, cast

import numpy as np

from edgeofa.backends.tvm.installed import VERSIONS
from edgeofa.backends.tvm.interface import Tensor, read_interface
from edgeofa.devices.protocol import PROTOCOL
from edgeofa.devices.tvm_rpc import ANSWER_S, LINK_STATUS, RpcAddress, greet
from edgeofa.errors import EdgeofaError, LinkLost

_MAX_EVENT_BYTES = 1 << 19
_MAX_SAMPLES = 4096
#: what the server overwrites before an invoke that is to find the caches without the weights
_FLUSH_BYTES = 1 << 24
#: each of them costs a flush
_MAX_COLD_SAMPLES = 50
#: the server's words for what the model did, and for a session that it ended
_REMOTE, _EXPIRED = "Error caught from RPC call", "RPCSessionTimeoutError"
_REASON_CHARS = 400
_ENDED = (
    "the connection ended while it ran, and the server answers: its process ended with the model"
)
#: of TVM's thread pool: threads on whichever processors are the fast ones
_FAST_PROCESSORS = 1


@dataclass(frozen=True)
class Order:
    """A job of the list (see targets/runtime/linux/job.h)."""

    model: Path
    input: Path | None
    output: Path | None
    warmups: int
    runs: int
    warmup_ns: int
    min_ns: int
    timeout_ms: int
    cold: bool
    watch: bool


def main() -> int:
    host, port, key, threads = sys.argv[1:]
    address = RpcAddress(host, int(port), key)
    try:
        greet(address, "the server")
    except LinkLost as error:
        sys.stderr.write(f"{error.what}\n")
        return LINK_STATUS
    except EdgeofaError as error:
        _say({"event": "fatal", "reason": error.what})
        return 2
    # TVM imports torch where it finds it, and nothing of it is needed here
    sys.modules["torch"] = cast(ModuleType, None)
    import tvm.rpc  # noqa: F401 - once, and not in every child

    version = f"{VERSIONS['apache-tvm']} by RPC"
    hello = {"event": "runner", "protocol": PROTOCOL, "runtime": "tvm", "version": version}
    _say({**hello, "pinned": False})
    number = -1
    for number, order in enumerate(_orders(sys.stdin)):
        if not _run(address, int(threads), order, number):
            return LINK_STATUS
    _say({"event": "end", "jobs": number + 1})
    return 0


def _say(event: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


def _orders(lines: Iterator[str]) -> Iterator[Order]:
    """The jobs of a list that edgeofa itself wrote."""
    words: dict[str, str] = {}
    for line in [*lines, "\n"]:
        key, _, value = line.rstrip("\n").partition(" ")
        if key:
            words[key] = value
        elif words:
            yield Order(
                model=Path(words["model"]),
                input=Path(words["input"]) if "input" in words else None,
                output=Path(words["output"]) if "output" in words else None,
                warmups=int(words["warmups"]),
                runs=int(words["runs"]),
                warmup_ns=int(words["warmup_ns"]),
                min_ns=int(words["min_ns"]),
                timeout_ms=int(words["timeout_ms"]),
                cold=words["cold"] == "1",
                watch=words["watch"] == "1",
            )
            words = {}


def _run(address: RpcAddress, threads: int, order: Order, number: int) -> bool:
    """One job in a child; False where the server is gone."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read_end)
        _child(address, threads, order, number, write_end)
    os.close(write_end)
    _say({"event": "start", "job": number, "pid": pid})
    # the server ends the session after the job's own time, and says so
    text = _collect(read_end, order.timeout_ms / 1e3 + 2 * ANSWER_S)
    if text is None:
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    if text is None:
        _say(_lost("timeout", number, f"no result within {order.timeout_ms} ms"))
        return True
    if os.WIFSIGNALED(status):
        _say(_lost("crash", number, f"TVM's client ended by signal {os.WTERMSIG(status)}"))
        return True
    if not text.endswith(b"\n") or os.waitstatus_to_exitcode(status) not in (0, LINK_STATUS):
        _say(_lost("crash", number, "TVM's client ended without a result"))
        return True
    event = json.loads(text)
    if os.waitstatus_to_exitcode(status) == LINK_STATUS:
        # the server lives, and the process in which it ran the model probably does not
        if not event.pop("begun") or not _answers(address):
            sys.stderr.write(f"{event['reason']}\n")
            return False
        event = _lost("crash", number, _ENDED)
    _say(event)
    return True


def _answers(address: RpcAddress) -> bool:
    try:
        greet(address, "the server")
    except EdgeofaError:
        return False
    return True


def _lost(event: str, number: int, reason: str) -> dict[str, Any]:
    return {"event": event, "job": number, "reason": reason[:_REASON_CHARS]}


def _collect(descriptor: int, timeout_s: float) -> bytes | None:
    """What the child wrote until it closed the pipe; None where it takes too long."""
    content, deadline = b"", time.monotonic() + timeout_s
    try:
        while len(content) <= _MAX_EVENT_BYTES:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([descriptor], [], [], left)[0]:
                return None
            chunk = os.read(descriptor, 1 << 16)
            if not chunk:
                return content
            content += chunk
    finally:
        os.close(descriptor)
    return b""


def _child(
    address: RpcAddress, threads: int, order: Order, number: int, write_end: int
) -> NoReturn:
    session = _Session(address, threads, order)
    status = 0
    try:
        event = {"event": "result", "job": number, **session.measure()}
    except Exception as error:  # TVM raises a class of its own for every kind of check
        status, event = _judge(error, order, number)
    if status:
        event["begun"] = session.begun
    with os.fdopen(write_end, "wb") as pipe:
        pipe.write(json.dumps(event).encode() + b"\n")
    # neither the session's nor TVM's own destructors: the server may be gone
    os._exit(status)


def _judge(error: Exception, order: Order, number: int) -> tuple[int, dict[str, Any]]:
    """What stopped a job: exit status and event."""
    text = f"{type(error).__name__}: {error}"
    if _EXPIRED in text:
        return 0, _lost("timeout", number, f"no result within {order.timeout_ms} ms")
    if isinstance(error, EdgeofaError):
        reason = error.what if error.hint is None else f"{error.what} ({error.hint})"
        return LINK_STATUS if isinstance(error, LinkLost) else 0, _lost("error", number, reason)
    # by an AttributeError TVM says that a module, or the server, has no such function
    if isinstance(error, OSError | AttributeError) or _REMOTE in text:
        return 0, _lost("error", number, _last_words(str(error)))
    return LINK_STATUS, _lost("error", number, _last_words(text))


def _last_words(text: str) -> str:
    """The end of TVM's message; what comes before is where in TVM it was raised."""
    return " ".join(text.split())[-_REASON_CHARS:]


class _Session:
    """One connection, which runs one job."""

    def __init__(self, address: RpcAddress, threads: int, order: Order):
        self.address, self.threads, self.order = address, threads, order
        #: the model runs: if the connection breaks now, the model may have broken it
        self.begun = False

    def measure(self) -> dict[str, Any]:
        """The members of a result event."""
        import tvm
        from tvm import rpc

        order, address = self.order, self.address
        content = order.model.read_bytes()
        interface = read_interface(order.model)
        greet(address, f"tvm-rpc://{address.host}:{address.port}")
        remote = rpc.connect(
            address.host, address.port, address.key, session_timeout=order.timeout_ms / 1e3
        )
        device = remote.cpu(0)
        remote.get_function("runtime.config_threadpool")(_FAST_PROCESSORS, self.threads)
        remote.upload(bytearray(content), "model.so")
        began = time.perf_counter_ns()
        module = remote.load_module("model.so")
        load_ns = time.perf_counter_ns() - began
        tensors = [tvm.runtime.empty(t.shape, t.dtype, device) for t in interface.inputs]
        for place, tensor in enumerate(interface.inputs):
            tensors[place].copyfrom(_content(tensor, order.input if place == 0 else None))
        outputs = [tvm.runtime.empty(t.shape, t.dtype, device) for t in interface.outputs]
        arguments = [*tensors, *outputs]
        self.begun = True
        watched = None
        if order.watch:
            samples_ns, watched = self._watch(module, device, arguments, outputs[0])
            number = 1
        else:
            samples_ns, number = self._sample(module, device, arguments)
        if order.output is not None:
            order.output.write_bytes(outputs[0].numpy().tobytes())
        return {
            "load_ns": load_ns,
            "regions": len(samples_ns) * number,
            "invokes_per_sample": number,
            "fully_accelerated": True,
            "input": _info(interface.inputs[0]),
            "output": _info(interface.outputs[0]),
            "watch": watched,
            "samples_ns": samples_ns,
        }

    def _sample(self, module: Any, device: Any, arguments: list[Any]) -> tuple[list[float], int]:
        """Times of invokes in ns, and how many invokes each is the mean of."""
        order = self.order
        main = module["main"]
        for _ in range(order.warmups):
            main(*arguments)
        flush = _FLUSH_BYTES if order.cold else 0
        one_s = min(_evaluate(module, device, arguments, 1, 3, 0))
        warming = order.warmup_ns / 1e9 / max(one_s, 1e-7)
        if warming > 1:
            _evaluate(module, device, arguments, int(min(warming, 1e6)), 1, 0)
        fitting = order.min_ns / 1e9 / max(one_s, 1e-7)
        number = 1 if order.cold else max(1, round(fitting / (_MAX_SAMPLES // 2)))
        most = max(order.runs, _MAX_COLD_SAMPLES) if order.cold else _MAX_SAMPLES
        repeats = min(max(order.runs, round(fitting / number)), most)
        found = _evaluate(module, device, arguments, number, repeats, flush)
        return [seconds * 1e9 for seconds in found], number

    def _watch(
        self, module: Any, device: Any, arguments: list[Any], output: Any
    ) -> tuple[list[float], dict[str, Any]]:
        """Every output compared with the first; the server does not tell its memory."""
        samples_ns: list[float] = []
        first, changed = None, 0
        for _ in range(self.order.runs):
            samples_ns += [s * 1e9 for s in _evaluate(module, device, arguments, 1, 1, 0)]
            now = output.numpy().tobytes()
            first = now if first is None else first
            changed += now != first
        nothing = dict.fromkeys(("resident_growth_bytes", "heap_growth_bytes", "heap_bytes"))
        return samples_ns, {"compared": self.order.runs, "changed": changed, **nothing}


def _evaluate(
    module: Any, device: Any, arguments: list[Any], number: int, repeats: int, flush_bytes: int
) -> list[float]:
    evaluator = module.time_evaluator(
        "main", device, number=number, repeat=repeats, cache_flush_bytes=flush_bytes
    )
    return [float(seconds) for seconds in evaluator(*arguments).results]


def _content(tensor: Tensor, path: Path | None) -> np.ndarray[Any, Any]:
    """A tensor out of a file that must have its size; else a fixed pattern of that type."""
    dtype = np.dtype(tensor.dtype)
    if path is not None:
        given = np.fromfile(path, dtype)
        if given.nbytes != tensor.bytes or path.stat().st_size != tensor.bytes:
            raise OSError(f"the input has not the {tensor.bytes} bytes that the model takes")
        return given.reshape(tensor.shape)
    rng = np.random.default_rng(12345)
    if dtype == np.float32:
        return rng.uniform(-1, 1, tensor.shape).astype(np.float32)
    return (rng.integers(-64, 64, tensor.shape) + (128 if dtype == np.uint8 else 0)).astype(dtype)


def _info(tensor: Tensor) -> dict[str, Any]:
    return {"bytes": tensor.bytes, "type": tensor.dtype, "shape": list(tensor.shape)}


if __name__ == "__main__":
    sys.exit(main())
