//! When a plan's stages would be done: earliest-finish list scheduling over unequal peers.

use protocol::Work;
use protocol::limits::LEASES_PER_WORKER;

use super::peers::Peer;

/// One stage's units, all alike.
#[derive(Clone, Debug)]
pub struct Load<'a> {
    /// What each does.
    pub work: &'a Work,
    /// The evaluations that make up one, and how often each is made.
    pub parts: &'a [(Work, usize)],
    /// How many.
    pub units: usize,
    /// Bytes of tensors there and back, of each.
    pub bytes: usize,
}

/// Who would do a stage, and how long it would take.
#[derive(Clone, Debug, PartialEq)]
pub struct Share {
    /// Seconds from its beginning to the last delivery; infinite if nobody can.
    pub seconds: f64,
    /// Indexes of the peers that would get units, ascending.
    pub peers: Vec<usize>,
}

/// How long a peer takes for units of one kind.
struct Line {
    peer: usize,
    /// Until its next unit would be delivered.
    next: f64,
    /// Between one unit and the next.
    each: f64,
    units: usize,
}

/// Gives each unit to the peer that would deliver it first. For units that are all alike nothing finishes earlier, and who is
/// too slow to help gets none.
pub fn share(load: &Load<'_>, peers: &[Peer<'_>]) -> Share {
    let mut lines: Vec<Line> = peers
        .iter()
        .enumerate()
        .filter(|(_, peer)| peer.pace.fits(load.work) && load.parts.iter().all(|(part, _)| peer.pace.fits(part)))
        .map(|(index, peer)| line(index, load, peer))
        .collect();
    let mut seconds: f64 = 0.0;
    for _ in 0..load.units {
        // The first of equals: the order of ids.
        let Some(line) = lines.iter_mut().min_by(|a, b| a.next.total_cmp(&b.next)) else {
            return Share { seconds: f64::INFINITY, peers: Vec::new() };
        };
        seconds = seconds.max(line.next);
        line.next += line.each;
        line.units += 1;
    }
    Share { seconds, peers: lines.iter().filter(|line| line.units > 0).map(|line| line.peer).collect() }
}

/// The peer's first unit is on its way and computed; the ways of later ones pass while it computes, as far as it holds leases
/// in advance.
fn line(peer: usize, load: &Load<'_>, Peer { pace, .. }: &Peer<'_>) -> Line {
    // Also of a whole picture or a run: what was measured is mostly single evaluations.
    let compute: f64 = load.parts.iter().map(|(part, times)| *times as f64 * pace.seconds(part)).sum();
    let way = pace.way(load.bytes);
    let each = compute.max((way + compute) / LEASES_PER_WORKER as f64);
    Line { peer, next: way + compute, each, units: 0 }
}

#[cfg(test)]
mod tests {
    use protocol::{ModelShape, PeerId};

    use super::super::peers::Steady;
    use super::*;

    const SHAPE: ModelShape =
        ModelShape { latent_channels: 4, factor: 8, native_cells: 8, tokens: 3, embedding_width: 4 };
    const WORK: Work = Work::Decode { rows: 1, columns: 10 };

    /// Peers that take so many seconds for a unit, and so many for its way.
    fn peers(times: &[(f64, f64)]) -> Vec<Peer<'static>> {
        let peer = |(index, (seconds, overhead_s)): (usize, &(f64, f64))| Peer {
            id: PeerId::new(format!("peer{index}")).unwrap(),
            class: "cpu",
            pace: Box::new(Steady {
                seconds_per_cost: Some(seconds / 10.0),
                overhead_s: *overhead_s,
                ..Steady::unknown(&SHAPE)
            }),
        };
        times.iter().enumerate().map(peer).collect()
    }

    fn load(units: usize) -> Load<'static> {
        Load { work: &WORK, parts: &[(WORK, 1)], units, bytes: 0 }
    }

    fn shared(units: usize, times: &[(f64, f64)]) -> (f64, Vec<usize>) {
        let Share { seconds, peers } = share(&load(units), &peers(times));
        (seconds, peers)
    }

    #[test]
    fn equal_peers_take_equal_parts() {
        assert_eq!(shared(9, &[(1.0, 0.0), (1.0, 0.0), (1.0, 0.0)]), (3.0, vec![0, 1, 2]));
        assert_eq!(shared(10, &[(1.0, 0.0), (1.0, 0.0), (1.0, 0.0)]).0, 4.0);
    }

    #[test]
    fn who_would_only_make_it_slower_gets_nothing() {
        assert_eq!(shared(5, &[(1.0, 0.0), (20.0, 0.0)]), (5.0, vec![0]));
        assert_eq!(shared(30, &[(1.0, 0.0), (20.0, 0.0)]), (29.0, vec![0, 1]));
        assert_eq!(shared(4, &[(1.0, 0.0), (1.0, 4.0)]), (4.0, vec![0]));
    }

    #[test]
    fn a_way_is_paid_once_where_the_next_unit_is_there_in_advance() {
        assert_eq!(shared(10, &[(1.0, 0.5)]).0, 10.5);
        assert_eq!(shared(1, &[(1.0, 0.5)]).0, 1.5);
        assert_eq!(shared(3, &[(1.0, 99.0)]).0, 100.0 + 2.0 * 100.0 / LEASES_PER_WORKER as f64);
    }

    #[test]
    fn nobody_finishes_never() {
        assert_eq!(shared(1, &[]), (f64::INFINITY, vec![]));
        let small = Steady { cost_max: 9, ..Steady::unknown(&SHAPE) };
        let peer = Peer { id: PeerId::new("small").unwrap(), class: "cpu", pace: Box::new(small) };
        let share = share(&load(1), &[peer]);
        assert_eq!(share.seconds, f64::INFINITY, "it lacks the memory");
    }

    #[test]
    fn no_assignment_of_equal_units_finishes_earlier() {
        let times = [(1.0, 0.3), (2.5, 0.0), (0.7, 2.0), (9.0, 0.0)];
        for units in 1..60 {
            let (seconds, _) = shared(units, &times);
            // The most units that fit a shorter time, by counting them.
            let within = |limit: f64| -> usize {
                let peers = peers(&times);
                let load = load(units);
                let count = |index: usize| {
                    let line = line(index, &load, &peers[index]);
                    if limit < line.next { 0 } else { 1 + ((limit - line.next) / line.each).floor() as usize }
                };
                (0..times.len()).map(count).sum()
            };
            assert!(within(seconds - 1e-9) < units && within(seconds + 1e-9) >= units, "{units}");
        }
    }
}
