//! Presence reaches every member, the late ones too, and nobody else.

use crate::world::{Node, pair, room};

#[tokio::test]
async fn a_presence_reaches_members_now_and_later() {
    let keys = room();
    let (mut ada, mut bob) = pair(&keys, "quic").await;
    ada.tell(1, "ada");
    assert_eq!(bob.presence(&ada.peer).await.name, "ada");
    let mut carol = Node::join(&keys, &[ada.address("tcp").await]).await;
    assert_eq!(carol.presence(&ada.peer).await.name, "ada");
    ada.tell(2, "ada at work");
    assert_eq!(bob.presence(&ada.peer).await.name, "ada at work");
    assert_eq!(carol.presence(&ada.peer).await.name, "ada at work");
    // Bob and Carol are not connected, so this one comes by way of Ada.
    carol.tell(1, "carol");
    assert_eq!(bob.presence(&carol.peer).await.name, "carol");
}

#[tokio::test]
async fn an_old_presence_is_not_news() {
    let (ada, mut bob) = pair(&room(), "quic").await;
    ada.tell(5, "five");
    assert_eq!(bob.presence(&ada.peer).await.name, "five");
    ada.tell(4, "four");
    ada.tell(5, "five again");
    ada.tell(6, "six");
    assert_eq!(bob.presence(&ada.peer).await.name, "six");
}
