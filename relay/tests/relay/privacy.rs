//! What the relay sees of two members who talk through it: bytes, but no word of theirs.

use std::sync::{Arc, Mutex};

use protocol::{Activity, Presence};
use relay::{Settings, Tap};

use crate::place::Place;
use crate::world::{Node, deliver, heartbeat, room};

fn occurs(word: &[u8], bytes: &[u8]) -> bool {
    bytes.windows(word.len()).any(|window| window == word)
}

#[tokio::test]
async fn the_relay_never_sees_a_word() {
    const CANARY: &[u8] = b"a canary on a copper wire";
    let seen = Arc::new(Mutex::new(Vec::new()));
    let record = Arc::clone(&seen);
    let tap = Tap::new(move |bytes| record.lock().unwrap().extend_from_slice(bytes));
    let (place, keys) = (Place::open(Settings { tap: Some(tap), ..Settings::loopback() }).await, room());
    let mut ada = Node::start(place.hidden(&keys)).await;
    let mut bob = Node::start(place.hidden(&keys)).await;
    ada.joined(&bob.peer).await;
    bob.joined(&ada.peer).await;
    let name = String::from_utf8(CANARY.to_vec()).unwrap();
    ada.handle.publish(Presence { sequence: 1, name: name.clone(), activity: Activity::Painting, caught: Vec::new() });
    assert_eq!(bob.presence(&ada.peer).await.name, name);
    for lease in 0..20 {
        ada.send(&bob.peer, &deliver(lease), &CANARY.repeat(1000)).unwrap();
        assert_eq!(bob.message().await.2, CANARY.repeat(1000));
        bob.send(&ada.peer, &heartbeat(lease), &[]).unwrap();
        assert_eq!(ada.message().await.1, heartbeat(lease));
    }
    let seen = seen.lock().unwrap();
    assert!(seen.len() > 20 * 1000 * CANARY.len(), "everything passed through the relay: {}", seen.len());
    assert!(!occurs(CANARY, &seen));
    assert!(!occurs(keys.topic().as_bytes(), &seen), "the gossip topic");
    assert!(!occurs(keys.id().to_string().as_bytes(), &seen), "the room id");
    // The tap does see what is said to the relay itself: otherwise the assertions above would mean nothing.
    assert!(occurs(keys.rendezvous().as_bytes(), &seen));
}
