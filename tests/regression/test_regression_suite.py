"""A whole test of a deployment: every verdict, cause, report and exit code."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from regression_world import Bench, make_deployment, replace_artifact

from edgeofa.deployment import load_deployment, save_deployment
from edgeofa.devices.base import DeviceState, Endurance, Job, Outcome, Progress
from edgeofa.errors import DeviceError, RegressionFound, UnstableMeasurement, UsageError
from edgeofa.regression import timing
from edgeofa.regression.accept import accept
from edgeofa.regression.deployed import open_deployment
from edgeofa.regression.record import DeploymentTest, TestReport
from edgeofa.regression.reports import (
    junit_xml,
    markdown,
    raise_for,
    report_html,
    report_text,
    write_reports,
)
from edgeofa.regression.suite import Plan, run_tests
from edgeofa.regression.suite import test_deployment as run_one
from edgeofa.report.progress import Steps
from edgeofa.targets import load_target


@pytest.fixture(autouse=True)
def no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing cools down here."""
    monkeypatch.setattr(timing.settle, "__kwdefaults__", {"rest": lambda _: None})


@pytest.fixture
def folder(world: Path) -> Path:
    """A deployment with a baseline of the bench."""
    return world / "d"


def plan(folder: Path, **more: object) -> Plan:
    return Plan(folder.parent / "baselines", runs=40, **more)  # type: ignore[arg-type]


def run(folder: Path, device: Bench) -> DeploymentTest:
    return run_one(load_target("host"), device, open_deployment(folder), plan(folder))


def statuses(test: DeploymentTest) -> dict[str, str]:
    return {c.name: c.status for c in test.checks}


def summary(test: DeploymentTest, name: str) -> str:
    return next(c.summary for c in test.checks if c.name == name)


def as_report(*tests: DeploymentTest) -> TestReport:
    return TestReport(
        status=tests[0].status, target="host", deployments=tests, date="2026", edgeofa="0"
    )


def test_an_unchanged_deployment_passes(folder: Path) -> None:
    found = run(folder, Bench(seed=5))
    assert statuses(found) == {
        "artifact": "passed",
        "outputs": "passed",
        "latency": "passed",
        "energy": "skipped",
        "load time": "passed",
        "memory": "passed",
        "heap": "passed",
        "endurance": "passed",
    }
    assert found.status == "passed"
    assert "bit-identical" in summary(found, "outputs")
    assert (found.cause, found.changes) == ("", ())
    assert found.baseline is not None
    assert found.baseline.endswith("litert-2.3.0-measured.json")
    assert [p.runtime for p in found.history] == ["2.3.0", "2.3.0 (this run)"]
    raise_for(as_report(found))


def test_without_a_baseline_it_says_so_and_walks_through_the_layers(tmp_path: Path) -> None:
    made = make_deployment(tmp_path / "d")
    found = run(made, Bench())
    assert found.status == "passed"
    assert found.baseline is None
    assert "edgeofa baseline accept" in summary(found, "latency")
    assert "layers agree" in summary(found, "outputs")


def test_a_slow_down_names_its_block_and_what_changed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "benchmarks"))
    from artifact_faults import slowed

    # the bench's time grows with the file: idle operators make a block really larger
    replace_artifact(folder, slowed(folder / "model.tflite", "2.mbconv.expand", 60))
    found = run(folder, Bench())
    assert statuses(found)["latency"] == "failed"
    latency = next(c for c in found.checks if c.name == "latency")
    assert latency.blocks[0].block == "2.mbconv"
    assert latency.baseline is not None
    assert latency.value is not None
    assert latency.value > 1.06 * latency.baseline
    assert found.cause.startswith("the artifact is another one")
    assert "in block 2.mbconv" in found.cause
    assert found.changes[0].startswith("artifact: ")
    with pytest.raises(RegressionFound) as caught:
        raise_for(as_report(found))
    assert caught.value.exit_code == 6


@pytest.mark.parametrize(
    ("device", "cause"),
    [
        (
            Bench(slower=1.3, facts=Bench().facts | {"litert": "2.4.0 sha256:bb"}),
            "the runtime is another build",
        ),
        (Bench(slower=1.3, facts=Bench().facts | {"kernel": "6.6"}), "operating system's kernel"),
        (
            Bench(slower=1.3, state=DeviceState(1.5e9, "powersave")),
            "the governor is powersave instead of performance",
        ),
        (
            Bench(slower=1.25, state=DeviceState(1.2e9, "performance")),
            "the clock is 20% lower, which explains it",
        ),
        (Bench(slower=1.3), "nothing that is recorded has changed"),
    ],
)
def test_the_likely_cause(folder: Path, device: Bench, cause: str) -> None:
    found = run(folder, device)
    assert statuses(found)["latency"] == "failed"
    assert cause in found.cause


def test_a_slower_machine_is_unstable(folder: Path) -> None:
    found = run(folder, Bench(machine=1.5))
    assert statuses(found)["latency"] == "unstable"
    assert found.status == "unstable"
    assert any(c.startswith("yardstick: +50%") for c in found.changes)
    with pytest.raises(UnstableMeasurement) as caught:
        raise_for(as_report(found))
    assert caught.value.exit_code == 5


@pytest.mark.parametrize(
    ("endurance", "says"),
    [
        (Endurance(1, 2, 0, 0, 700_000), "2 outputs differ"),
        (Endurance(1, 0, 0, 500_000, 700_000), "memory grew by 488 KB"),
        (Endurance(1, 0, 3 << 20, None, None), "memory grew by 3072 KB"),
    ],
)
def test_runs_in_a_row(folder: Path, endurance: Endurance, says: str) -> None:
    found = run(folder, Bench(endurance=endurance))
    assert statuses(found)["endurance"] == "failed"
    assert says in summary(found, "endurance")


def test_drift_and_memory(folder: Path) -> None:
    found = run(folder, Bench(drift=0.4))
    assert "the time drifted by" in summary(found, "endurance")
    heap = Endurance(1, 0, 0, 0, 2_000_000)
    assert statuses(run(folder, Bench(endurance=heap)))["heap"] == "failed"


def test_an_artifact_that_the_runtime_refuses_is_a_regression(folder: Path) -> None:
    found = run(folder, Bench(refuses=True))
    assert statuses(found) == {"artifact": "passed", "outputs": "failed"}
    assert "the runtime refused it" in summary(found, "outputs")


@pytest.mark.parametrize("jobs", [0, 3, 4, 12, 19, 20, 30])
def test_a_device_that_dies_is_no_regression_and_leaves_nothing_half_done(
    folder: Path, jobs: int
) -> None:
    before = {p: p.read_bytes() for p in folder.parent.rglob("*") if p.is_file()}
    device = Bench(slower=1.3, dies_after=jobs)
    report = run_tests(
        load_target("host"), device, [open_deployment(folder)], plan(folder), Steps()
    )
    assert report.status == "error"
    assert report.deployments[0].checks[-1].status == "error"
    assert "the link is gone" in report_text(report)
    with pytest.raises(DeviceError) as caught:
        raise_for(report)
    assert caught.value.exit_code == 4
    assert {p: p.read_bytes() for p in folder.parent.rglob("*") if p.is_file()} == before


def test_a_device_that_dies_while_accepting_leaves_the_old_baseline(folder: Path) -> None:
    (path,) = (folder.parent / "baselines").rglob("*.json")
    before = path.read_bytes()
    for jobs in (1, 10, 60, 110):
        with pytest.raises(DeviceError, match="the link is gone"):
            accept(
                load_target("host"), Bench(dies_after=jobs), open_deployment(folder), plan(folder)
            )
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_baseline_of_another_device_is_refused(folder: Path) -> None:
    stranger = Bench(facts=Bench().facts | {"model": "another"})
    new = open_deployment(make_deployment(folder.parent / "without_a_baseline"))
    both = [new, open_deployment(folder)]
    with pytest.raises(UsageError, match="from another device") as caught:
        run_tests(load_target("host"), stranger, both, plan(folder), Steps())
    assert caught.value.exit_code == 2
    assert stranger.jobs == 0, "said before anything is measured"


def test_a_record_without_material_is_still_timed(folder: Path) -> None:
    record = load_deployment(folder / "deployment.json")
    save_deployment(record.model_copy(update={"test": None}), folder / "deployment.json")
    found = run(folder, Bench())
    assert statuses(found)["outputs"] == "skipped"
    assert statuses(found)["latency"] == "passed"


def test_an_emulated_board_says_what_it_cannot_tell(tmp_path: Path) -> None:
    made = make_deployment(tmp_path / "d", target="rpi4")
    target = load_target("rpi4")
    device = Bench(evidence="modelled")
    accept(target, device, open_deployment(made), plan(made))
    found = run_one(target, Bench(evidence="modelled"), open_deployment(made), plan(made))
    assert statuses(found)["load time"] == "skipped"
    assert statuses(found)["energy"] == "passed"
    slower = run_one(
        target, Bench(evidence="modelled", slower=1.03), open_deployment(made), plan(made)
    )
    assert statuses(slower)["latency"] == statuses(slower)["energy"] == "failed"


def test_fewer_runs_than_asked_for_are_said(folder: Path) -> None:
    class Slow(Bench):
        def run(
            self, jobs: Sequence[Job], *, threads: int = 1, progress: Progress | None = None
        ) -> list[Outcome]:
            import time

            time.sleep(0.05)
            return super().run(jobs, threads=threads, progress=progress)

    from edgeofa.regression.endurance import check_endurance

    found = check_endurance(
        Slow(evidence="modelled"),
        folder / "model.tflite",
        "litert",
        runs=1000,
        latency_ms=1.0,
        emulator_s=0.1,
        threads=1,
    )
    assert "(of 1000: the emulator is too slow for all)" in found.check.summary
    assert found.check.value is not None
    assert 16 <= found.check.value < 1000


# ------------------------------------------------------------------------------------- reports


@pytest.fixture
def failed(folder: Path) -> TestReport:
    hostile = "</script>|`<b>\x07&\u202e"
    found = run(folder, Bench(slower=1.3, facts=Bench().facts | {"kernel": hostile}))
    return as_report(found)


def test_junit_is_well_formed_and_counts(failed: TestReport) -> None:
    root = ElementTree.fromstring(junit_xml(failed))  # noqa: S314  (our own)
    (suite,) = root.findall("testsuite")
    cases = suite.findall("testcase")
    assert len(cases) == int(suite.get("tests", "0")) == len(failed.deployments[0].checks)
    assert suite.get("failures") == "1"
    (failure,) = suite.iter("failure")
    assert "baseline" in failure.get("message", "")
    assert "kernel: 6.1" in (failure.text or "")


def test_markdown_stays_in_its_cells(failed: TestReport) -> None:
    text = markdown(failed)
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(rows) >= len(failed.deployments[0].checks)
    assert "<b>" not in text.replace("\\<b\\>", "")
    assert "Likely cause" in text


def test_the_page_is_self_contained_with_pictures(failed: TestReport) -> None:
    page = report_html(failed)
    assert page.count("<svg") == 2
    assert "<script" not in page
    assert "&lt;/script&gt;" in page
    assert not re.search(r"""<(script|link|img|iframe)|src=|url\(\s*['"]?http""", page)


def test_reports_are_written_whole_and_the_summary_is_appended(
    failed: TestReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "summary.md"
    place.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(place))
    write_reports(failed, junit=tmp_path / "j.xml", report_file=tmp_path / "r.json")
    assert place.read_text().startswith("before\n## edgeofa test: ❌ failed")
    assert TestReport.model_validate(json.loads((tmp_path / "r.json").read_text())) == failed
    assert (tmp_path / "j.xml").read_text() == junit_xml(failed)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY")
    write_reports(failed, html=tmp_path / "page.html")
    assert (tmp_path / "page.html").is_file()


def test_a_threefold_verdict_is_the_worst(folder: Path) -> None:
    good = run(folder, Bench())
    unstable = run(folder, Bench(machine=1.5))
    bad = run(folder, Bench(endurance=replace(Bench().endurance, changed=1)))
    with pytest.raises(RegressionFound, match="endurance failed"):
        raise_for(as_report(good, unstable, bad))
    with pytest.raises(UnstableMeasurement):
        raise_for(as_report(good, unstable))
