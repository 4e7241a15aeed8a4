//! Runs simulated rooms from the command line: many seeds at once, one seed in full, and what a failing one comes down to.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use clap::Parser;
use coordinator::sim::{Makespan, Outcome, Scenario, Setup, Tally, makespan, run, shrink};

/// Failing seeds that are made smaller and printed; others are only named, or only counted.
const SHOWN_MAX: usize = 3;
const NAMED_MAX: usize = 20;

/// Seeds that are played together while a planted bug is hunted, and finds that are enough.
#[cfg(feature = "mutants")]
const HUNTED_TOGETHER: u64 = 20;
#[cfg(feature = "mutants")]
const FOUND_ENOUGH: usize = 10;

/// No room shall take longer than this many times what its best peer alone takes.
const SLOWER_THAN_ALONE: f64 = 1.1;

/// Whole rooms of the scheduler's machines in virtual time.
#[derive(Parser)]
struct Arguments {
    /// Seeds to run.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    start: u64,
    /// Only this scenario, by name or as a file (*.toml); the mix otherwise.
    #[arg(long)]
    scenario: Option<String>,
    /// Print one JSON object instead of text.
    #[arg(long)]
    json: bool,
    /// Threads.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Print the hash of every seed's trace and nothing else.
    #[arg(long)]
    hashes: bool,
    /// Print the last lines of every seed's trace.
    #[arg(long)]
    trace: bool,
    /// Measure one job in each of this many undisturbed rooms against bounds instead.
    #[arg(long, value_name = "ROOMS")]
    makespan: Option<u64>,
    /// With --makespan: nobody tells the requester how far away its workers are.
    #[arg(long)]
    paths_unknown: bool,
    /// Plant one bug after the other, look in how many seeds each is found, and print the table of docs/mutants.md.
    #[cfg(feature = "mutants")]
    #[arg(long)]
    mutants: bool,
    /// List the scenarios.
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let scenarios = match scenarios(&arguments) {
        Ok(scenarios) => scenarios,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    if arguments.list {
        for scenario in scenarios {
            println!("{:12} {:3}  {}", scenario.name, scenario.weight, scenario.about);
        }
        return ExitCode::SUCCESS;
    }
    if let Some(rooms) = arguments.makespan {
        return if measure(&arguments, rooms) { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    #[cfg(feature = "mutants")]
    if arguments.mutants {
        return hunt(&arguments, &scenarios);
    }
    let report = run_all(&arguments, &scenarios);
    if arguments.hashes {
        report.hashes.iter().for_each(|(seed, hash)| println!("{seed} {hash}"));
    } else if arguments.json {
        println!("{}", report.json());
    } else {
        report.print();
    }
    for (seed, name, setup) in report.failed.iter().take(SHOWN_MAX).filter(|_| !arguments.json && !arguments.hashes) {
        show(*seed, name, setup);
    }
    if report.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn scenarios(arguments: &Arguments) -> Result<Vec<Scenario>, String> {
    let all = Scenario::all();
    let Some(name) = &arguments.scenario else { return Ok(all) };
    if name.ends_with(".toml") {
        let text = std::fs::read_to_string(name).map_err(|error| format!("{name}: {error}"))?;
        return Ok(vec![Scenario::parse(&text).map_err(|error| format!("{name}: {error}"))?]);
    }
    let names = all.iter().map(|scenario| scenario.name.clone()).collect::<Vec<_>>().join(", ");
    let found = all.into_iter().find(|scenario| scenario.name == *name);
    found.map(|scenario| vec![scenario]).ok_or_else(|| format!("there is no scenario {name}; there are {names}"))
}

/// What became of all seeds.
#[derive(Default)]
struct Report {
    by_scenario: BTreeMap<String, (u64, Tally)>,
    failed: Vec<(u64, String, Setup)>,
    broken: BTreeMap<u64, String>,
    hashes: BTreeMap<u64, String>,
    took: Duration,
}

/// Plays every seed, on several threads where there are some, and collects what comes of them in any order.
fn for_seeds<T: Send>(threads: usize, start: u64, seeds: u64, play: impl Fn(u64) -> T + Sync, mut take: impl FnMut(T)) {
    let next = AtomicU64::new(start);
    let end = start + seeds;
    let seed = || Some(next.fetch_add(1, Ordering::Relaxed)).filter(|seed| *seed < end);
    if threads <= 1 {
        return std::iter::from_fn(seed).map(play).for_each(take); // Some targets have no threads.
    }
    std::thread::scope(|scope| {
        let (sender, receiver) = mpsc::channel();
        for _ in 0..threads {
            let (sender, play) = (sender.clone(), &play);
            scope.spawn(move || std::iter::from_fn(seed).map(play).all(|played| sender.send(played).is_ok()));
        }
        drop(sender);
        receiver.iter().for_each(&mut take);
    });
}

/// A seed, the name of its scenario, its world, and what became of it.
type Played = (u64, String, Setup, Outcome);

fn play(scenarios: &[Scenario], seed: u64, keeps_trace: bool) -> Played {
    let scenario = if scenarios.len() == 1 { &scenarios[0] } else { Scenario::of_mix(scenarios, seed) };
    let setup = scenario.draw(seed);
    let outcome = run(&setup, keeps_trace);
    (seed, scenario.name.clone(), setup, outcome)
}

fn run_all(arguments: &Arguments, scenarios: &[Scenario]) -> Report {
    let began = Instant::now();
    let mut report = Report::default();
    let play = |seed| play(scenarios, seed, arguments.trace);
    for_seeds(arguments.threads, arguments.start, arguments.seeds, play, |played| report.add(played));
    report.failed.sort_by_key(|(seed, ..)| *seed);
    report.took = began.elapsed();
    report
}

/// Plants every bug in turn; fails if more than one of twenty is not found.
#[cfg(feature = "mutants")]
fn hunt(arguments: &Arguments, scenarios: &[Scenario]) -> ExitCode {
    use coordinator::mutants::{Mutant, plant};

    std::panic::set_hook(Box::new(|_| {})); // A machine that panics is found; nobody needs to read it a thousand times.
    let mut found = 0;
    println!("| planted bug | found in | first seed | invariants that break |\n|---|--:|--:|---|");
    for mutant in Mutant::ALL {
        plant(Some(mutant));
        let mut report = Report::default();
        let mut seeds = 0;
        // Some are found in nearly every room; a few rooms show that.
        while seeds < arguments.seeds && report.broken.len() < FOUND_ENOUGH {
            let some = HUNTED_TOGETHER.min(arguments.seeds - seeds);
            for_seeds(
                arguments.threads,
                arguments.start + seeds,
                some,
                |seed| play(scenarios, seed, false),
                |played| report.add(played),
            );
            seeds += some;
        }
        let mut broken: BTreeMap<&str, usize> = BTreeMap::new();
        for text in report.broken.values() {
            *broken.entry(text.split(": ").nth(1).unwrap_or_default()).or_default() += 1;
        }
        let broken: Vec<String> = broken.into_iter().map(|(name, count)| format!("{name} ({count})")).collect();
        let first = report.broken.keys().next().map_or("-".into(), u64::to_string);
        println!("| {mutant:?} | {} of {seeds} | {first} | {} |", report.broken.len(), broken.join(", "));
        found += usize::from(!report.broken.is_empty());
    }
    plant(None);
    let all = Mutant::ALL.len();
    println!("\n{found} of {all} are found within {} seeds.", arguments.seeds);
    if found * 20 >= all * 19 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Measures rooms against their bounds; returns whether all of them ended.
fn measure(arguments: &Arguments, rooms: u64) -> bool {
    let mut all = Vec::new();
    let mut unended = Vec::new();
    for_seeds(
        arguments.threads,
        arguments.start,
        rooms,
        |seed| (seed, makespan(seed, !arguments.paths_unknown)),
        |(seed, figures)| match figures {
            Some(figures) => all.push((seed, figures)),
            None => unended.push(seed),
        },
    );
    type Ratio = fn(&Makespan) -> f64;
    let ratios: [(&str, Ratio); 4] = [
        ("measured / bound", |room| room.measured / room.bound),
        ("measured / integer bound", |room| room.measured / room.integer_bound),
        ("integer bound / bound", |room| room.integer_bound / room.bound),
        ("measured / best alone", |room| room.measured / room.alone),
    ];
    println!("{:10} {:>6} {:25} {:>7} {:>7} {:>7} {:>7}  worst seed", "work", "rooms", "", "p50", "p90", "p99", "max");
    for (name, is_divisible) in [("divisible", true), ("other", false)] {
        let rooms: Vec<_> = all.iter().filter(|(_, room)| room.is_divisible == is_divisible).collect();
        for (what, ratio) in ratios.iter().filter(|_| !rooms.is_empty()) {
            let mut sorted: Vec<(f64, u64)> = rooms.iter().map(|(seed, room)| (ratio(room), *seed)).collect();
            sorted.sort_by(|one, other| one.0.total_cmp(&other.0));
            let at = |percent: usize| sorted[(sorted.len() - 1) * percent / 100].0;
            let (p50, p90, p99, max) = (at(50), at(90), at(99), at(100));
            let (count, worst) = (sorted.len(), sorted[sorted.len() - 1].1);
            println!("{name:10} {count:6} {what:25} {p50:7.3} {p90:7.3} {p99:7.3} {max:7.3}  {worst}");
        }
    }
    let mut slower: Vec<_> = all.iter().filter(|(_, room)| room.measured > SLOWER_THAN_ALONE * room.alone).collect();
    slower.sort_by_key(|(seed, _)| *seed);
    println!("{} rooms took more than {SLOWER_THAN_ALONE} times what the best peer alone takes", slower.len());
    slower.iter().take(NAMED_MAX).for_each(|(seed, room)| println!("room {seed}: {room:?}"));
    unended.iter().for_each(|seed| println!("room {seed}: the job did not end"));
    unended.is_empty()
}

impl Report {
    fn add(&mut self, (seed, scenario, setup, outcome): Played) {
        let hash: String = outcome.hash.iter().map(|byte| format!("{byte:02x}")).collect();
        for line in &outcome.tail {
            println!("{line}");
        }
        self.hashes.insert(seed, hash);
        let (seeds, tally) = self.by_scenario.entry(scenario.clone()).or_default();
        *seeds += 1;
        *tally += outcome.tally;
        if let Some(broken) = outcome.broken {
            self.broken.insert(seed, format!("{scenario}: {}: {}", broken.invariant, broken.text));
            self.failed.push((seed, scenario, setup));
        }
    }

    fn total(&self) -> Tally {
        self.by_scenario.values().fold(Tally::default(), |mut total, (_, tally)| {
            total += *tally;
            total
        })
    }

    fn print(&self) {
        println!(
            "{:12} {:>6} {:>8} {:>7} {:>6} {:>9} {:>6} {:>6} {:>13} {:>13} {:>8}",
            "scenario",
            "seeds",
            "events",
            "painted",
            "failed",
            "accepted",
            "begun",
            "wrong",
            "honest cond.",
            "liars cond.",
            "hours"
        );
        let total = self.total();
        let rows = self.by_scenario.iter().map(|(name, (seeds, tally))| (name.as_str(), *seeds, *tally));
        for (name, seeds, tally) in rows.chain([("all", self.hashes.len() as u64, total)]) {
            let more = if tally.accepted > 0 { tally.begun as f64 / tally.accepted as f64 } else { 0.0 };
            println!(
                "{name:12} {seeds:6} {:8} {:7} {:6} {:9} {more:5.2}x {:6} {:>13} {:>13} {:8.1}",
                tally.events / seeds.max(1),
                tally.painted,
                tally.failed,
                tally.accepted,
                tally.wrong_accepted,
                format!("{}/{}", tally.honest_condemned, tally.honest),
                format!("{}/{}", tally.dishonest_condemned, tally.deceivers),
                tally.millis as f64 / 3_600_000.0,
            );
        }
        println!("{} violations in {:.1} s", self.broken.len(), self.took.as_secs_f64());
        for (seed, broken) in self.broken.iter().take(NAMED_MAX) {
            println!("seed {seed}: {broken}");
        }
        if self.broken.len() > NAMED_MAX {
            println!("and {} more", self.broken.len() - NAMED_MAX);
        }
    }

    fn json(&self) -> serde_json::Value {
        let row = |(name, (seeds, tally)): (&String, &(u64, Tally))| {
            (name.clone(), serde_json::json!({ "seeds": seeds, "tally": format!("{tally:?}") }))
        };
        let tally = self.total();
        serde_json::json!({
            "seeds": self.hashes.len(),
            "seconds": self.took.as_secs_f64(),
            "violations": self.broken.iter().map(|(seed, broken)| serde_json::json!({ "seed": seed, "broken": broken })).collect::<Vec<_>>(),
            "events": tally.events,
            "jobs_painted": tally.painted,
            "jobs_failed": tally.failed,
            "units_accepted": tally.accepted,
            "units_begun": tally.begun,
            "wrong_accepted": tally.wrong_accepted,
            "honest": tally.honest,
            "honest_condemned": tally.honest_condemned,
            "deceivers": tally.deceivers,
            "dishonest_condemned": tally.dishonest_condemned,
            "scenarios": self.by_scenario.iter().map(row).collect::<serde_json::Map<_, _>>(),
        })
    }
}

/// Prints what a failing seed comes down to.
fn show(seed: u64, scenario: &str, setup: &Setup) {
    let Some(broken) = run(setup, false).broken else { return };
    println!("\nseed {seed} of {scenario} breaks {}: {}", broken.invariant, broken.text);
    println!("  drawn:  {}", setup.summary());
    let (small, outcome) = shrink(setup, broken.invariant);
    println!("  shrunk: {}", small.summary());
    small.lenders.iter().for_each(|lender| println!("    {lender:?}"));
    small.jobs.iter().for_each(|order| println!("    {order:?}"));
    small.faults.iter().for_each(|fault| println!("    {fault:?}"));
    outcome.tail.iter().for_each(|line| println!("  | {line}"));
    if let Some(broken) = outcome.broken {
        println!("  {}: {}", broken.invariant, broken.text);
    }
    println!(
        "  again: cargo run --release -p coordinator --features sim --bin sim -- --start {seed} --seeds 1 --scenario {scenario} --trace"
    );
}
