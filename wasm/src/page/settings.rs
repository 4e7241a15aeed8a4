//! What the page starts with: its address, what it remembers, and what follows from both.

use protocol::RoomLink;
use protocol::room::LinkError;
use serde::{Deserialize, Serialize};

use super::form::Form;
use super::plain::plain;
use super::state::Underway;
use crate::words::EngineChoice;

/// Characters of a name that fit a narrow screen; the wire allows 64 bytes.
pub const NAME_CHARACTERS_MAX: usize = 32;

/// Least memory that holds the smallest model, in MiB.
const PLEDGE_MIB_MIN: u32 = 128;

/// No device has more, in MiB.
const PLEDGE_MIB_MAX: u32 = 65_536;

/// What the page finds when it opens.
#[derive(Clone, Debug, Default)]
pub struct Start {
    /// The folder it was loaded from, without a trailing slash.
    pub base: String,
    /// The query of its address, decoded.
    pub query: Vec<(String, String)>,
    /// What follows `#` in its address.
    pub fragment: String,
    /// What this browser remembers of earlier visits.
    pub remembered: Remembered,
    /// What stood in the form before a reload.
    pub form: Option<Form>,
    /// The picture that was being painted before a reload.
    pub underway: Option<Underway>,
    /// Whether the person asked the browser to save data.
    pub save_data: bool,
    /// Whether the page is hidden.
    pub hidden: bool,
    /// A random name of this opening of the page, of letters and digits: what it asks of a queue begins with it.
    pub visit: String,
}

/// What a browser remembers from visit to visit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Remembered {
    /// The person's name; empty if never given.
    pub name: String,
    /// Whether to lend this device, if the person ever said so.
    pub lend: Option<bool>,
    /// Memory the engine may take in MiB, if ever given.
    pub pledge: Option<u32>,
    /// Whether a hidden page pauses lending, if the person ever said so.
    pub pause_hidden: Option<bool>,
}

/// What decides how the page joins a room.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Settings {
    /// The folder the page was loaded from; engine and models lie there too.
    pub base: String,
    /// The relay for new rooms.
    pub relay: String,
    /// What the person chose and this browser remembers.
    pub remembered: Remembered,
    /// Which processor computes.
    pub engine: EngineChoice,
    /// Reach members only through the relay.
    pub relayed_only: bool,
    /// `host` or `host:port` of the STUN server to ask; empty for none.
    pub stun: String,
    /// Whether the person asked the browser to save data.
    pub save_data: bool,
    /// A random name of this opening of the page.
    #[serde(skip)]
    pub visit: String,
}

impl Settings {
    /// Reads the page's address; what it says goes before what is remembered. The second value is a complaint in words.
    pub fn new(start: &Start) -> (Self, Option<String>) {
        let value = |name: &str| start.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.trim());
        let mut remembered = start.remembered.clone();
        if let Some(name) = value("name") {
            remembered.name = name.to_owned();
        }
        remembered.name = plain(&remembered.name, NAME_CHARACTERS_MAX);
        remembered.lend = value("lend").map(is_yes).or(remembered.lend);
        remembered.pause_hidden = value("hidden").map(|text| text != "lend").or(remembered.pause_hidden);
        remembered.pledge = remembered.pledge.filter(|mib| (PLEDGE_MIB_MIN..=PLEDGE_MIB_MAX).contains(mib));
        let asked = value("relay").map(|relay| relay.trim_end_matches('/').to_owned());
        let relay = asked.clone().filter(|relay| is_web(relay)).unwrap_or_else(|| start.base.clone());
        let complaint = asked.filter(|asked| !is_web(asked)).map(|_| {
            "The relay in this address does not begin with https:// or http://, so the page's own host is asked instead.".to_owned()
        });
        let engine = match value("engine") {
            Some("cpu") => EngineChoice::Cpu,
            Some("gpu") => EngineChoice::Gpu,
            Some(_) | None => EngineChoice::Auto,
        };
        let relayed_only = value("relayed").is_some_and(is_yes);
        let stun = value("stun").unwrap_or_default().to_owned();
        let (base, save_data, visit) = (start.base.clone(), start.save_data, start.visit.clone());
        (Self { base, relay, remembered, engine, relayed_only, stun, save_data, visit }, complaint)
    }

    /// Whether to lend: as the person said; else in a room, because a room's link asks for a hand, unless data is saved.
    pub fn lends(&self, in_room: bool) -> bool {
        self.remembered.lend.unwrap_or(in_room && !self.save_data)
    }

    /// Whether a hidden page pauses lending: yes unless the person said otherwise, because nobody should find their
    /// device busy for others by a tab they no longer see.
    pub fn pauses_hidden(&self) -> bool {
        self.remembered.pause_hidden.unwrap_or(true)
    }
}

/// The room that a fragment names at `relay`; `None` if it is empty.
pub fn room_of(fragment: &str, relay: &str) -> Option<Result<RoomLink, String>> {
    let fragment = fragment.trim_start_matches('#');
    (!fragment.is_empty()).then(|| room(&format!("{relay}/#{fragment}")))
}

/// The room of a whole link, or what is wrong with it in words for a page.
pub fn room(link: &str) -> Result<RoomLink, String> {
    let text = match RoomLink::parse(link) {
        Ok(RoomLink { relay: None, .. }) => {
            "This link names no relay, and a browser meets others only through one. Ask for a link that begins with https://."
        }
        Ok(link) => return Ok(link),
        Err(LinkError::NoSecret) => {
            "This link has no secret (the part after #), so it opens no room. Ask for the whole link, create a room, or paint alone."
        }
        Err(LinkError::Secret) => {
            "The secret in this link (26 letters and digits after #) is damaged. Copy the whole link again, create a room, or paint alone."
        }
        Err(LinkError::Scheme) => "A room link begins with https:// or http://. Copy the whole link again.",
        Err(LinkError::Parts) => "This link has parts that are not understood. Copy the whole link again.",
    };
    Err(text.to_owned())
}

/// Memory in MiB as it was typed; `None` for the engine's own choice.
pub fn pledge(text: &str) -> Result<Option<u32>, String> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    let mib = text.parse().ok().filter(|mib| (PLEDGE_MIB_MIN..=PLEDGE_MIB_MAX).contains(mib));
    mib.map(Some)
        .ok_or_else(|| format!("Memory is a whole number from {PLEDGE_MIB_MIN} to {PLEDGE_MIB_MAX} MiB, or empty."))
}

fn is_yes(text: &str) -> bool {
    matches!(text, "1" | "true" | "yes" | "on" | "")
}

fn is_web(address: &str) -> bool {
    ["https://", "http://"].iter().any(|scheme| address.strip_prefix(scheme).is_some_and(|rest| !rest.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(query: &[(&str, &str)]) -> Start {
        let query = query.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Start { base: "https://relay.example/paint".into(), query, ..Start::default() }
    }

    #[test]
    fn the_address_goes_before_what_is_remembered() {
        let remembered = Remembered { name: "Ada".into(), lend: Some(true), pledge: Some(7), pause_hidden: None };
        let (settings, complaint) = Settings::new(&Start {
            remembered,
            ..start(&[
                ("name", "Bo\u{202e}b"),
                ("lend", "0"),
                ("engine", "cpu"),
                ("relayed", "1"),
                ("hidden", "lend"),
                ("stun", "stun.example"),
            ])
        });
        assert_eq!(settings.remembered.name, "Bob");
        assert_eq!((settings.remembered.lend, settings.engine), (Some(false), EngineChoice::Cpu));
        assert_eq!(settings.remembered.pledge, None, "a pledge outside the limits is forgotten");
        assert!(settings.relayed_only && !settings.pauses_hidden() && !settings.lends(true));
        assert_eq!((settings.relay.as_str(), complaint), ("https://relay.example/paint", None));
        assert_eq!((settings.stun.as_str(), Settings::new(&start(&[])).0.stun.as_str()), ("stun.example", ""));
    }

    #[test]
    fn a_page_lends_in_a_room_until_it_is_told_otherwise() {
        let (settings, _) = Settings::new(&start(&[]));
        assert!(settings.lends(true) && !settings.lends(false) && settings.pauses_hidden());
        let (settings, _) = Settings::new(&Start { save_data: true, ..start(&[]) });
        assert!(!settings.lends(true));
    }

    #[test]
    fn a_page_on_any_host_may_name_its_relay() {
        let (settings, complaint) = Settings::new(&start(&[("relay", "https://other.example/")]));
        assert_eq!((settings.relay.as_str(), complaint), ("https://other.example", None));
        let (settings, complaint) = Settings::new(&start(&[("relay", "javascript:alert(1)")]));
        assert_eq!(settings.relay, "https://relay.example/paint");
        assert!(complaint.unwrap().contains("https://"));
    }

    #[test]
    fn a_link_without_its_secret_gets_a_sentence() {
        assert!(room("https://relay.example/").unwrap_err().contains("no secret"));
        assert!(room("https://relay.example/#abc").unwrap_err().contains("damaged"));
        assert!(room("ftp://relay.example/#abc").unwrap_err().contains("https://"));
        assert!(room("manyhands:#aaaaaaaaaaaaaaaaaaaaaaaaaa").unwrap_err().contains("relay"));
        assert_eq!(room_of("", "https://relay.example"), None);
        assert!(room_of("#aaaaaaaaaaaaaaaaaaaaaaaaaa", "https://relay.example").unwrap().is_ok());
    }

    #[test]
    fn a_pledge_is_a_number_of_mib_or_nothing() {
        assert_eq!(pledge(" 512 "), Ok(Some(512)));
        assert_eq!(pledge(""), Ok(None));
        assert!(pledge("1").unwrap_err().contains("128"));
        assert!(pledge("-5").is_err());
    }
}
