#!/usr/bin/env python3
"""Trains every preset on several processes and compares the model's bytes with --accumulate.

usage: ranks.py PROGRAM [--device cpu] [--counts 2,3,4] [--mpirun PATH:PATH]

Each count uses --devices, and every mpirun. Needs no data: presets train on bundled images.
"""
import argparse, json, os, subprocess, sys, tempfile

arguments = argparse.ArgumentParser()
arguments.add_argument("program")
arguments.add_argument("--device", default="cpu")
arguments.add_argument("--counts", default="2,3,4")
arguments.add_argument("--mpirun", default="")
options = arguments.parse_args()
program = os.path.abspath(options.program)
environment = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1",
                   OMPI_MCA_rmaps_base_oversubscribe="1",
                   PRTE_MCA_rmaps_default_mapping_policy=":oversubscribe")


def run(line):
    done = subprocess.run(line, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        print(" ".join(line), done.stderr, file=sys.stderr)
    return done.stdout


listed = [json.loads(line) for line in run([program, "presets", "--json"]).splitlines()]
presets = [one["name"] for one in listed if one.get("command", "").startswith("csae train")]
launchers = [path for path in options.mpirun.split(":") if path]
equal = total = 0
with tempfile.TemporaryDirectory() as folder:
    for preset in presets:
        for count in map(int, options.counts.split(",")):
            train = [program, "train", "--preset", preset, "--steps", "2", "--batch", "12", "-q"]
            model = lambda name: open(os.path.join(folder, name, "model.safetensors"), "rb").read()
            device = ["--device", options.device]
            out = lambda name: ["--force", "--out", os.path.join(folder, name)]
            run(train + device + ["--accumulate", str(count)] + out("parts"))
            ways = {"--devices": train + ["--devices", ",".join([options.device] * count)]}
            for path in launchers:
                ways[path] = [path, "-np", str(count)] + train + device
            for name, line in ways.items():
                run(line + out("ranks"))
                same = model("ranks") == model("parts")
                equal, total = equal + same, total + 1
                words = "the same bytes" if same else "OTHER BYTES"
                print(f"{preset}, {count} processes, {name}: {words}", flush=True)
print(f"{len(presets)} presets, {total} trainings, {equal} with the bytes of --accumulate")
sys.exit(equal != total)
