//! The rendezvous as its visitors meet it, with time and randomness in the tests' hands.

use libp2p::PeerId;

use super::*;

/// A rendezvous, and the time there.
struct World {
    registrations: Registrations,
    now: Instant,
    random: u64,
}

impl World {
    fn new() -> Self {
        Self { registrations: Registrations::default(), now: Instant::now(), random: 1 }
    }

    fn ask(&mut self, peer: PeerId, request: Request) -> Option<Answer> {
        self.random = self.random.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.registrations.handle(peer, request, self.random, self.now)
    }

    fn register_as(&mut self, peer: PeerId, record: Record, name: &str, seconds: Option<u64>) -> Result<u64, Refusal> {
        match self.ask(peer, Request::Register { namespace: namespace(name), record, seconds }) {
            Some(Answer::Registered(outcome)) => outcome,
            other => panic!("{other:?}"),
        }
    }

    fn register(&mut self, peer: PeerId, name: &str) -> Result<u64, Refusal> {
        self.register_as(peer, record(peer, 100), name, Some(30))
    }

    fn page(&mut self, name: &str, after: Place, limit: usize) -> Page {
        match self.ask(PeerId::random(), Request::Discover { namespace: namespace(name), after, limit }) {
            Some(Answer::Discovered(Ok(page))) => page,
            other => panic!("{other:?}"),
        }
    }

    /// Everyone who is registered under `name`.
    fn found(&mut self, name: &str) -> Vec<PeerId> {
        signers(&self.page(name, Place::default(), usize::MAX))
    }

    fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    fn assert_nothing_is_kept(&self) {
        let Registrations { lists, peers, lapses } = &self.registrations;
        assert!(lists.is_empty() && peers.is_empty() && lapses.is_empty(), "{:?}", self.registrations);
    }
}

fn namespace(name: &str) -> Namespace {
    Namespace::new(name).unwrap()
}

fn record(signer: PeerId, bytes: usize) -> Record {
    Record { signer, envelope: vec![7; bytes].into() }
}

fn signers(page: &Page) -> Vec<PeerId> {
    page.registrations.iter().map(|(record, _)| record.signer).collect()
}

#[test]
fn members_find_each_other_under_the_name_of_their_room_only() {
    let (mut world, ada, bob) = (World::new(), PeerId::random(), PeerId::random());
    world.register(ada, "one").unwrap();
    world.register(bob, "two").unwrap();
    assert_eq!((world.found("one"), world.found("two")), (vec![ada], vec![bob]));
    world.register(bob, "one").unwrap();
    assert_eq!((world.found("one"), world.found("two")), (vec![ada, bob], vec![bob]));
}

#[test]
fn a_name_that_is_not_in_use_looks_like_one_that_never_was() {
    let (mut world, ada) = (World::new(), PeerId::random());
    world.register(ada, "a").unwrap();
    let full = world.page("a", Place::default(), usize::MAX);
    world.ask(ada, Request::Unregister(namespace("a")));
    for after in [Place::default(), full.next, Place(u64::MAX)] {
        let (left, never) = (world.page("a", after, usize::MAX), world.page("b", after, usize::MAX));
        assert_eq!((left.registrations, left.next), (never.registrations, never.next));
    }
    world.assert_nothing_is_kept();
}

#[test]
fn nobody_registers_somebody_else() {
    let (mut world, ada, eve) = (World::new(), PeerId::random(), PeerId::random());
    world.register(ada, "a").unwrap();
    assert_eq!(world.register_as(eve, record(ada, 10), "a", Some(30)), Err(Refusal::NotAuthorized));
    world.ask(eve, Request::Unregister(namespace("a")));
    assert_eq!(world.found("a"), [ada]);
}

#[test]
fn a_registration_lapses_unless_it_is_renewed() {
    let (mut world, ada, bob) = (World::new(), PeerId::random(), PeerId::random());
    for peer in [ada, bob] {
        world.register(peer, "a").unwrap();
    }
    world.pass(20);
    world.register(ada, "a").unwrap();
    world.pass(9);
    assert_eq!(world.found("a").len(), 2);
    world.pass(1);
    assert_eq!(world.found("a"), [ada]);
    world.pass(20);
    assert_eq!((world.found("a"), world.registrations.len()), (vec![], 0));
    world.assert_nothing_is_kept();
}

#[test]
fn the_newest_record_of_a_peer_is_the_one_that_counts() {
    let (mut world, ada) = (World::new(), PeerId::random());
    world.register(ada, "a").unwrap();
    world.register_as(ada, record(ada, 200), "a", Some(60)).unwrap();
    let page = world.page("a", Place::default(), usize::MAX);
    assert_eq!(page.registrations, [(record(ada, 200), 60)]);
    assert_eq!(world.registrations.len(), 1);
}

#[test]
fn a_peer_that_is_lost_is_forgotten_everywhere_at_once() {
    let (mut world, ada, bob) = (World::new(), PeerId::random(), PeerId::random());
    for name in ["a", "b"] {
        world.register(ada, name).unwrap();
    }
    world.register(bob, "b").unwrap();
    world.registrations.handle_lost(ada);
    assert_eq!((world.found("a"), world.found("b")), (vec![], vec![bob]));
    world.register(ada, "a").unwrap();
    assert_eq!(world.found("a"), [ada]);
    for peer in [ada, bob, PeerId::random()] {
        world.registrations.handle_lost(peer);
    }
    world.assert_nothing_is_kept();
}

#[test]
fn lives_are_within_their_range() {
    let (mut world, ada) = (World::new(), PeerId::random());
    let (min, max) = REGISTRATION_SECONDS;
    for seconds in [1, min - 1, max + 1, u64::MAX] {
        assert_eq!(world.register_as(ada, record(ada, 10), "a", Some(seconds)), Err(Refusal::Ttl));
    }
    for (seconds, granted) in [(Some(min), min), (Some(max), max), (None, max)] {
        assert_eq!(world.register_as(ada, record(ada, 10), "a", seconds), Ok(granted));
    }
}

#[test]
fn cookies_lead_through_the_list_and_then_to_what_is_new() {
    let mut world = World::new();
    let peers: Vec<_> = (0..7).map(|_| PeerId::random()).collect();
    for peer in &peers {
        world.register(*peer, "a").unwrap();
    }
    let (mut found, mut place) = (Vec::new(), Place::default());
    for expected in [3, 3, 1, 0] {
        let page = world.page("a", place, 3);
        assert_eq!(page.registrations.len(), expected);
        found.extend(signers(&page));
        place = page.next;
    }
    assert_eq!(found, peers);
    world.register(peers[2], "a").unwrap();
    assert_eq!(signers(&world.page("a", place, 3)), [peers[2]], "a renewal is news: others forget who is never named");
    assert_eq!(world.page("a", place, 0).registrations, []);
}

#[test]
fn a_cookie_of_an_earlier_list_hides_nobody() {
    let (mut world, ada) = (World::new(), PeerId::random());
    for _ in 0..1000 {
        world.register(ada, "a").unwrap();
        let place = world.page("a", Place::default(), usize::MAX).next;
        world.registrations.handle_lost(ada);
        world.register(ada, "a").unwrap();
        assert_eq!(signers(&world.page("a", place, usize::MAX)), [ada]);
    }
    assert_eq!(signers(&world.page("a", Place(u64::MAX), usize::MAX)), [ada]);
}

#[test]
fn a_page_fits_an_answer_and_the_next_goes_on() {
    let mut world = World::new();
    let members = 2 * ANSWER_BYTES_MAX / RECORD_BYTES_MAX;
    for _ in 0..members {
        let peer = PeerId::random();
        world.register_as(peer, record(peer, RECORD_BYTES_MAX), "a", Some(30)).unwrap();
    }
    let (mut found, mut place) = (0, Place::default());
    while found < members {
        let page = world.page("a", place, usize::MAX);
        (found, place) = (found + page.registrations.len(), page.next);
        assert!(!page.registrations.is_empty());
        assert!(Answer::Discovered(Ok(page)).encode().len() <= ANSWER_BYTES_MAX);
    }
    assert_eq!(world.page("a", place, usize::MAX).registrations, []);
}

#[test]
fn a_peer_has_few_registrations_and_may_renew_them() {
    let (mut world, ada) = (World::new(), PeerId::random());
    let names: Vec<_> = (0..REGISTRATIONS_PER_PEER_MAX).map(|index| index.to_string()).collect();
    for name in names.iter().chain(&names) {
        world.register(ada, name).unwrap();
    }
    assert_eq!(world.register(ada, "one more"), Err(Refusal::Unavailable));
    world.ask(ada, Request::Unregister(namespace("0")));
    world.register(ada, "one more").unwrap();
}

#[test]
fn a_namespace_has_room_for_a_room() {
    let (mut world, ada) = (World::new(), PeerId::random());
    world.register(ada, "a").unwrap();
    for _ in 1..REGISTRATIONS_PER_NAMESPACE_MAX {
        world.register(PeerId::random(), "a").unwrap();
    }
    assert_eq!(world.register(PeerId::random(), "a"), Err(Refusal::Unavailable));
    world.register(ada, "a").unwrap();
    world.register(PeerId::random(), "b").unwrap();
}

#[test]
fn all_registrations_together_are_bounded() {
    let mut world = World::new();
    let names = REGISTRATIONS_MAX / REGISTRATIONS_PER_NAMESPACE_MAX + 1;
    let refused = (0..2 * REGISTRATIONS_MAX)
        .filter(|index| world.register(PeerId::random(), &(index % names).to_string()).is_err())
        .count();
    assert_eq!((world.registrations.len(), refused), (REGISTRATIONS_MAX, REGISTRATIONS_MAX));
    world.pass(30);
    world.register(PeerId::random(), "a").unwrap();
    assert_eq!(world.registrations.len(), 1);
}
