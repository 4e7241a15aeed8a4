//! How the session stands with its room, as a sentence: what is missing, and what still works.

use crate::words::LinkState;

/// What is known of the way to the room.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    /// There is a room.
    pub has_room: bool,
    /// The room's link names a relay.
    pub has_relay: bool,
    /// The relay is connected.
    pub is_connected: bool,
    /// The relay was connected once.
    pub was_connected: bool,
    /// Why the relay cannot be reached.
    pub trouble: Option<String>,
    /// The browser says that there is no network.
    pub is_offline: bool,
    /// Members that can be talked to.
    pub members: usize,
    /// Only the relay is used, because the person wants that.
    pub relayed_only: bool,
    /// The session has ended.
    pub has_left: bool,
    /// What this browser can open.
    pub abilities: net::Abilities,
}

impl Standing {
    /// The state, and what to tell people about it.
    pub fn tell(&self) -> (LinkState, String) {
        let alone = "This device can still paint alone.";
        if self.has_left {
            return (LinkState::Left, "You have left the room.".into());
        }
        if !self.has_room {
            let offline = if self.is_offline { " There is no network." } else { "" };
            return (LinkState::Alone, format!("Painting alone on this device, in no room.{offline}"));
        }
        if !self.abilities.webtransport && !self.abilities.websocket {
            let text = "This browser has neither WebTransport nor WebSocket, so nobody can be reached.";
            return (LinkState::Lost, format!("{text} {alone}"));
        }
        if !self.has_relay {
            return match self.members {
                0 => (LinkState::Alone, format!("The room's link names no relay, and nobody was found. {alone}")),
                members => (LinkState::Connected, format!("In the room without a relay, with {}.", others(members))),
            };
        }
        if self.is_connected {
            let mut text = format!("In the room, with {}.", others(self.members));
            if let Some(missing) = self.missing() {
                text = format!("{text} {missing}");
            }
            return (LinkState::Connected, text);
        }
        let stay = match self.members {
            0 => alone.to_owned(),
            members => format!("The connection to {} stays.", others(members)),
        };
        if self.is_offline {
            return (
                LinkState::Lost,
                format!("There is no network; the room is joined again as soon as there is. {stay}"),
            );
        }
        if let Some(trouble) = &self.trouble {
            return (LinkState::Lost, format!("{trouble} Trying again. {stay}"));
        }
        if self.was_connected {
            return (LinkState::Lost, format!("The relay is gone; trying again. {stay}"));
        }
        (LinkState::Connecting, "Looking for the room's relay.".into())
    }

    /// What this browser lacks for direct connections.
    fn missing(&self) -> Option<&'static str> {
        if self.relayed_only {
            return Some("Everything goes through the relay, as asked.");
        }
        match (self.abilities.webtransport, self.abilities.webrtc) {
            (true, true) => None,
            (false, true) => {
                Some("This browser has no WebTransport: native machines are reached by WebSocket or the relay.")
            }
            (true, false) => Some("This browser has no WebRTC: other browsers are reached through the relay."),
            (false, false) => {
                Some("This browser has neither WebTransport nor WebRTC: most are reached through the relay, slower.")
            }
        }
    }
}

fn others(members: usize) -> String {
    match members {
        0 => "nobody else yet".into(),
        1 => "one other".into(),
        members => format!("{members} others"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> net::Abilities {
        net::Abilities { webtransport: true, websocket: true, webrtc: true }
    }

    fn room() -> Standing {
        Standing { has_room: true, has_relay: true, abilities: all(), ..Standing::default() }
    }

    #[test]
    fn every_trouble_says_what_still_works() {
        let troubles = [
            Standing { is_offline: true, ..room() },
            Standing { trouble: Some("The relay does not answer.".into()), ..room() },
            Standing { was_connected: true, ..room() },
            Standing { abilities: net::Abilities::default(), ..room() },
            Standing { has_relay: false, ..room() },
        ];
        for trouble in troubles {
            let (state, text) = trouble.tell();
            assert_ne!(state, LinkState::Connected, "{text}");
            assert!(text.contains("paint alone"), "{text}");
        }
    }

    #[test]
    fn members_stay_when_the_relay_goes() {
        let (state, text) = Standing { was_connected: true, members: 2, ..room() }.tell();
        assert_eq!(state, LinkState::Lost);
        assert!(text.contains("2 others stays"), "{text}");
    }

    #[test]
    fn a_connected_browser_names_what_it_lacks() {
        let with = |abilities| Standing { is_connected: true, abilities, ..room() }.tell();
        assert_eq!(with(all()), (LinkState::Connected, "In the room, with nobody else yet.".into()));
        let (state, text) = with(net::Abilities { webtransport: false, ..all() });
        assert_eq!(state, LinkState::Connected);
        assert!(text.contains("no WebTransport"), "{text}");
        assert!(with(net::Abilities { webrtc: false, ..all() }).1.contains("no WebRTC"));
    }

    #[test]
    fn no_room_and_a_left_room_are_told_apart() {
        assert_eq!(Standing::default().tell().0, LinkState::Alone);
        assert_eq!(Standing { has_left: true, ..room() }.tell().0, LinkState::Left);
    }
}
