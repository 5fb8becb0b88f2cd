#!/usr/bin/env python3
"""tools/bench: figures, table and plot from samples that are known.

usage: bench_figures.py SOURCE_ROOT
"""
import math
import pathlib
import sys
import unittest
import xml.etree.ElementTree

ROOT = pathlib.Path(sys.argv.pop(1)).resolve()
sys.path.insert(0, str(ROOT / "tools/bench"))

import figures  # noqa: E402
import overrun  # noqa: E402
import pairs  # noqa: E402
import plot  # noqa: E402
import rows  # noqa: E402
import table  # noqa: E402

INF = math.inf


def row(times: dict[str, list[float]]) -> dict:
    first, other = list(times)[:2]
    def samples(values: list[float]) -> list[dict]:
        return [{"failure": "lost" if ms == INF else ""} for ms in values]

    return {"id": "P0", "name": "nothing", "what": "nothing <over> nothing", "unit": "ms", "until": "endNs", "load": [0.1, 0.2],
            "sides": [{"name": name, **figures.summary(ms), "ms": ms, "samples": samples(ms)} for name, ms in times.items()],
            "ratios": [{"of": first, "over": other, **figures.ratio_of_medians(times[first], times[other])}],
            "stages": {}, "again": {"of": "again", "over": first, **figures.ratio_of_medians(times[first], times[first])}}


def results(*rows: dict) -> dict:
    return {"started": "then", "finished": "later", "machine": {"cores": 2}, "rows": list(rows)}


class Figures(unittest.TestCase):
    def test_percentiles_are_values_that_were_measured(self):
        values = [float(v) for v in range(1, 101)]
        self.assertEqual([figures.percentile(values, s) for s in (0.5, 0.95, 0.99)], [50.0, 95.0, 99.0])
        self.assertEqual(figures.percentile([3.0, 1.0], 0.99), 3.0)

    def test_a_failure_counts_as_infinite_and_is_not_dropped(self):
        found = figures.summary([1.0, INF, 2.0, 3.0])
        self.assertEqual((found["n"], found["failures"], found["p50"], found["max"]), (4, 1, 2.5, INF))

    def test_the_ratio_is_within_its_interval_and_the_same_each_time(self):
        mine, theirs = [1.0, 1.1, 1.2, 0.9, 1.0, 1.05], [2.0, 2.1, 1.9, 2.2, 2.0, 2.05]
        found = figures.ratio_of_medians(mine, theirs)
        self.assertLessEqual(found["ci95"][0], found["ratio"])
        self.assertLessEqual(found["ratio"], found["ci95"][1])
        self.assertEqual(found, figures.ratio_of_medians(mine, theirs))

    def test_too_many_failures_make_a_ratio_infinite_and_on_both_sides_meaningless(self):
        self.assertEqual(figures.ratio_of_medians([INF, INF, 1.0], [1.0, 1.0, 1.0])["ratio"], INF)
        self.assertIsNone(figures.ratio_of_medians([INF, INF], [INF, INF])["ratio"])

    def test_time_by_state_leaves_out_samples_without_a_timeline(self):
        samples = [{"timeline": [["ACCEPTED", 0], ["RUNNING", 4_000_000], ["SUCCEEDED", 5_000_000]]}, {"failure": "lost"},
                   {"timeline": [["ACCEPTED", 0], ["RUNNING", 2_000_000], ["SUCCEEDED", 9_000_000]]}]
        self.assertEqual(figures.stages(samples), {"ACCEPTED": 3.0, "RUNNING": 4.0})

    def test_infinity_is_text_in_json(self):
        self.assertEqual(figures.for_json({"a": [INF, 1.5, {"b": INF}]}), {"a": ["inf", 1.5, {"b": "inf"}]})


class Interleaving(unittest.TestCase):
    def test_two_rounds_read_forwards_and_backwards_after_one_that_is_thrown_away(self):
        log = []
        sides = {name: lambda name=name: log.append(name) or {"number": len(log)} for name in "AB"}
        taken = pairs.interleaved(sides, 2, 0.0, "test")
        self.assertEqual("".join(log), "AB" + "ABA" + "ABA")
        self.assertEqual([s["number"] for s in taken["A"]], [3, 8])
        self.assertEqual([s["number"] for s in taken["B"]], [4, 7])
        self.assertEqual([s["number"] for s in taken[pairs.AGAIN]], [5, 6])


class Reports(unittest.TestCase):
    def test_the_table_shows_figures_ratios_and_what_is_missing(self):
        text = table.markdown(results(row({"mine": [1.0, 2.0], "theirs": [10.0, INF]}),
                                      {"id": "P9", "name": "absent", "what": "nothing", "missing": "a guest"}))
        self.assertIn("| theirs | 2 | 1 | ∞ | ∞ | ∞ | ∞ |", text)
        self.assertIn("- theirs: 1 × lost", text)
        self.assertIn("| mine / theirs |", text)
        self.assertIn("**Not measured.** Missing: a guest", text)

    def test_a_ratio_without_a_meaning_is_said_to_have_none(self):
        self.assertIn("means nothing", table.markdown(results(row({"mine": [INF, INF], "theirs": [INF, INF]}))))

    def test_the_plot_is_well_formed_with_a_dot_for_each_sample_and_a_cross_for_each_failure(self):
        drawn = plot.svg(results(row({"mine": [1.0, 2.0, 3.0], "<theirs>": [10.0, INF, 30.0]}), row({"x": [INF], "y": [INF]})))
        root = xml.etree.ElementTree.fromstring(drawn)
        self.assertEqual(len(root.findall("{*}circle")), 5)
        self.assertEqual(drawn.count("×"), 1)
        self.assertIn("every run failed", drawn)


class Overruns(unittest.TestCase):
    @staticmethod
    def sample(died: int | None, reason: str = "DeadlineExceeded", verdict: str = "CLEAN") -> dict:
        return overrun._sample("u", {"exit": {"reason": reason, "deadline": {"set": {"bootTimeNs": 5_000_000}}},
                                     "teardown": {"verdict": verdict}}, died)

    def test_the_time_is_from_the_deadline_on_record_to_the_last_task(self):
        self.assertEqual(overrun.figures([self.sample(7_500_000)]), [2.5])

    def test_what_ended_early_is_counted_and_not_averaged_away(self):
        samples = [self.sample(7_000_000), self.sample(4_999_999)]
        self.assertEqual(overrun.early(samples), 1)
        self.assertLess(min(overrun.figures(samples)), 0)

    def test_another_end_no_end_and_residue_are_failures(self):
        for sample in (self.sample(7_000_000, "Error"), self.sample(None), self.sample(7_000_000, verdict="RESIDUE"),
                       overrun._sample("u", {}, 1)):
            self.assertNotEqual(sample["failure"], "")
            self.assertEqual(overrun.figures([sample]), [INF])


class Boots(unittest.TestCase):
    def failed(self, *timeline: tuple[str, float]) -> dict:
        timeline = [[state, int(seconds * 1e9)] for state, seconds in timeline]
        return rows.boot_failure(3, {"failure": "why", "startNs": 1, "timeline": timeline})

    def test_a_boot_that_used_up_its_time_is_a_hang(self):
        found = self.failed(("ACCEPTED", 0), ("PREPARING", 0.1), ("STARTING", 0.2), ("TEARING_DOWN", 60.3), ("FAILED", 60.4))
        self.assertEqual((found["hang"], found["stage"], found["stageMs"]), (True, "STARTING", 60100))

    def test_a_boot_that_ended_earlier_is_another_failure(self):
        found = self.failed(("ACCEPTED", 0), ("STARTING", 0.2), ("RUNNING", 2.2), ("STOPPING", 3.2), ("TEARING_DOWN", 3.3), ("FAILED", 3.4))
        self.assertEqual((found["hang"], found["stage"], found["stageMs"]), (False, "RUNNING", 1000))

    def test_a_node_that_never_answers_hangs_and_one_that_is_not_there_does_not(self):
        silent = {"failure": "did not answer", "startNs": 1, "gaveUpNs": 1 + rows.JOB_LIMIT_S * 10**9}
        self.assertTrue(rows.boot_failure(1, silent)["hang"])
        self.assertFalse(rows.boot_failure(1, silent | {"gaveUpNs": 2})["hang"])

    def test_success_is_no_failure(self):
        self.assertIsNone(rows.boot_failure(1, {"failure": ""}))


if __name__ == "__main__":
    unittest.main()
