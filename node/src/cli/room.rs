//! `manyhands room new`: makes a room link.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use protocol::{RoomLink, RoomSecret};

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
    },
}

/// Prints the link.
pub fn run(arguments: &Arguments) -> Ended {
    let Action::New { relay, via } = &arguments.action;
    let relay = relay.as_ref().map(|relay| relay.trim_end_matches('/').to_owned());
    let link = RoomLink { relay, secret: RoomSecret::from_random(rand::random()), via: via.clone() };
    // Reading it back finds a relay or an address that would make a broken link.
    RoomLink::parse(&link.to_string())?;
    println!("{link}");
    Ok(ExitCode::SUCCESS)
}
