//! `manyhands room new`: makes a room link.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use protocol::{Policy, RoomLink, RoomSecret};

use super::Ended;

/// Options of `manyhands room`.
#[derive(Args)]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Print the link of a new room. Whoever has the link is a member.
    New {
        /// The relay through which members meet, for example http://relay.example:8080. Without one, members meet on the
        /// local network, or through --via.
        #[arg(long, env = "MANYHANDS_RELAY", value_name = "URL")]
        relay: Option<String>,
        /// A member's multiaddress to dial, for example /ip4/192.0.2.1/udp/4001/quic-v1; may be repeated.
        #[arg(long, value_name = "MULTIADDR")]
        via: Vec<String>,
        /// How far the room's painters believe its workers: `friends` checks form and plausibility; in an `open` room
        /// unrelated workers must agree on every unit, two of them, in a `paranoid` one three.
        #[arg(long, value_name = "POLICY", default_value = "friends", value_parser = policy)]
        trust: Policy,
    },
}

fn policy(name: &str) -> Result<Policy, &'static str> {
    Policy::parse(name).ok_or("a room is for `friends`, `open` or `paranoid`")
}

/// Prints the link.
pub fn run(arguments: &Arguments) -> Ended {
    let Action::New { relay, via, trust } = &arguments.action;
    let relay = relay.as_ref().map(|relay| relay.trim_end_matches('/').to_owned());
    let link = RoomLink { relay, secret: RoomSecret::from_random(rand::random()), via: via.clone(), policy: *trust };
    // Reading it back finds a relay or an address that would make a broken link.
    RoomLink::parse(&link.to_string())?;
    println!("{link}");
    Ok(ExitCode::SUCCESS)
}
