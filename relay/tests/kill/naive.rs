//! The queue that loses money: it must be found out, or the other tests show nothing.

use crate::program::Program;
use crate::{endpoint, killed};

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_asks_again_when_it_does_not_know_pays_twice() {
    let emulator = endpoint().await;
    let findings = killed(&emulator, Program::new(&emulator, true, None), None).await;
    assert!(!findings.doubled.is_empty(), "the naive queue passed, so this test shows nothing: {findings:?}");
}
