//! wharf and its peers, side by side in one run: how long until a container
//! answers, what it holds in memory, what a build and a push take, how fast files
//! are served and workers answer, and how soon `wharf-host` is there.
//!
//! Rounds of the two are interleaved, so that a noisy machine is as unfair to
//! one as to the other. Ratios are what to look at.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the figures are data, the progress is talk")]

mod build;
mod container;
mod crowd;
mod docker;
mod first;
mod hosts;
mod languages;
mod load;
mod nginx;
mod pages;
mod push;
mod sample;
mod wasmtime;
mod workers;

use std::process::ExitCode;

use sample::Comparison;
use wharf_tests::engine::Generation;

const USAGE: &str = "\
Usage: bench.sh [--json] [--engine 1.7|2.1] [--rounds N] [--runwasi SHIM] [MEASURE]...

Compares wharf with its peers. Default: everything, 15 rounds (3 of load),
containerd 2.1. Needs WHARF_BIN_DIR and root.

  start    containers to their first answer; runc + nginx. With the path of runwasi's
           containerd-shim-wasmtime-v1, also a plain component's, and its memory
  memory   of idle containers and shims; runc + nginx
  many     containers: a hundred started, fifty idle; runc + nginx
  docker   containers with a published port; runc + nginx
  first    start of a Python app on a node, and the size of the shim
  build    images of a site; buildah, umoci
  push     of an image; skopeo, crane
  static   files of 1 KB and 1 MB, and JupyterLite's page, under load; nginx
  workers  Rust, JS, Python and Flask under load; wasmtime serve, raw hyper
  languages  a hello in each: requests, builds, images; componentize-py
  hosts    wharf-host to its first answer, and its memory when idle

What `(≥ 1.1)` follows has this target for its ratio.

Example: bench.sh --engine 1.7 start memory";

struct Arguments {
    json: bool,
    generation: Generation,
    rounds: usize,
    runwasi: Option<&'static str>,
    measures: Vec<String>,
}

fn main() -> ExitCode {
    let arguments = match parse(std::env::args().skip(1)) {
        Ok(Some(arguments)) => arguments,
        Ok(None) => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("error: {error}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let wants =
        |measure: &str| arguments.measures.is_empty() || arguments.measures.iter().any(|m| m == measure);
    if wants("workers")
        && let Err(error) = workers::prepare()
    {
        eprintln!("error: {error}");
        return ExitCode::FAILURE;
    }
    let mut comparisons: Vec<Comparison> = Vec::new();
    let mut notes: Vec<String> = Vec::new();
    if wants("start") || wants("memory") || wants("many") {
        let engine = container::Bench::prepare(arguments.generation);
        if wants("start") {
            eprintln!("start: {} rounds", arguments.rounds);
            comparisons.extend(engine.start(arguments.rounds));
            if let Some(shim) = arguments.runwasi {
                comparisons.extend(engine.runwasi(shim, arguments.rounds));
            }
        }
        if wants("memory") {
            eprintln!("memory");
            comparisons.push(engine.memory(arguments.rounds.min(5)));
            comparisons.push(engine.shim(arguments.rounds.min(3)));
        }
        if wants("many") {
            eprintln!("many");
            comparisons.push(engine.rate(arguments.rounds.min(3)));
            comparisons.extend(engine.shares());
        }
    }
    if wants("docker") {
        eprintln!("docker");
        comparisons.push(docker::measure(arguments.generation, arguments.rounds));
    }
    if wants("first") {
        eprintln!("first");
        comparisons.extend(first::measure(arguments.generation, arguments.rounds.min(3)));
    }
    if wants("build") {
        eprintln!("build");
        comparisons.extend(build::measure(arguments.rounds.min(3)));
    }
    if wants("push") {
        eprintln!("push");
        comparisons.extend(push::measure(arguments.rounds.min(5)));
    }
    if wants("static") {
        eprintln!("static");
        comparisons.extend(pages::measure_all(arguments.rounds.min(3)));
    }
    if wants("workers") {
        let (lines, about) = workers::measure_all(arguments.rounds.min(3));
        comparisons.extend(lines);
        notes.extend(about);
    }
    if wants("languages") {
        comparisons.extend(languages::measure(arguments.rounds.min(3)));
    }
    if wants("hosts") {
        eprintln!("hosts");
        comparisons.extend(hosts::measure(arguments.rounds));
    }
    if arguments.json {
        println!("{}", sample::json(&comparisons));
    } else {
        print!("{}", sample::table(&comparisons));
    }
    for note in notes {
        eprintln!("{note}");
    }
    ExitCode::SUCCESS
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Option<Arguments>, String> {
    let mut parsed = Arguments {
        json: false,
        generation: Generation::Forky,
        rounds: 15,
        runwasi: None,
        measures: Vec::new(),
    };
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "-h" | "--help" => return Ok(None),
            "--json" => parsed.json = true,
            "--engine" => {
                parsed.generation = match arguments.next().as_deref() {
                    Some("1.7") => Generation::Trixie,
                    Some("2.1") => Generation::Forky,
                    other => return Err(format!("unknown engine {other:?}: expected 1.7 or 2.1")),
                }
            }
            "--rounds" => {
                let rounds = arguments.next().unwrap_or_default();
                parsed.rounds =
                    rounds.parse().ok().filter(|n| *n > 0).ok_or(format!("invalid rounds {rounds:?}"))?;
            }
            "--runwasi" => {
                let shim = arguments.next().unwrap_or_default();
                if !std::path::Path::new(&shim).is_absolute() || !std::path::Path::new(&shim).is_file() {
                    return Err(format!("invalid shim {shim:?}: expected the absolute path of a file"));
                }
                parsed.runwasi = Some(shim.leak());
            }
            "start" | "memory" | "many" | "docker" | "first" | "build" | "push" | "static" | "workers"
            | "languages" | "hosts" => {
                parsed.measures.push(argument);
            }
            _ => return Err(format!("unknown argument {argument}")),
        }
    }
    Ok(Some(parsed))
}
