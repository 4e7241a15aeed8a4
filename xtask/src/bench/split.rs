//! `cargo xtask bench split`: how well a room of processes shares out units that only wait, and what the machine makes of as
//! many processes that wait alone.

use anyhow::{Context, Result};

use super::{load, measure as run, number};
use crate::build::Programs;
use crate::processes::{Process, Room};

/// Fixed cost of a unit of the fake engine, in milliseconds.
const UNIT_MS: u64 = 50;

/// Units of each process that waits alone.
const ALONE_UNITS: u64 = 100;

/// Units for each worker of a room: enough that what happens only once does not dominate.
const UNITS_EACH: usize = 200;

/// A picture by its tiles, each of which is one unit of a step.
#[derive(Clone, Copy)]
struct Picture {
    tiles: usize,
    size: &'static str,
}

/// 12 by 8 tiles, and 16 by 12: an even share for up to 16 workers. Every step ends with a wait for the slowest worker and a
/// burst of inputs, which longer steps spread over more units. Larger pictures are not allowed.
const PICTURES: [Picture; 2] = [Picture { tiles: 96, size: "832x576" }, Picture { tiles: 192, size: "1088x832" }];

/// Measures rooms of several sizes.
pub fn measure(programs: &Programs) -> Result<()> {
    for workers in [1, 4, 16] {
        let limit = alone(programs, workers)?;
        println!("split workers {workers} limit {limit:.3} of the machine itself, load {}", load());
        for picture in PICTURES {
            in_room(programs, workers, picture)?;
        }
    }
    Ok(())
}

/// The share of its time for which a process waits that does nothing but compute fake units, beside as many others.
fn alone(programs: &Programs, processes: usize) -> Result<f64> {
    let (units, unit_ms) = (ALONE_UNITS.to_string(), UNIT_MS.to_string());
    let arguments = ["bench", "wait", "--units", &units, "--unit-ms", &unit_ms];
    let start = |_| Process::start("a waiting process", programs.node().args(arguments));
    let waiting = (0..processes).map(start).collect::<Result<Vec<_>>>()?;
    let mut slowest: f64 = 0.0;
    for mut process in waiting {
        slowest = slowest.max(number(&process.json()?, "seconds")?);
    }
    Ok((ALONE_UNITS * UNIT_MS) as f64 / 1000.0 / slowest)
}

fn in_room(programs: &Programs, workers: usize, Picture { tiles, size }: Picture) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let join = ["--fake-ms", &UNIT_MS.to_string(), "--listen", "/ip4/127.0.0.1/udp/0/quic-v1"];
    let room = Room::open(programs, folder.path(), workers, &join)?;
    let steps = (UNITS_EACH * workers / tiles).max(2).to_string();
    let all = workers.to_string();
    let before = processor_s(&room.workers);
    let command = ["bench", "split", "--room", &room.link, "--min-workers", &all, "--size", size, "--steps", &steps];
    let figures = run(programs, &command)?;
    let after = processor_s(&room.workers);
    let (units, seconds) = (number(&figures, "units")?, number(&figures, "seconds")?);
    let ideal = units * UNIT_MS as f64 / 1000.0 / workers as f64;
    let efficiency = ideal / seconds;
    println!("split workers {workers} tiles {tiles} units {units} seconds {seconds:.3} efficiency {efficiency:.3}");
    if let (Some(before), Some(after), Some(painter)) = (before, after, figures["processor_s"].as_f64()) {
        let (painter, each) = (painter * 1000.0 / units, (after - before) * 1000.0 / units);
        println!(
            "split workers {workers} processor ms a unit: painter {painter:.2}, workers {each:.2}; load {}",
            load()
        );
    }
    Ok(())
}

/// Seconds of processor time that these processes have used, where the system tells.
fn processor_s(processes: &[Process]) -> Option<f64> {
    let of_one = |process: &Process| -> Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.id()))?;
        // Linux counts in hundredths of a second here; the name before the bracket may hold anything.
        let fields = stat.rsplit_once(')').context("no name in brackets")?.1.split_whitespace();
        let ticks = fields.skip(11).take(2).map(str::parse::<f64>).sum::<Result<f64, _>>()?;
        Ok(ticks / 100.0)
    };
    processes.iter().map(|process| of_one(process).ok()).sum()
}
