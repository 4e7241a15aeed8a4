//! Facts about a session's board.

use protocol::{Capabilities, Hash, Presence};

use super::*;

fn peer(name: &str) -> PeerId {
    PeerId::new(name).unwrap()
}

fn model() -> ModelId {
    ModelId(Hash::of(b"model"))
}

fn offer(name: &str) -> Capabilities {
    Capabilities { models: vec![model()], device: "CPU, 2 threads".into(), ..Capabilities::new(name, "cpu") }
}

fn board() -> Board {
    let mut board = Board::new(peer("me"), "ada".into());
    board.take_peers();
    board
}

fn peers(board: &mut Board) -> Vec<Peer> {
    match board.take_peers() {
        Some(News::Peers { peers }) => peers,
        other => panic!("no peers but {other:?}"),
    }
}

fn say(board: &mut Board, notice: Notice) -> Vec<News> {
    board.handle(notice, Duration::from_secs(1))
}

#[test]
fn a_member_comes_offers_gives_and_goes() {
    let mut board = board();
    say(&mut board, Notice::Joined(peer("bob"), net::Path::Relayed));
    say(&mut board, Notice::Moved(peer("bob"), net::Path::Direct(net::Transport::WebRtc)));
    say(&mut board, Notice::Offered(peer("bob"), offer("bob's laptop")));
    assert!(board.is_lent(model()));
    let unit = Notice::Unit { by: peer("bob"), units: 1, done: 1, total: 4, stage: Stage::Encode };
    assert!(matches!(say(&mut board, unit)[..], [News::Progress { fraction: 0.25, step: None, .. }]));
    say(&mut board, Notice::Delivered(peer("bob")));
    let told = peers(&mut board);
    let bob = &told[1];
    assert!(told[0].is_me && told.len() == 2);
    assert_eq!(
        (bob.name.as_str(), bob.path.as_str(), bob.device.as_str()),
        ("bob's laptop", "direct (webrtc)", "CPU, 2 threads")
    );
    assert_eq!((bob.units_given, bob.units_taken), (1, 1));
    say(&mut board, Notice::Withdrew(peer("bob")));
    assert!(!board.is_lent(model()) && peers(&mut board)[1].device.is_empty());
    say(&mut board, Notice::Left(peer("bob")));
    assert_eq!(peers(&mut board).len(), 1);
    assert_eq!(board.take_peers(), None, "nothing changed since");
}

#[test]
fn whoever_comes_back_keeps_its_count() {
    let mut board = board();
    say(&mut board, Notice::Joined(peer("bob"), net::Path::Relayed));
    say(&mut board, Notice::Delivered(peer("bob")));
    say(&mut board, Notice::Left(peer("bob")));
    say(&mut board, Notice::Joined(peer("bob"), net::Path::Relayed));
    assert_eq!(peers(&mut board)[1].units_taken, 1);
}

#[test]
fn words_of_those_who_are_not_here_are_not_shown() {
    let mut board = board();
    let presence = Presence { sequence: 1, name: "eve".into(), activity: Activity::Painting, caught: Vec::new() };
    say(&mut board, Notice::Present(peer("eve"), presence));
    say(&mut board, Notice::Offered(peer("eve"), offer("eve")));
    assert_eq!((board.members(), board.take_peers()), (0, None));
    say(&mut board, Notice::Joined(peer("eve"), net::Path::Relayed));
    say(&mut board, Notice::Offered(peer("eve"), offer(&"x".repeat(1000))));
    assert_eq!(peers(&mut board)[1].name, "", "an unsound offer is not shown");
}

#[test]
fn counts_of_strangers_are_bounded() {
    let mut board = board();
    for index in 0..2 * COUNTED_MAX {
        say(&mut board, Notice::Delivered(peer(&format!("peer{index}"))));
    }
    assert_eq!(board.units.len(), COUNTED_MAX);
}

#[test]
fn a_failure_is_a_sentence() {
    let news = say(&mut board(), Notice::Failed("no worker could do a unit".into()));
    assert_eq!(news, [News::Failed { text: "No worker could do a unit.".into() }]);
}

#[test]
fn this_device_says_what_it_does() {
    let mut board = board();
    board.set_lending(true);
    let ability = node::lane::Ability { device: "CPU".into(), ..node::lane::Ability::default() };
    say(&mut board, Notice::EngineReady(ability));
    let me = peers(&mut board).swap_remove(0);
    assert_eq!((me.device.as_str(), me.doing.as_str(), me.path.as_str()), ("CPU", "lending, waiting for work", HERE));
    say(&mut board, Notice::Computing(peer("me"), "a step"));
    assert_eq!(peers(&mut board)[0].doing, "working for its own picture: a step");
}
